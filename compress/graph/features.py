"""Input features as units: a network goes on taking all of them and starts by selecting those that it needs.

The list of what it selects is a buffer of whole numbers, whose indices get labels like those of a parameter. So it is
sliced with the weights that read the features, stays in the file, and can be sliced again.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx

from compress.errors import ModelError
from compress.graph.calls import bind, op_name
from compress.graph.trace import Program, attribute, shape_of

KEPT_INPUTS = "kept_inputs"


def select_inputs(program: Program) -> Program:
    """The network with every float input (N, F) led through a selection of its features, which at first is of all.

    Args:
        program: The traced network; it is left as it was and shares its tensors with the result.

    Raises:
        ModelError: No input is a table of features.
    """
    source = program.module
    graph, mapping = fx.Graph(), dict[fx.Node, fx.Node]()
    tensors = {str(n.target): attribute(source, str(n.target)) for n in source.graph.nodes if n.op == "get_attr"}
    selected = set(selections(source))
    for node in source.graph.nodes:
        copy = mapping[node] = graph.node_copy(node, mapping.__getitem__)
        copy.meta = dict(node.meta)
        value = node.meta.get("val")
        if node.op != "placeholder" or not _is_table(value) or any(_selection(u) in selected for u in node.users):
            continue
        name = _free_name(source, tensors)
        tensors[name] = torch.arange(shape_of(value)[1])
        chosen = graph.call_function(torch.ops.aten.index_select.default, (copy, 1, graph.get_attr(name)))
        chosen.meta = {"val": value}
        mapping[node] = chosen
        selected.add(name)
    if not selected:
        raise ModelError(
            "no input of the model is a table of features (N, F), so none of its features can go",
            "for a model that flattens its input give the flat size, such as --input-shape 784; or leave out "
            "--prune-inputs",
        )
    graph.set_codegen(source.graph._codegen)
    return replace(program, module=fx.GraphModule(tensors, graph, class_name="Network"))


def selections(module: fx.GraphModule) -> list[str]:
    """The buffers by which features of inputs are selected, in graph order."""
    return [name for node in module.graph.nodes if (name := _selection(node))]


def _selection(node: fx.Node) -> str:
    """The buffer's name if a node selects features of an input; "" if not."""
    if node.op != "call_function" or op_name(node.target) != "aten::index_select":
        return ""
    args: dict[str, Any] = bind(node.target, node.args, node.kwargs)
    source, index = args["self"], args["index"]
    plain = source.op == "placeholder" and index.op == "get_attr" and args["dim"] in (1, -1)
    return str(index.target) if plain and _is_table(source.meta.get("val")) else ""


def _is_table(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() == 2 and value.is_floating_point() and shape_of(value)[1] > 1


def _free_name(module: fx.GraphModule, taken: Mapping[str, Any]) -> str:
    names = itertools.chain([KEPT_INPUTS], (f"{KEPT_INPUTS}_{i}" for i in itertools.count(1)))
    return next(name for name in names if name not in taken and not hasattr(module, name))
