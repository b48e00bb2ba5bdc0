"""Node-by-node execution of a graph on batches that wait for each other, so that layers can be refitted on the way."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from compress.graph import Coupling, attribute
from compress.graph.labels import Value

Hold = Mapping[fx.Node, fx.Node]


class Walker:
    """Runs a graph one node at a time for all batches; a value is dropped after its last use.

    Args:
        module: The network.
        batches: For each batch the network's inputs.
        hold: Nodes whose values are kept until another node has run, even if nothing reads them any more.
    """

    def __init__(self, module: fx.GraphModule, batches: Sequence[tuple[Tensor, ...]], hold: Hold | None = None) -> None:
        self.module = module
        self.nodes: list[fx.Node] = list(module.graph.nodes)
        self.position = 0
        self.batches = batches
        self.env: list[dict[fx.Node, Any]] = [{} for _ in batches]
        self._last_users: dict[fx.Node, list[fx.Node]] = {}
        for source, user in last_uses(self.nodes, hold or {}).items():
            self._last_users.setdefault(user, []).append(source)

    def run_to(self, node: fx.Node) -> None:
        """Execute up to and including ``node``."""
        while self.position < len(self.nodes) and not self.has(node):
            self.step()

    def has(self, node: fx.Node) -> bool:
        return all(node in values for values in self.env)

    def values(self, node: fx.Node) -> list[Any]:
        """The results of an executed node, one for each batch."""
        return [values[node] for values in self.env]

    def step(self) -> None:
        """Execute the next node."""
        node = self.nodes[self.position]
        self.position += 1
        placeholders = [n for n in self.nodes if n.op == "placeholder"] if node.op == "placeholder" else []
        for batch, values in zip(self.batches, self.env, strict=True):
            if node.op == "placeholder":
                # A copy, as the network may work in place on its input, which both networks of a refit see
                values[node] = batch[placeholders.index(node)].clone()
            elif node.op == "get_attr":
                values[node] = attribute(self.module, str(node.target))
            elif node.op == "call_function":
                args, kwargs = fx.node.map_arg((node.args, dict(node.kwargs)), values.__getitem__)
                with torch.no_grad():
                    values[node] = node.target(*args, **kwargs)  # type: ignore[operator]
        for source in self._last_users.get(node, []):
            self._drop(source)

    def _drop(self, node: fx.Node) -> None:
        for values in self.env:
            values.pop(node, None)


def last_uses(nodes: Sequence[fx.Node], hold: Hold) -> dict[fx.Node, fx.Node]:
    """After which node the value of another is no longer needed."""
    order = {node: i for i, node in enumerate(nodes)}
    last: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        for source in node.all_input_nodes:
            last[source] = node
    for source, until in hold.items():
        if order[until] > order[last.get(source, source)]:
            last[source] = until
    return last


def affordable(coupling: Coupling, memory: int = 4_000_000_000, hold: Hold | None = None) -> int:
    """Samples whose activations, of two copies of the network at the widest point, fit into ``memory`` bytes."""
    values, live, peak = coupling.flow.values, 0, 1
    nodes = list(coupling.program.module.graph.nodes)
    ends: dict[fx.Node, list[fx.Node]] = {}
    for source, user in last_uses(nodes, hold or {}).items():
        ends.setdefault(user, []).append(source)
    for node in nodes:
        if node.op == "call_function":
            live += numbers(values.get(node))
            peak = max(peak, live)
        live -= sum(numbers(values.get(s)) for s in ends.get(node, []) if s.op == "call_function")
    batch = int(coupling.program.inputs[0].shape[0])
    return max(2, memory // (2 * 4 * max(1, peak // batch)))


def numbers(value: Any) -> int:
    """How many numbers a node's result holds."""
    if isinstance(value, tuple):
        return sum(numbers(v) for v in value)
    return math.prod(value.shape) if isinstance(value, Value) else 0
