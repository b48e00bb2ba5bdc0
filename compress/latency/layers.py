"""What a network spends its time in: its sums of products, with the shapes that they have once units are gone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from compress.graph import Coupling
from compress.graph.calls import bind
from compress.graph.labels import Value
from compress.graph.rules import Call, Kept
from compress.graph.rules.recurrent import CELLS, RECURRENT

Shape = tuple[int, ...]
_CONVOLUTIONS = ("aten::conv1d", "aten::conv2d", "aten::conv3d")
_TRANSPOSED = ("aten::conv_transpose1d", "aten::conv_transpose2d", "aten::conv_transpose3d")
_FACTORS = {
    "aten::matmul": ("self", "other"),
    "aten::mm": ("self", "mat2"),
    "aten::bmm": ("self", "mat2"),
    "aten::addmm": ("mat1", "mat2"),
    "aten::baddbmm": ("batch1", "batch2"),
}


@dataclass(frozen=True)
class Layer:
    """One layer as a timer needs it; equal layers take equal time.

    Attributes:
        op: ``conv``, ``conv_transpose``, ``linear``, ``matmul``, ``einsum``, ``attention``, ``lstm``, ``gru``,
            ``rnn_tanh`` or ``rnn_relu``.
        shapes: Of what it reads, as PyTorch has it: input and weight; the factors of a product; query, key and
            value; of a recurrent layer the input (time, samples, features) and (directions, units).
        attributes: What else matters, by name.
    """

    op: str
    shapes: tuple[Shape, ...]
    attributes: tuple[tuple[str, Any], ...] = ()

    def __getitem__(self, name: str) -> Any:
        return dict(self.attributes)[name]

    @property
    def empty(self) -> bool:
        """Whether nothing of it is left."""
        return any(0 in shape for shape in self.shapes)


class Sizes:
    """The layers of a network at a batch size of one's own.

    Args:
        coupling: The analysed network.
        inputs: Examples with that batch size, in the order of the program's inputs; the network is run on them once.
    """

    def __init__(self, coupling: Coupling, inputs: Sequence[Tensor]) -> None:
        self._coupling = coupling
        run = _Recorded(coupling.program.module)
        with torch.no_grad():
            run.run(*inputs, enable_io_processing=False)
        self._shapes = run.shapes

    def layers(self, alive: NDArray[np.bool_]) -> list[Layer]:
        """The layers that do something, in graph order; ``alive`` says by label what stays.

        Sums of products that no timer knows (bilinear layers, packed sequences) are left out.
        """
        found = (layer for cut in self._calls(alive) for layer in _RULES.get(cut.call.op, _none)(cut))
        return [layer for layer in found if not layer.empty]

    def elements(self, alive: NDArray[np.bool_]) -> int:
        """Elements of the results of all other calls: what activations, norms, sums and pools work on."""
        return sum(math.prod(cut.result()) for cut in self._calls(alive) if cut.call.op not in _RULES)

    def _calls(self, alive: NDArray[np.bool_]) -> Iterator[_Cut]:
        kept = Kept(alive)
        for node, call in self._coupling.flow.calls.items():
            value = self._coupling.flow.values[node]
            yield _Cut(call, node, value if isinstance(value, Value) else value[0], self._shapes, kept)


class _Recorded(fx.Interpreter):
    """Remembers the shape of every node's (first) result."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.shapes: dict[fx.Node, Shape] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        first = result[0] if isinstance(result, (list, tuple)) and result else result
        if isinstance(first, Tensor):
            self.shapes[n] = tuple(first.shape)
        return result


