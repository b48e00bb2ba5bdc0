"""One graph for any batch size, from two recordings that differ only in the batch."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from compress.graph.record import Recording


def batch_size(inputs: Sequence[Tensor]) -> int | None:
    """The batch of example inputs: the first dim, on which all inputs that share it depend; None if there is none."""
    sizes = [x.shape[0] for x in inputs if x.dim()]
    return sizes[0] if sizes and sizes[0] > 1 else None


def with_batch(inputs: Sequence[Tensor], size: int) -> list[Tensor]:
    """Inputs without numbers whose batch has another size."""
    before = batch_size(inputs)
    shapes = [(size, *x.shape[1:]) if x.dim() and x.shape[0] == before else x.shape for x in inputs]
    return [torch.empty(s, dtype=x.dtype, device="meta") for s, x in zip(shapes, inputs, strict=True)]


def generalise(small: Recording, large: Recording, sizes: tuple[int, int], inputs: Sequence[Tensor]) -> bool:
    """Replace in ``small`` every integer that grows with the batch by a product with the batch; False if that fails.

    Args:
        small, large: Recordings of one module with the batches ``sizes``. ``small`` is changed only on success.
        inputs: Example inputs of ``small``.
    """
    if not _same_constants(small.constants, large.constants):
        return False
    pairs = list(zip(small.graph.nodes, large.graph.nodes, strict=False))
    if len(small.graph.nodes) != len(large.graph.nodes) or any(
        a.op != b.op or (a.op != "placeholder" and a.target != b.target) for a, b in pairs
    ):
        return False
    names = {b: a for a, b in pairs}
    factors: dict[fx.Node, Any] = {}
    for a, b in pairs:
        made = _merged((a.args, dict(a.kwargs)), (b.args, dict(b.kwargs)), names, sizes)
        if made is None:
            return False
        if made[1]:
            factors[a] = made[0]
    _rewrite(small.graph, factors, sizes[0], inputs)
    return True


class _Multiple:
    """Stands for ``factor`` times the batch."""

    def __init__(self, factor: int) -> None:
        self.factor = factor


def _same_constants(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(
        a[n].shape == b[n].shape and (a[n].device.type == "meta" or torch.equal(a[n], b[n])) for n in a
    )


def _merged(a: Any, b: Any, names: dict[fx.Node, fx.Node], sizes: tuple[int, int]) -> tuple[Any, bool] | None:
    """The arguments with multiples of the batch marked, and whether there are any; None where the calls differ."""
    if isinstance(a, (list, tuple)):
        if not isinstance(b, (list, tuple)) or len(a) != len(b):
            return None
        parts = [_merged(x, y, names, sizes) for x, y in zip(a, b, strict=True)]
        if any(part is None for part in parts):
            return None
        found = [part for part in parts if part is not None]
        return type(a)([part[0] for part in found]), any(part[1] for part in found)
    if isinstance(a, dict):
        inner = _merged(list(a.values()), list(b.values()), names, sizes) if a.keys() == b.keys() else None
        return None if inner is None else (dict(zip(a, inner[0], strict=True)), inner[1])
    if isinstance(a, fx.Node):
        return (a, False) if isinstance(b, fx.Node) and names[b] is a else None
    if type(a) is int and type(b) is int and a != b:
        whole = a % sizes[0] == 0 and a // sizes[0] * sizes[1] == b
        return (_Multiple(a // sizes[0]), True) if whole else None
    return (a, False) if type(a) is type(b) and (a == b or (a != a and b != b)) else None


def _rewrite(graph: fx.Graph, factors: dict[fx.Node, Any], size: int, inputs: Sequence[Tensor]) -> None:
    if not factors:
        return
    placeholders = [n for n in graph.nodes if n.op == "placeholder"]
    first = next(p for p, x in zip(placeholders, inputs, strict=True) if x.dim())
    with graph.inserting_after(placeholders[-1]):
        batch = graph.call_function(torch.ops.aten.sym_size.int, (first, 0))
    batch.meta["val"] = size
    made = {1: batch}

    def number(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return type(value)(number(v) for v in value)
        if isinstance(value, dict):
            return {k: number(v) for k, v in value.items()}
        if not isinstance(value, _Multiple):
            return value
        if value.factor not in made:
            with graph.inserting_after(batch):
                product = graph.call_function(operator.mul, (batch, value.factor))
            product.meta["val"] = size * value.factor
            made[value.factor] = product
        return made[value.factor]

    for node, (args, kwargs) in factors.items():
        node.args, node.kwargs = number(args), number(kwargs)
