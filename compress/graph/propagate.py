"""One walk over the graph that gives every tensor its labels and collects what the operations demand of them."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx

from compress.graph.blocks import weight_blocks
from compress.graph.calls import bind as bind
from compress.graph.calls import op_name as op_name
from compress.graph.features import selections
from compress.graph.labels import Factor, Labels, Relations, Value
from compress.graph.lists import index_lists
from compress.graph.rules import RULES, Call
from compress.graph.rules.pointwise import pointwise
from compress.graph.rules.registry import Rule, fixed
from compress.graph.trace import Program, attribute, concrete, owner, shape_of


@dataclass(frozen=True)
class Slot:
    """One dim of a parameter or buffer and the label of each of its indices.

    Attributes:
        labels: (blocks * size of the dim,); see :mod:`compress.graph.blocks`.
        blocks: In how many blocks of rows the dim counts its indices anew.
    """

    tensor: str
    dim: int
    labels: Labels
    blocks: int = 1


@dataclass(frozen=True)
class Flow:
    """Result of the walk.

    Attributes:
        values: Labels of every node's result (a tuple for operations with several results).
        calls: The calls as the rules saw them.
        slots: Labelled dims of parameters and buffers, in graph order.
        unruled: Operations that have no rule, with the modules that use them.
        untrained: Parameters that stay because their ``requires_grad`` is False.
    """

    relations: Relations
    values: dict[fx.Node, Any]
    calls: dict[fx.Node, Call]
    slots: tuple[Slot, ...]
    unruled: Mapping[str, tuple[str, ...]]
    untrained: frozenset[str] = frozenset()


UNTRAINED = "requires_grad is False; --allow-frozen prunes it"


def propagate(
    program: Program, *, prune_outputs: bool = False, prune_inputs: bool = False, allow_frozen: bool = False
) -> Flow:
    """Walk the traced graph once.

    Args:
        program: The traced network.
        prune_outputs: Whether the network's outputs may get smaller.
        prune_inputs: Whether selections of input features may.
        allow_frozen: Whether parameters with ``requires_grad=False`` may.
    """
    walk = _Walk(program, prune_outputs, selections(program.module) if prune_inputs else ())
    for node in program.module.graph.nodes:
        walk.visit(node)
    untrained = frozenset() if allow_frozen else walk.hold_untrained()
    return Flow(
        walk.relations,
        walk.values,
        walk.calls,
        tuple(walk.slots.values()),
        {op: tuple(sorted(where)) for op, where in walk.unruled.items()},
        untrained,
    )


def rule_of(op: str, target: Any) -> Rule | None:
    """The rule of an operation; an in-place form (``relu_``) follows its plain form."""
    base = op.removesuffix("_") if not op.endswith("__") else op
    for name in (op, base):
        if name in RULES:
            return RULES[name]
    space, _, plain = base.partition("::")
    packet = getattr(getattr(torch.ops, space, None), plain, None)
    overloads = [target, *(getattr(packet, o) for o in packet.overloads())] if packet is not None else [target]
    return pointwise if any(torch.Tag.pointwise in getattr(o, "tags", ()) for o in overloads) else None


def _factor(labels: Labels, shape: tuple[int, ...], dim: int) -> Factor:
    """The factor of a parameter's dim from its labels (blocks of rows, size of the dim)."""
    blocks, n = labels.shape
    small = [1] * len(shape)
    small[dim] = n
    if blocks > 1:
        small[0] = shape[0]
        labels = np.repeat(labels, shape[0] // blocks, axis=0)
    return Factor(labels.reshape(small), dim)


def _unread(node: fx.Node, count: int) -> frozenset[int]:
    """Positions of the results of a call that nothing reads."""
    read: set[Any] = set()
    for user in node.users:
        if user.target is not operator.getitem:
            return frozenset()
        read |= {user.args[1]} if user.users else set()
    return frozenset(range(count)) - read if count > 1 else frozenset()


class _Walk:
    def __init__(self, program: Program, prune_outputs: bool, selections: Sequence[str]) -> None:
        self.module = program.module
        self.prune_outputs = prune_outputs
        self.selections = selections
        self.relations = Relations()
        self.values: dict[fx.Node, Any] = {}
        self.calls: dict[fx.Node, Call] = {}
        self.slots: dict[tuple[str, int], Slot] = {}
        self.unruled: dict[str, set[str]] = {}
        self.tensors: dict[int, Value] = {}
        self.blocks = weight_blocks(program.module)
        self.lists = index_lists(program.module) - set(selections)

    def visit(self, node: fx.Node) -> None:
        self.relations.op, self.relations.where = str(node.target), owner(node)
        if node.op == "placeholder":
            self.values[node] = self._unlabelled(node)
        elif node.op == "get_attr":
            self.values[node] = self._attribute(str(node.target))
        elif node.op == "call_function":
            self.values[node] = self._call(node)
        elif node.op == "output":
            self._output(node)
        else:
            raise TypeError(f"unexpected {node.op} node {node.name}")

    def _unlabelled(self, node: fx.Node) -> Any:
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor):
            return Value(shape_of(value))
        return concrete(value) if isinstance(value, torch.SymInt) else value

    def _attribute(self, name: str) -> Any:
        tensor: Any = self.module
        for part in name.split("."):
            tensor = getattr(tensor, part)
        if not isinstance(tensor, torch.Tensor):
            return tensor
        key = id(tensor)  # tied parameters are one tensor under two names
        if key not in self.tensors:
            self.tensors[key] = self._label(name, tensor)
        return self.tensors[key]

    def _label(self, name: str, tensor: torch.Tensor) -> Value:
        shape = tuple(tensor.shape)
        factors = []
        listed = name in self.lists
        for dim, n in enumerate(shape):
            if n > 1 and (tensor.is_floating_point() or name in self.selections or listed):
                found = self.blocks.get(id(tensor))
                blocks = found.count if found and dim in found.dims else 1
                labels = self.relations.fresh(blocks, n)
                self.relations.balance(labels, 1)
                self.slots[name, dim] = Slot(name, dim, labels.ravel(), blocks)
                factors.append(_factor(labels, shape, dim))
        return Value(shape, tuple(factors), tensor.detach().cpu().numpy() if listed else None)

    def _call(self, node: fx.Node) -> Any:
        if node.target is operator.getitem:
            source: Any
            key: Any
            source, key = (self.values[a] if isinstance(a, fx.Node) else a for a in node.args)
            return source[key]
        result = node.meta.get("val")
        tensors = [v for v in (result if isinstance(result, (list, tuple)) else [result])]
        if not any(isinstance(t, torch.Tensor) for t in tensors):
            return self._plain_result(node, result)
        op = op_name(node.target)
        self.relations.op = op
        self.relations.reads_input = any(source.op == "placeholder" for source in node.all_input_nodes)
        args = bind(node.target, *fx.node.map_arg((node.args, dict(node.kwargs)), self.values.__getitem__))
        shapes = tuple(shape_of(t) if isinstance(t, torch.Tensor) else () for t in tensors)
        call = self.calls[node] = Call(op, args, shapes, self.relations, _unread(node, len(tensors)), node)
        found = rule_of(op, node.target)
        if found is None:
            if any(v.factors for v in call.values()):
                self.unruled.setdefault(op, set()).add(owner(node))
            value: Any = fixed(call, f"{op} has no label rule")
        else:
            value = found(call)
        return self._checked(call, value, isinstance(result, (list, tuple)))

    def _checked(self, call: Call, value: Any, many: bool) -> Any:
        """A rule that returns another shape than the operation is a defect of the rule."""
        got = tuple(v.shape for v in value) if not isinstance(value, Value) else (value.shape,)
        if got != call.shapes:
            raise TypeError(f"rule of {call.op} returned shapes {got}, the operation gives {call.shapes}")
        if many and isinstance(value, Value):
            return (value,)
        return value

    def _plain_result(self, node: fx.Node, result: Any) -> Any:
        """Sizes and other scalars; labels that go in (``item()``, assertions) must stay."""
        for source in node.all_input_nodes:
            value = self.values.get(source)
            if isinstance(value, Value) and op_name(node.target) != "aten::sym_size":
                self.relations.pin_all(value.factors, f"{op_name(node.target)} reads the whole tensor")
        if isinstance(result, (list, tuple)):
            return tuple(concrete(r) if isinstance(r, torch.SymInt) else r for r in result)
        return concrete(result) if isinstance(result, torch.SymInt) else result

    def hold_untrained(self) -> frozenset[str]:
        """Pin what is frozen; last, as a reason that holds in any case is the better one to report."""
        held = set()
        for slot in self.slots.values():
            tensor = attribute(self.module, slot.tensor)
            if isinstance(tensor, torch.nn.Parameter) and not tensor.requires_grad:
                self.relations.op, self.relations.where = "", ""
                self.relations.pin(slot.labels, UNTRAINED)
                held.add(slot.tensor)
        return frozenset(held)

    def _output(self, node: fx.Node) -> None:
        if self.prune_outputs:
            return
        self.relations.op, self.relations.where = "output", ""
        for source in node.all_input_nodes:
            found = self.values[source]
            for value in found if isinstance(found, tuple) else (found,):
                if isinstance(value, Value):
                    self.relations.pin_all(value.factors, "an output of the network keeps its size")