class _Cut:
    """One call after the cut, at the batch that was asked for."""

    def __init__(self, call: Call, node: fx.Node, value: Value, shapes: dict[fx.Node, Shape], kept: Kept) -> None:
        self.call, self._node, self._value = call, node, value
        self._shapes, self._kept = shapes, kept
        self.nodes: dict[str, Any] = bind(node.target, node.args, dict(node.kwargs))

    def __getitem__(self, name: str) -> Shape:
        """The shape of an argument."""
        return self.shape(self.call[name], self.nodes[name])

    def all(self, name: str) -> tuple[Shape, ...]:
        """The shapes of a list of arguments."""
        return tuple(self.shape(*each) for each in zip(self.call[name], self.nodes[name], strict=True))

    def result(self) -> Shape:
        return self.shape(self._value, self._node)

    def shape(self, value: Value, node: fx.Node) -> Shape:
        """What stays of each dim; dims with the batch in them are as large as it is here, not as in the trace."""
        sizes = zip(self._kept.shape(value), self._shapes[node], value.shape, strict=True)
        return tuple(kept * here // traced if traced else 0 for kept, here, traced in sizes)


def _none(cut: _Cut) -> list[Layer]:
    return []


def _convolution(cut: _Cut) -> list[Layer]:
    x, weight, out = cut["input"], cut["weight"], cut.result()
    spatial = len(weight) - 2
    if len(x) < len(weight):  # one sample, without a dim for it
        x, out = (1, *x), (1, *out)
    transposed = cut.call.op in _TRANSPOSED or bool(cut.call.get("transposed", False))
    strides, dilations = (_each(cut.call.get(name, 1), spatial) for name in ("stride", "dilation"))
    groups = max((out if transposed else x)[1] // max(weight[1], 1), 1)
    attributes = [("strides", strides), ("dilations", dilations), ("groups", groups)]
    padding = cut.call.get("padding", 0)
    if isinstance(padding, str):
        whole = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilations, weight[2:], strict=True)]
        pads = (*(n // 2 for n in whole), *(n - n // 2 for n in whole))
    else:
        pads = _each(padding, spatial) * 2
    attributes.append(("pads", pads))
    if transposed:
        attributes.append(("output_padding", _each(cut.call.get("output_padding", 0), spatial)))
    return [Layer("conv_transpose" if transposed else "conv", (x, weight), tuple(attributes))]


def _each(value: Any, count: int) -> tuple[int, ...]:
    """One number for each spatial dim."""
    numbers = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return tuple(int(n) for n in (numbers * count if len(numbers) == 1 else numbers))


def _linear(cut: _Cut) -> list[Layer]:
    return [Layer("linear", (cut["input"], cut["weight"]))]


def _product(cut: _Cut) -> list[Layer]:
    first, second = _FACTORS[cut.call.op]
    constant = cut.nodes[second].op == "get_attr"
    return [Layer("matmul", (cut[first], cut[second]), (("constant", constant),))]


def _einsum(cut: _Cut) -> list[Layer]:
    return [Layer("einsum", cut.all("tensors"), (("equation", cut.call["equation"]),))]


def _attention(cut: _Cut) -> list[Layer]:
    query, key, value = (cut[name] for name in ("query", "key", "value"))
    lead = query[:-2]  # several heads may share one key
    return [Layer("attention", (query, (*lead, *key[-2:]), (*lead, *value[-2:])))]


def _recurrent(cut: _Cut) -> list[Layer]:
    if "batch_sizes" in cut.call.args or len(cut["input"]) != 3:
        return []
    x, params = cut["input"], cut.all("params")
    time, samples = (x[1], x[0]) if cut.call["batch_first"] else x[:2]
    directions = 2 if cut.call["bidirectional"] else 1
    each = len(params) // (int(cut.call["num_layers"]) * directions)
    layers = []
    for first in range(0, len(params), each * directions):
        features, units = params[first][1], params[first + 1][1]
        shapes = ((time, samples, features), (directions, units))
        layers.append(Layer(cut.call.op.removeprefix("aten::"), shapes))
    return layers


def _cell(cut: _Cut) -> list[Layer]:
    state, node = cut.call["hx"], cut.nodes["hx"]
    if not isinstance(state, Value):
        state, node = state[0], node[0]
    pairs = ((cut["input"], cut["w_ih"]), (cut.shape(state, node), cut["w_hh"]))
    return [Layer("linear", pair) for pair in pairs]


_RULES: dict[str, Callable[[_Cut], list[Layer]]] = {
    **dict.fromkeys((*_CONVOLUTIONS, *_TRANSPOSED, "aten::convolution"), _convolution),
    **dict.fromkeys(_FACTORS, _product),
    **dict.fromkeys(RECURRENT, _recurrent),
    **dict.fromkeys(CELLS, _cell),
    "aten::linear": _linear,
    "aten::einsum": _einsum,
    "aten::scaled_dot_product_attention": _attention,
}
