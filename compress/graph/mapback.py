"""The module slicer: the same slice made on the user's own module, where its code can represent it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from compress.graph.double import WideCasts, as_double, double_by_default, leaves
from compress.graph.groups import Coupling
from compress.graph.labels import Value
from compress.graph.rules import REWRITES, Cut, Kept
from compress.graph.slice import attribute, slice_tensor
from compress.graph.trace import Program, owner
from compress.graph.verify import TOLERANCE, compare


@dataclass(frozen=True)
class ModuleSlice:
    """Outcome of :func:`slice_module`.

    Attributes:
        module: The sliced copy, None when the module's code cannot represent the slice.
        changed: Constructor-like attributes that changed, ``path.name`` to (before, after).
        problem: The construct that prevents it, "" when it worked.
    """

    module: nn.Module | None
    changed: Mapping[str, tuple[Any, Any]]
    problem: str = ""


def slice_module(
    module: nn.Module, coupling: Coupling, alive: NDArray[np.bool_], sliced: fx.GraphModule
) -> ModuleSlice:
    """Slice a copy of the user's module and accept it only if it computes what the sliced graph computes.

    Args:
        module: The module that was traced; it is not touched.
        coupling: Its analysis.
        alive: By label, what stays.
        sliced: The result of the graph slicer for the same ``alive``.
    """
    small = copy.deepcopy(module)
    names = dict(small.named_parameters(remove_duplicate=False)) | dict(small.named_buffers(remove_duplicate=False))
    kept = coupling.kept(alive)
    for name in kept:
        if name not in names:
            return ModuleSlice(None, {}, f"{name} is a constant inside the module's code")
    changed: dict[str, tuple[Any, Any]] = {}
    _slice_tensors(small, names, kept)
    _refresh(small, changed)
    constants = _constants(coupling, alive)
    for path, name, old, new in constants:
        _explain(small, path, name, old, new, changed)
    problem = _difference(small, sliced, coupling)
    if problem:
        where = sorted({path or "the model's own forward" for path, _, _, _ in constants})
        reason = f"sizes computed inside {', '.join(where[:3])}" if where else "sizes computed in its code"
        return ModuleSlice(None, {}, f"{reason} do not follow the slice ({problem})")
    return ModuleSlice(small, changed)


def _slice_tensors(
    module: nn.Module, names: Mapping[str, Tensor], kept: Mapping[str, dict[int, NDArray[np.int64]]]
) -> None:
    done: dict[int, Tensor] = {}
    by_identity = {id(names[name]): dims for name, dims in kept.items()}
    for name, tensor in names.items():
        dims = by_identity.get(id(tensor))
        if dims is None:
            continue
        if id(tensor) not in done:
            smaller = slice_tensor(tensor.detach(), dims)
            parameter = isinstance(tensor, nn.Parameter)
            done[id(tensor)] = nn.Parameter(smaller, tensor.requires_grad) if parameter else smaller
        path, _, last = name.rpartition(".")
        parent = attribute(module, path) if path else module
        registry = parent._parameters if last in parent._parameters else parent._buffers
        registry[last] = done[id(tensor)]  # type: ignore[assignment]


def _sizes(module: nn.Module) -> dict[str, Any]:
    """What the attributes of a stock layer should say, read off its tensors."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor):
        return {}
    if isinstance(module, nn.Linear):
        return {"out_features": weight.shape[0], "in_features": weight.shape[1]}
    if isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        return {"in_channels": weight.shape[0], "out_channels": weight.shape[1] * module.groups}
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return {"out_channels": weight.shape[0], "in_channels": weight.shape[1] * module.groups}
    if isinstance(module, nn.modules.batchnorm._NormBase):
        return {"num_features": weight.shape[0]}
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        return {"normalized_shape": tuple(weight.shape)}
    if isinstance(module, nn.GroupNorm):
        return {"num_channels": weight.shape[0]}
    if isinstance(module, nn.Embedding):
        return {"embedding_dim": weight.shape[1]}
    return {}


def _refresh(module: nn.Module, changed: dict[str, tuple[Any, Any]]) -> None:
    for path, child in module.named_modules():
        for name, value in _sizes(child).items():
            _set(child, path, name, value, changed)


def _set(module: nn.Module, path: str, name: str, value: Any, changed: dict[str, tuple[Any, Any]]) -> None:
    before = getattr(module, name)
    if before != value:
        setattr(module, name, value)
        changed[f"{path}.{name}".lstrip(".")] = (before, value)


def _constants(coupling: Coupling, alive: NDArray[np.bool_]) -> list[tuple[str, str, Any, Any]]:
    """Constants of calls that the slice changed: (owner, argument, before, after)."""
    kept = Kept(alive)
    found = []
    for node, call in coupling.flow.calls.items():
        if call.op not in REWRITES:
            continue
        value = coupling.flow.values[node]
        outs = (value,) if isinstance(value, Value) else tuple(value)
        for name, new in REWRITES[call.op](Cut(call, outs, kept)).items():
            old = call.args.get(name)
            if not name.startswith("@") and new is not ... and old != new:
                found.append((owner(node), name, old, new))
    return found


def _explain(module: nn.Module, path: str, name: str, old: Any, new: Any, changed: dict[str, tuple[Any, Any]]) -> None:
    """Find the attribute of the owning module (or of one it lies in) that holds a changed constant."""
    holders = [path]
    while holders[-1]:
        holders.append(holders[-1].rpartition(".")[0])
    own = attribute(module, path) if path else module
    if name in ("groups", "num_groups") and hasattr(own, name):
        _set(own, path, name, new, changed)
    pairs = zip(old, new, strict=False) if isinstance(old, (list, tuple)) and isinstance(new, (list, tuple)) else ()
    for before, after in pairs:
        if before == after or not isinstance(before, int) or before < 2:
            continue
        for holder_path in holders[:2]:
            holder = attribute(module, holder_path) if holder_path else module
            matching = [k for k, v in vars(holder).items() if type(v) is int and v == before]
            for key in matching:
                _set(holder, holder_path, key, after, changed)
            if matching:
                break


def _difference(small: nn.Module, sliced: fx.GraphModule, coupling: Coupling) -> str:
    """ "" if module and graph agree in float64, else what was met."""
    inputs = [x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for x in coupling.program.inputs]
    with torch.no_grad(), double_by_default():
        expected = leaves(as_double(sliced)(*inputs))
    program = coupling.program
    problem = _module_difference(small, program, inputs, expected)
    if not problem:
        return ""
    # Code that creates tensors without a dtype needs float64 by default; code with written-out numbers must not.
    with double_by_default():
        return problem if _module_difference(small, program, inputs, expected) else ""


def _module_difference(small: nn.Module, program: Program, inputs: list[Any], expected: list[Any]) -> str:
    wide = copy.deepcopy(small).double()
    with torch.no_grad(), WideCasts():
        try:
            got = program.call(wide, inputs)
        except Exception as error:  # the user's own code may raise anything
            return str(error).splitlines()[0] if str(error) else type(error).__name__
    outcome = compare(expected, leaves(got), TOLERANCE)
    return "" if outcome.passed else outcome.problem or f"outputs differ by {outcome.error:.1e}"
