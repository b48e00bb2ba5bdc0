"""The oracle: in float64 a sliced network equals the original with everything removed masked out.

The original graph is run node by node. Before an operation sums over elements (a contraction, a mean, the statistics
of a normalisation) the removed elements are set to zero and no longer counted; every other operation runs as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from compress.graph.double import Wide
from compress.graph.groups import Coupling
from compress.graph.labels import Value
from compress.graph.propagate import bind, op_name
from compress.graph.rules import Kept
from compress.graph.rules.recurrent import CELLS, RECURRENT
from compress.graph.statistics import SPREADS

TOLERANCE = 1e-9

SUMS = {
    f"aten::{name}"
    for name in (
        "linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "einsum", "dot", "conv1d", "conv2d", "conv3d",
        "convolution", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "sum", "linalg_vector_norm", "norm",
        "scaled_dot_product_attention", "tensordot", "bilinear", "cdist", "mv", "vdot", "inner", "cumsum",
        "cosine_similarity", "_weight_norm", "_grouped_mm",
    )
}  # fmt: skip
SUMS |= {*RECURRENT, *CELLS}


@dataclass(frozen=True)
class Verification:
    """How far a sliced network is from its masked original.

    Attributes:
        error: Largest absolute difference of the outputs over their largest absolute value (float64).
        tolerance: What the error must not exceed.
        problem: Why the comparison could not be made, "" if it was.
    """

    error: float
    tolerance: float
    problem: str = ""

    @property
    def passed(self) -> bool:
        return not self.problem and self.error <= self.tolerance


class _Masked(Wide):
    """Runs the original graph with removed elements masked where they would be summed."""

    def __init__(self, coupling: Coupling, alive: NDArray[np.bool_]) -> None:
        super().__init__(coupling.program.module)
        self.kept = Kept(alive)
        originals = {n.name: n for n in coupling.program.module.graph.nodes}
        self.labels = {n: coupling.flow.values.get(originals[n.name]) for n in self.graph.nodes}

    def run_node(self, n: fx.Node) -> Any:
        if n.op != "call_function":
            return super().run_node(n)
        op = op_name(n.target)
        if op not in SUMS and op not in STATISTICS:
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        masks = fx.node.map_arg((n.args, dict(n.kwargs)), self._mask)
        if op in STATISTICS:
            named, named_masks = bind(n.target, args, kwargs), bind(n.target, *masks)
            return STATISTICS[op](named, named_masks)
        args, kwargs = _zeroed((args, kwargs), masks)
        return self.call_function(n.target, args, kwargs)

    def _mask(self, node: fx.Node) -> Tensor | None:
        value = self.labels[node]
        mask = self.kept.element_mask(value) if isinstance(value, Value) else None
        return None if mask is None else torch.as_tensor(np.ascontiguousarray(mask))


def _zeroed(values: Any, masks: Any) -> Any:
    if isinstance(values, (list, tuple)):
        return type(values)(_zeroed(v, m) for v, m in zip(values, masks, strict=True))
    if isinstance(values, dict):
        return {k: _zeroed(v, masks[k]) for k, v in values.items()}
    return _zero(values, masks if isinstance(masks, Tensor) else None)


def _zero(x: Any, mask: Tensor | None) -> Any:
    if mask is None or not isinstance(x, Tensor):
        return x
    return torch.where(mask, x, torch.zeros((), dtype=x.dtype))


def _count(x: Tensor, mask: Tensor | None, dims: list[int]) -> Tensor:
    ones = torch.ones((), dtype=x.dtype) if mask is None else mask.to(x.dtype)
    return ones.expand(x.shape).sum(dims, keepdim=True).clamp(min=1)


def _mean(named: dict[str, Any], masks: dict[str, Any]) -> Tensor:
    x, mask = named["self"], masks["self"]
    dims = named.get("dim")
    dims = list(range(x.dim())) if dims is None or dims == [] else ([dims] if isinstance(dims, int) else list(dims))
    total = _zero(x, mask).sum(dims, keepdim=True) / _count(x, mask, dims)
    if named.get("keepdim"):
        return total
    return total.reshape([n for d, n in enumerate(x.shape) if d not in {k % x.dim() for k in dims}])


def _normalised(x: Tensor, mask: Tensor | None, dims: list[int], eps: float, center: bool) -> Tensor:
    count = _count(x, mask, dims)
    mean = _zero(x, mask).sum(dims, keepdim=True) / count if center else torch.zeros((), dtype=x.dtype)
    centred = _zero(x - mean, mask)
    variance = centred.square().sum(dims, keepdim=True) / count
    return (x - mean) / torch.sqrt(variance + eps)


def _affine(x: Tensor, named: dict[str, Any], shape: Sequence[int]) -> Tensor:
    if named.get("weight") is not None:
        x = x * named["weight"].reshape(shape)
    return x if named.get("bias") is None else x + named["bias"].reshape(shape)


def _layer_norm(named: dict[str, Any], masks: dict[str, Any]) -> Tensor:
    x, shape = named["input"], named["normalized_shape"]
    dims = list(range(-len(shape), 0))
    return _affine(_normalised(x, masks["input"], dims, named.get("eps", 1e-5), True), named, shape)


def _rms_norm(named: dict[str, Any], masks: dict[str, Any]) -> Tensor:
    x, shape = named["input"], named["normalized_shape"]
    eps = named.get("eps")
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    return _affine(_normalised(x, masks["input"], list(range(-len(shape), 0)), eps, False), named, shape)


def _group_norm(named: dict[str, Any], masks: dict[str, Any]) -> Tensor:
    x, groups, mask = named["input"], named["num_groups"], masks["input"]
    split = (x.shape[0], groups, -1)
    flat_mask = None if mask is None else mask.expand(x.shape).reshape(split)
    out = _normalised(x.reshape(split), flat_mask, [2], named.get("eps", 1e-5), True).reshape(x.shape)
    return _affine(out, named, (1, -1, *(1,) * (x.dim() - 2)))


def _batch_norm(named: dict[str, Any], masks: dict[str, Any]) -> Tensor:
    """With statistics of the batch (as weight standardisation uses it): over what is kept."""
    x, mask = named["input"], masks["input"]
    if not named["training"]:
        running = (named["running_mean"], named["running_var"])
        return torch.nn.functional.batch_norm(x, *running, named["weight"], named["bias"], eps=named["eps"])
    dims = [d for d in range(x.dim()) if d != 1]
    full = None if mask is None else mask.expand(x.shape)
    out = _normalised(x, full, dims, named["eps"], True)
    return _affine(out, named, (1, -1, *(1,) * (x.dim() - 2)))


STATISTICS: dict[str, Callable[[dict[str, Any], dict[str, Any]], Any]] = {
    **SPREADS,
    "aten::mean": _mean,
    "aten::layer_norm": _layer_norm,
    "aten::rms_norm": _rms_norm,
    "aten::group_norm": _group_norm,
    "aten::batch_norm": _batch_norm,
}


def over_kept(op: str, named: dict[str, Any], masks: dict[str, Any]) -> Tensor:
    """A normalisation or mean with its statistics over what is kept.

    Args:
        op: Such as ``aten::group_norm``.
        named: Its arguments by schema name.
        masks: By argument the elements that stay, broadcastable; None where all do.
    """
    return STATISTICS[op](named, masks)


def run_masked(coupling: Coupling, alive: NDArray[np.bool_], inputs: Sequence[Tensor]) -> list[Tensor]:
    """Outputs of the masked original in float64; of outputs that shrink only what stays."""
    outputs = _Masked(coupling, alive).outputs(inputs)
    kept = Kept(alive)
    labels = _output_values(coupling)
    result = []
    for tensor, value in zip(outputs, labels, strict=True):
        mask = kept.element_mask(value)
        if mask is not None:
            shape = kept.shape(value)
            tensor = tensor[torch.as_tensor(np.ascontiguousarray(mask)).expand(tensor.shape)].reshape(shape)
        result.append(tensor)
    return result


def _output_values(coupling: Coupling) -> list[Value]:
    node = next(n for n in coupling.program.module.graph.nodes if n.op == "output")
    found: list[Any] = []
    fx.node.map_arg(node.args, lambda source: found.append(coupling.flow.values[source]))
    flat = [v for each in found for v in (each if isinstance(each, tuple) else (each,))]
    return [v for v in flat if isinstance(v, Value)]


def verify(
    coupling: Coupling,
    alive: NDArray[np.bool_],
    sliced: fx.GraphModule,
    inputs: Sequence[Tensor] | None = None,
    *,
    tolerance: float = TOLERANCE,
) -> Verification:
    """Compare a sliced network with its masked original in float64.

    Args:
        coupling: The analysed original.
        alive: By label, what stays.
        sliced: The network to judge.
        inputs: Inputs to run; the example inputs of the trace when absent.
        tolerance: Largest relative error that passes.
    """
    inputs = coupling.program.inputs if inputs is None else inputs
    expected = run_masked(coupling, alive, inputs)
    try:
        got = Wide(sliced).outputs(inputs)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        return Verification(float("inf"), tolerance, f"the sliced network does not run: {str(error).splitlines()[0]}")
    return compare(expected, got, tolerance)


def compare(expected: Sequence[Tensor], got: Sequence[Tensor], tolerance: float) -> Verification:
    """Largest relative difference over all outputs."""
    worst = 0.0
    for a, b in zip(expected, got, strict=True):
        if a.shape != b.shape:
            return Verification(
                float("inf"), tolerance, f"an output has shape {list(b.shape)} instead of {list(a.shape)}"
            )
        if not a.is_floating_point():
            worst = max(worst, float((a != b).any()))
            continue
        scale = float(a.abs().max()) if a.numel() else 1.0
        error = float((a - b).abs().max()) if a.numel() else 0.0
        worst = max(worst, error / scale if scale > 0 else error)
        if not np.isfinite(error) or not np.isfinite(scale):
            return Verification(float("inf"), tolerance, "an output is not finite")
    return Verification(worst, tolerance)
