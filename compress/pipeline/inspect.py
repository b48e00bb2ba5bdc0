"""`compress inspect`: what is in a file and what of it can be pruned."""

from __future__ import annotations

import math

from torch import fx, nn

from compress.counting import count_parameters
from compress.graph import Frozen, macs
from compress.graph.propagate import op_name
from compress.pipeline.opening import analysed, open_model, traced
from compress.pipeline.prunable import prunable
from compress.progress import Progress
from compress.request import InspectRequest
from compress.result import Inspection, Kept, Layer, UnitGroup


def inspect_model(request: InspectRequest, progress: Progress) -> Inspection:
    """Read, trace and analyse a model; nothing is written.

    Raises:
        InputError: The file or what was said of it is wrong.
        ModelError: The model cannot be traced.
    """
    opened = open_model(request.model, request.settings, progress=progress)
    progress.step("Tracing")
    coupling = analysed(traced(opened), progress)
    loaded = opened.loaded
    frozen = [Kept(f"{f.tensor} dim {f.dim} ({f.indices})", _reason(f)) for f in coupling.frozen]
    frozen += [
        Kept(", ".join(places[:3]), f"{op} has no label rule: what goes into it keeps its size")
        for op, places in coupling.flow.unruled.items()
    ]
    return Inspection(
        path=loaded.path,
        form=loaded.form,
        architecture=loaded.architecture,
        sha256=loaded.sha256,
        bytes=loaded.bytes,
        input_shapes=opened.shapes,
        parameters=count_parameters(loaded.module),
        macs=macs(coupling),
        layers=tuple(_layers(loaded.module) if loaded.onnx is None else _by_weight(loaded.module)),
        groups=tuple(
            UnitGroup(g.name, g.kind, g.size, tuple(dict.fromkeys(m.tensor for m in g.members)))
            for g in coupling.groups
        ),
        frozen=tuple(frozen),
        notes=loaded.notes,
        input_types=tuple(str(t) for t in opened.types),
        prunable=prunable(coupling),
        onnx=None if loaded.onnx is None else loaded.onnx.to_json(),
    )


def _reason(frozen: Frozen) -> str:
    """With the operation, and its module where that is not the tensor's own."""
    elsewhere = frozen.where and not frozen.tensor.startswith(f"{frozen.where}.")
    place = f"{frozen.op} in {frozen.where}" if elsewhere else frozen.op
    return f"{frozen.reason} ({place})" if place and frozen.op != "output" else frozen.reason


def _layers(module: nn.Module) -> list[Layer]:
    operations = _operations(module) if isinstance(module, fx.GraphModule) else {}
    found = []
    for name, child in module.named_modules():
        own = list(child.named_parameters(recurse=False))
        if own:
            weight = dict(own).get("weight", own[0][1])
            kind = operations.get(name, type(child).__name__)
            count = sum(math.prod(p.shape) for _, p in own)
            found.append(Layer(name or "(root)", kind, tuple(weight.shape), count))
    return found


def _by_weight(module: nn.Module) -> list[Layer]:
    """One layer for each operation that reads parameters, under the name of the largest of them.

    Names in ONNX files need not be paths.
    """
    parameters, found = dict(module.named_parameters()), []
    seen: set[str] = set()
    for node in module.graph.nodes if isinstance(module, fx.GraphModule) else ():
        names = [str(n.target) for n in node.all_input_nodes if n.op == "get_attr"]
        own = [name for name in dict.fromkeys(names) if name in parameters and name not in seen]
        if node.op == "call_function" and own:
            seen.update(own)
            weight = max(own, key=lambda name: (parameters[name].dim(), parameters[name].numel()))
            count = sum(parameters[name].numel() for name in own)
            kind = op_name(node.target).rpartition("::")[2]
            found.append(Layer(weight.removesuffix(".weight"), kind, tuple(parameters[weight].shape), count))
    return found


def _operations(module: fx.GraphModule) -> dict[str, str]:
    """By path, what a graph does with the parameters there; it no longer knows the classes of its layers."""
    found: dict[str, str] = {}
    for node in module.graph.nodes:
        users = [user for user in node.users if user.op == "call_function"]
        if node.op == "get_attr" and users:
            path = str(node.target).rpartition(".")[0]
            found.setdefault(path, op_name(users[0].target).rpartition("::")[2])
    return found
