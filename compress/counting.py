"""The size and cost of a model: parameters, bytes, and multiply-adds.

One MAC is one multiplication with its addition, as in a convolution, a linear layer or attention.
Activations, normalisation, pooling and element-wise arithmetic count nothing, as is usual.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from compress.errors import InputError, ModelError

aten = torch.ops.aten


@dataclass(frozen=True)
class MacCount:
    """Multiply-adds for one sample: in all, and by module (or by node, where no weight is involved)."""

    total: int
    by_module: dict[str, int]


def count_parameters(module: nn.Module) -> int:
    """The number of parameters; tied ones count once."""
    return sum(each.numel() for each in module.parameters())


def count_nonzero(module: nn.Module) -> int:
    """The number of floating-point parameters that are not zero; tied ones count once."""
    floats = (each for each in module.parameters() if each.is_floating_point() or each.is_complex())
    return sum(int(torch.count_nonzero(each.detach())) for each in floats)


def tensor_bytes(module: nn.Module) -> int:
    """Bytes of all parameters and buffers, each distinct tensor once."""
    distinct = {id(each): each for each in (*module.parameters(), *module.buffers())}
    return sum(each.numel() * each.element_size() for each in distinct.values())


def count_macs(module: nn.Module, inputs: tuple[Tensor, ...]) -> MacCount:
    """The multiply-adds of one forward pass, for one sample; shapes only, nothing is computed.

    The counts are half of those of ``torch.utils.flop_counter``, whose gaps (LSTM, matrix times vector, dot
    product, bilinear layers, attention on a CPU) are filled.

    Args:
        module: Any module. For an ``fx.GraphModule`` each count goes to the module that owns the weight.
        inputs: A batch of any size; it is divided out.

    Raises:
        ModelError: The module cannot run on shapes alone.
    """
    if not inputs or not inputs[0].dim() or not inputs[0].shape[0]:
        raise InputError("counting multiply-adds needs a batch of at least one sample")
    training = {each: each.training for each in module.modules()}
    for each in training:
        each.training = False  # not eval(), which exported programs refuse
    try:
        with _shapes_only() as mode, FlopCounterMode(display=False, custom_mapping=_GAPS) as counter:
            fakes = [mode.from_tensor(each.detach()) for each in inputs]
            if isinstance(module, fx.GraphModule):
                counts = _Attributed(module, counter).counts_of(*fakes)
            else:
                module(*fakes)
                counts = _by_module(counter)
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ModelError(f"multiply-adds cannot be counted: {reason}", "check the input shape") from error
    finally:
        for each, mode_before in training.items():
            each.training = mode_before
    batch = inputs[0].shape[0]
    by_module = {name: round(flops / 2 / batch) for name, flops in counts.items() if flops}
    return MacCount(round(counter.get_total_flops() / 2 / batch), by_module)


class _Attributed(fx.Interpreter):
    """Runs a graph and keeps, for each node, how far the counter went on."""

    def __init__(self, module: fx.GraphModule, counter: FlopCounterMode) -> None:
        super().__init__(module)
        self.counter = counter
        self.counts: dict[str, int] = defaultdict(int)

    def counts_of(self, *inputs: Any) -> dict[str, int]:
        self.run(*inputs, enable_io_processing=False)
        return dict(self.counts)

    def run_node(self, n: fx.Node) -> Any:
        before = self.counter.get_total_flops()
        result = super().run_node(n)
        if added := self.counter.get_total_flops() - before:
            self.counts[_owner(n)] += added
        return result


def _owner(node: fx.Node) -> str:
    """The module whose parameter a node uses ("layer1.0.conv1" for its weight), else the node's own name."""
    for each in node.all_input_nodes:
        if each.op == "get_attr":
            return str(each.target).rpartition(".")[0] or str(each.target)
    return node.name


def _by_module(counter: FlopCounterMode) -> dict[str, int]:
    """What each module itself does, without the modules inside it; names without the outermost class."""
    inclusive = {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items() if name != "Global"}
    own = dict(inclusive)
    for name, flops in inclusive.items():
        parent = name.rpartition(".")[0]
        if parent in own:
            own[parent] -= flops
    return {name.partition(".")[2] or name: flops for name, flops in own.items()}


@contextmanager
def _shapes_only() -> Iterator[FakeTensorMode]:
    """Tensors without values; fused CPU paths that a counter cannot see into are off."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with torch.no_grad(), torch.backends.mkldnn.flags(enabled=False), mode:
                yield mode
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _mv(matrix: Any, vector: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return 2 * prod(matrix)


def _addmv(added: Any, matrix: Any, vector: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return 2 * prod(matrix)


def _dot(first: Any, second: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return 2 * prod(first)


def _trilinear(first: Any, weight: Any, second: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    # y[b, o] = sum over j of (sum over i of x1[b, i] w[o, i, j]) x2[b, j]
    outputs, left, right = weight
    samples = prod(first) // left
    return 2 * samples * outputs * (left * right + right)


def _attention(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    # (..., queries, features) with (..., keys, features), then with (..., keys, values)
    return 2 * prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


_GAPS = {
    aten.mv: _mv,
    aten.addmv: _addmv,
    aten.dot: _dot,
    aten._trilinear: _trilinear,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,  # torch 2.14 and before do not count it
}
