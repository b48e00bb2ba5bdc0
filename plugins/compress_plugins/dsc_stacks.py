"""Stacks: layers of one kind behind each other, with nothing between them that mixes features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from compress.plugin import Context, ModelError, bind, matched, op_name

_LINEAR = frozenset({"aten::linear"})
_CONVOLUTIONS = frozenset(f"aten::conv{n}d" for n in (1, 2, 3))
_PASSED = frozenset(
    f"aten::{name}"
    for name in ("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout", "prelu", "clone", "detach")
)
_POOLS = frozenset(
    f"aten::{kind}{n}d"
    for n in (1, 2, 3)
    for kind in ("max_pool", "avg_pool", "adaptive_max_pool", "adaptive_avg_pool")
)


@dataclass(frozen=True)
class Layer:
    """A layer of a stack, by names.

    Attributes:
        node: Of the call.
        weight, bias: Of its parameters; no bias is None.
        reads: The node whose features it reads.
        consumes: Whether its inputs may change: not in a layer that the user protects.
    """

    node: str
    weight: str
    bias: str | None
    reads: str
    consumes: bool

    @property
    def name(self) -> str:
        """Of the module."""
        return self.weight.rpartition(".")[0] or self.weight


@dataclass(frozen=True)
class Stack:
    """Two layers or more; the first reads the input of the stack, every other what the one before it gives.

    Attributes:
        layers: In the order in which they are run.
        sizes: Features of the input, then of what every layer but the last gives: those that the next one reads.
        spatial: Dims behind the features: 0 of linear layers, whose features lie in the last dim.
    """

    layers: tuple[Layer, ...]
    sizes: tuple[int, ...]
    spatial: int

    @property
    def dim(self) -> int:
        """Of the features in a tensor."""
        return 1 if self.spatial else -1


def find_stacks(context: Context, conv: bool) -> tuple[Stack, ...]:
    """The stacks of a network, in graph order.

    Between two linear layers may stand whatever acts feature by feature: activations, dropout, batch norm over (N, C).
    Between two convolutions also pools. Layers with several groups, with a frozen weight or with one that something
    else reads as well belong to none.

    Args:
        context: The network.
        conv: Whether stacks of convolutions are looked for as well.

    Raises:
        ModelError: There is none in which a layer may change its inputs.
    """
    finder = _Finder(context, _LINEAR | (_CONVOLUTIONS if conv else frozenset()))
    chains = [chain for chain in finder.chains() if len(chain) > 1]
    found = tuple(finder.stack(chain) for chain in chains)
    found = tuple(stack for stack in found if any(layer.consumes for layer in stack.layers))
    if not found:
        what = "two linear layers or convolutions" if conv else "two linear layers"
        hints = [] if conv else ["--conv takes stacks of convolutions as well"]
        raise ModelError(
            f"no stack to short-circuit: nowhere in the model do {what} follow each other with only activations, "
            "dropout or batch norm between them",
            " or ".join([*hints, "`compress inspect` lists the layers; see --only and --exclude"]),
        )
    return found


class _Finder:
    """Walks the graph once: which layer's features a node holds, each still by itself."""

    def __init__(self, context: Context, kinds: frozenset[str]) -> None:
        self.context, self.kinds = context, kinds
        self.source: dict[fx.Node, fx.Node | None] = {}
        self.layers: list[fx.Node] = []
        self.uses: dict[int, int] = {}
        graph = context.module.graph
        for node in graph.nodes:
            if node.op == "get_attr":
                key = id(self._parameter(node))
                self.uses[key] = self.uses.get(key, 0) + len(node.users)
        for node in graph.nodes:
            if node.op == "call_function":
                self.source[node] = self._source(node)

    def chains(self) -> list[list[fx.Node]]:
        """Layers that follow each other; where several read one, each begins a chain."""
        before = {layer: self.source.get(_args(layer)["input"]) for layer in self.layers}
        followers: dict[fx.Node, list[fx.Node]] = {}
        for layer, source in before.items():
            if source is not None and op_name(source.target) == op_name(layer.target):
                followers.setdefault(source, []).append(layer)
        joined = {each[0] for each in followers.values() if len(each) == 1}
        chains = []
        for layer in self.layers:
            if layer not in joined:
                chain = [layer]
                while len(followers.get(chain[-1], ())) == 1:
                    chain += followers[chain[-1]]
                chains.append(chain)
        return chains

    def stack(self, chain: list[fx.Node]) -> Stack:
        layers, sizes = [], []
        for node in chain:
            args = _args(node)
            weight, bias = str(args["weight"].target), args.get("bias")
            name = weight.rpartition(".")[0] or weight
            consumes = matched([name], self.context.only, self.context.exclude)
            layers.append(Layer(node.name, weight, bias and str(bias.target), args["input"].name, consumes))
            sizes.append(int(self.context.weight(weight).shape[1]))
        return Stack(tuple(layers), tuple(sizes), self.context.weight(layers[0].weight).dim() - 2)

    def _source(self, node: fx.Node) -> fx.Node | None:
        """The layer whose features a node holds."""
        op = op_name(node.target)
        if op in self.kinds:
            if self._fits(node, op):
                self.layers.append(node)
                return node
            return None
        if not self._passes(node, op):
            return None
        data = [each for each in node.all_input_nodes if each.op != "get_attr"]
        found = {self.source.get(each) for each in data}
        return found.pop() if len(found) == 1 else None

    def _passes(self, node: fx.Node, op: str) -> bool:
        layers = {self.source.get(each) for each in node.all_input_nodes if each.op != "get_attr"}
        if len(layers) != 1 or None in layers:
            return False
        (layer,) = layers
        spatial = op_name(layer.target) in _CONVOLUTIONS  # type: ignore[union-attr]
        plain = op.removesuffix("_")
        if plain == "aten::batch_norm":
            return spatial or node.meta["val"].dim() == 2
        if plain in _PASSED or (spatial and plain in _POOLS):
            return True
        same = [each.meta["val"].shape for each in node.all_input_nodes if each.op != "get_attr"]
        return _pointwise(node.target, plain) and all(shape == node.meta["val"].shape for shape in same)

    def _fits(self, node: fx.Node, op: str) -> bool:
        args = _args(node)
        weight, bias = args["weight"], args.get("bias")
        if weight.op != "get_attr" or (bias is not None and bias.op != "get_attr") or args.get("groups", 1) != 1:
            return False
        parameter = self._parameter(weight)
        trained = isinstance(parameter, torch.nn.Parameter) and parameter.requires_grad
        return trained and self.uses[id(parameter)] == 1 and (op not in _CONVOLUTIONS or _batched(node))

    def _parameter(self, node: fx.Node) -> Any:
        found: Any = self.context.module
        for part in str(node.target).split("."):
            found = getattr(found, part)
        return found


def _args(node: fx.Node) -> dict[str, Any]:
    return bind(node.target, node.args, dict(node.kwargs))


def _batched(node: fx.Node) -> bool:
    args = _args(node)
    return bool(args["input"].meta["val"].dim() == args["weight"].meta["val"].dim())


def _pointwise(target: Any, plain: str) -> bool:
    space, _, name = plain.partition("::")
    packet = getattr(getattr(torch.ops, space, None), name, None)
    overloads = [target, *(getattr(packet, each) for each in packet.overloads())] if packet is not None else [target]
    return any(torch.Tag.pointwise in getattr(each, "tags", ()) for each in overloads)
