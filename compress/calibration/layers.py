"""The linear layers and convolutions of a graph, and whether their weights may be solved for."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import Tensor, fx

from compress.calibration.normal import Layer
from compress.graph import attribute
from compress.graph.propagate import bind, op_name

CONVOLUTIONS = ("aten::conv1d", "aten::conv2d", "aten::conv3d")


def op_of(node: Any) -> str:
    """The operation of a call; "" for any other node."""
    return op_name(node.target) if isinstance(node, fx.Node) and node.op == "call_function" else ""


def is_layer(node: fx.Node) -> bool:
    return op_of(node) in ("aten::linear", *CONVOLUTIONS)


class Layers:
    """The layers of one graph.

    Args:
        module: The graph.
        frozen: Names of parameters that are not to be changed.
    """

    def __init__(self, module: fx.GraphModule, frozen: Collection[str] = ()) -> None:
        self.module, self.frozen = module, frozen
        self.uses: dict[int, int] = {}  # by identity: tied weights have several names
        for node in module.graph.nodes:
            if node.op == "get_attr":
                key = id(self.tensor(node))
                self.uses[key] = self.uses.get(key, 0) + len(node.users)

    def tensor(self, node: Any) -> Any:
        return attribute(self.module, str(node.target))

    def tensor_named(self, name: str) -> Tensor:
        """A parameter or buffer, detached."""
        found: Tensor = attribute(self.module, name)
        return found.detach()

    def args(self, node: fx.Node) -> dict[str, Any]:
        """The arguments of a layer by their schema names."""
        return bind(node.target, node.args, node.kwargs)

    def name(self, node: fx.Node) -> str:
        """The name of a layer's weight, or of its node where the weight is computed."""
        weight = self.args(node)["weight"]
        return str(weight.target) if getattr(weight, "op", "") == "get_attr" else node.name

    def obstacle(self, node: fx.Node) -> str:
        """Why the weight of a layer cannot be solved for; "" if it can."""
        args = self.args(node)
        weight, bias = args["weight"], args.get("bias")
        if weight.op != "get_attr":
            return "its weight is computed"
        if str(weight.target) in self.frozen:
            return "its weight is frozen"
        if self.uses[id(self.tensor(weight))] > 1:
            return "its weight is shared"
        if isinstance(args.get("padding"), str):
            return "padding by name"
        if bias is not None and bias.op != "get_attr":
            return "its bias is computed"
        return "its bias is shared" if bias is not None and self.uses[id(self.tensor(bias))] > 1 else ""

    def readable(self, node: fx.Node) -> bool:
        """Whether rows of a regression can be read from a layer: a parameter as weight, padding in numbers."""
        args = self.args(node)
        return args["weight"].op == "get_attr" and not isinstance(args.get("padding"), str)

    def layer(self, node: fx.Node) -> Layer:
        """How rows of a regression are read from a readable layer."""
        args = self.args(node)
        weight: Tensor = self.tensor(args["weight"])
        if op_of(node) == "aten::linear":
            return Layer(weight)
        spatial = weight.dim() - 2

        def sizes(key: str, default: int) -> tuple[int, ...]:
            value = args.get(key, default)
            value = [value] if isinstance(value, int) else list(value)
            return tuple(value * spatial if len(value) == 1 else value)

        return Layer(weight, args.get("groups", 1), sizes("stride", 1), sizes("padding", 0), sizes("dilation", 1))

    def shift(self, node: fx.Node) -> tuple[str, int] | None:
        """What moves a layer's output by a constant: a tensor's name, and the sign with which it does.

        Its bias, or for a layer without one the running mean of the batch norm behind it, which is subtracted.
        """
        bias = self.args(node).get("bias")
        if bias is not None:
            return str(bias.target), 1
        users = list(node.users)
        if len(users) != 1 or op_of(users[0]) != "aten::batch_norm" or users[0].args[0] is not node:
            return None
        return self.mean_of(users[0])

    def mean_of(self, norm: fx.Node) -> tuple[str, int] | None:
        """The running mean of a batch norm that uses it, and uses it alone."""
        mean: Any = norm.args[3]
        if mean is None or norm.args[5] or self.uses[id(self.tensor(mean))] > 1:
            return None
        return str(mean.target), -1
