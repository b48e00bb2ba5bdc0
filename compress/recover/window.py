"""Layers that are solved for together: one layer and those right before it, with the operations between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import fx

from compress.calibration.layers import is_layer, op_of

THROUGH = ("aten::dropout", "aten::contiguous", "aten::clone", "aten::alias")
ADD = ("aten::add", "aten::add_")
_RECTIFIERS = ("aten::relu", "aten::relu_")


@dataclass(frozen=True)
class Window:
    """A part of a graph whose layers nothing outside depends on, save through its last one.

    Attributes:
        layers: Refitted together, in graph order; the last is the one that the window is for.
        nodes: The calls from the layers to ``end``, in graph order.
        inputs: What they read from outside.
        end: Where the result is compared: behind the batch norm and the sum that follow the last layer.
        rectified: Whether a ReLU follows ``end``, so that what is negative in both networks is no error.
    """

    layers: tuple[fx.Node, ...]
    nodes: tuple[fx.Node, ...]
    inputs: tuple[fx.Node, ...]
    end: fx.Node
    rectified: bool


def window(nodes: Sequence[fx.Node], last: fx.Node, solvable: Callable[[fx.Node], bool]) -> Window:
    """The window of a layer.

    Args:
        nodes: Of the graph, in order.
        last: The layer.
        solvable: Whether a layer's weight may be solved for.
    """
    order = {node: i for i, node in enumerate(nodes)}
    inside, layers = {last}, [last]  # layers before the last are reached, but not looked behind
    for node in reversed(nodes[: order[last]]):
        if node.op != "call_function" or not node.users or not inside.issuperset(node.users):
            continue
        if not is_layer(node):
            inside.add(node)
        elif solvable(node):
            layers.append(node)
    tail = _tail(nodes, order, last)
    calls = sorted({*inside, *layers, *tail} & _leading_to(inside, layers, tail), key=order.__getitem__)
    taken = set(calls)
    inputs = dict.fromkeys(s for n in calls for s in n.all_input_nodes if s.op != "get_attr" and s not in taken)
    end = tail[-1] if tail else last
    users = list(end.users)
    rectified = len(users) == 1 and op_of(users[0]) in _RECTIFIERS
    return Window(tuple(reversed(layers)), tuple(calls), tuple(inputs), end, rectified)


def _leading_to(inside: set[fx.Node], layers: list[fx.Node], tail: list[fx.Node]) -> set[fx.Node]:
    """What lies on a way from a layer; the rest of ``inside`` does not change and is read as it is."""
    found = set(layers) | set(tail)
    todo = list(layers)
    while todo:
        for user in todo.pop().users:
            if user in inside and user not in found:
                found.add(user)
                todo.append(user)
    return found


def _tail(nodes: Sequence[fx.Node], order: dict[fx.Node, int], last: fx.Node) -> list[fx.Node]:
    """Batch norm and sums with what is known already, behind the layer and before the next one."""
    tail: list[fx.Node] = []
    node = last
    while len(node.users) == 1:
        user = next(iter(node.users))
        op = op_of(user)
        known = all(s.op == "get_attr" or s is node or order[s] < order[last] for s in user.all_input_nodes)
        norm = op == "aten::batch_norm" and user.args[0] is node and not user.args[5]
        if not known or not (norm or op in (*THROUGH, *ADD)) or user.args.count(node) != 1:
            break
        if any(is_layer(n) for n in nodes[order[node] + 1 : order[user]]):
            break
        tail.append(user)
        node = user
    return tail
