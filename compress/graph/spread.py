"""Where marks on the elements of an operation's inputs may show in its results.

One function per kind of operation, in terms of marks alone: a result is marked unless it is certain that no marked
element has an influence on it. With marks on everything that varies with the network's input, what is unmarked is a
proved constant; with marks on everything that is to be removed, what is marked would miss it. An operation without a
function here, and one that is random, lets every mark show everywhere.

Functions are sums of products of marks with no negative term, so that they can be differentiated to find the marked
inputs behind a marked result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from compress.graph.marks import Marked, Marking, Result, everywhere, random
from compress.graph.propagate import rule_of
from compress.graph.rules.pointwise import pointwise


def spread(call: Marking) -> Result:
    """Marks of the results: a tensor, or a sequence of them."""
    marked = [m for m in call.tensors() if m.on is not None]
    if random(call):
        return everywhere(call, [torch.ones(()), *(m.marks for m in marked)])
    rule = RULES.get(call.op) or RULES.get(call.op.removesuffix("_"))
    numbers = any(m.shape == () and m.value is None for m in marked)  # sizes and factors that data decides
    if rule is None and rule_of(call.op, call.target) is pointwise and len(call.shapes) == 1:
        rule = _pointwise
    found = None if rule is None or (numbers and rule is not _pointwise) else _tried(rule, call)
    return everywhere(call, [m.marks for m in marked]) if found is None else found


def _tried(rule: Rule, call: Marking) -> Result | None:
    """None where the operation, in this form, does not take marks for its numbers."""
    try:
        return rule(call)
    except (RuntimeError, TypeError, IndexError, KeyError):
        return None


Rule = Callable[[Marking], Result | None]
RULES: dict[str, Rule] = {}


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def add(function: Rule) -> Rule:
        RULES.update({f"aten::{name}": function for name in names})
        return function

    return add


def _pointwise(call: Marking) -> Tensor:
    (shape,) = call.shapes
    total = torch.zeros(shape)
    for each in call.tensors():
        if each.on is not None:
            total = total + each.on.expand(shape)
    return total


@_rule("prelu")
def _prelu(call: Marking) -> Tensor:
    x, weight = call["self"], call["weight"]
    over = weight.marks if weight.marks.numel() == 1 else weight.marks.reshape(-1, *(1,) * (len(x.shape) - 2))
    return x.marks + over.expand(x.shape)


@_rule("mul", "multiply")
def _product(call: Marking) -> Tensor | None:
    """Zero times anything is zero."""
    a, b = call["self"], call["other"]
    if not isinstance(a, Marked) or not isinstance(b, Marked):
        return _pointwise(call)
    return a.marks * a.live * b.live + a.live * b.marks * b.live


@_rule("zeros_like", "ones_like", "full_like")
def _filled(call: Marking) -> Tensor:
    return torch.zeros(call.shapes[0])


def _bilinear(left: str, right: str, *added: str) -> Rule:
    """A product that sums; ``added`` are the names of what is added to it."""

    def rule(call: Marking) -> Result | None:
        a, b = call[left], call[right]
        plain = {k: v for k, v in call.args.items() if k not in (left, right, *added)}
        present = {k: torch.zeros(call.shapes[0]) for k in added if k in ("self",)}
        total = torch.zeros(call.shapes[0])
        for marks, others in ((a, b), (b, a)):
            if marks.on is not None:
                seen, live = marks.on * marks.live, others.live.float()
                pair = {left: seen, right: live} if marks is a else {left: live, right: seen}
                total = total + _run(call.target, {**plain, **present, **pair}, added)
        for name in added:
            each = call.args.get(name)
            if isinstance(each, Marked) and each.on is not None:
                total = total + _beside(each.on, call, name).expand(call.shapes[0])
        return total

    return rule


def _run(target: Any, named: dict[str, Any], added: Sequence[str]) -> Tensor:
    empty = {name: None for name in added if name == "bias"}
    found: Tensor = target(**{**empty, **named})
    return found


def _beside(bias: Tensor, call: Marking, name: str) -> Tensor:
    """What is added, broadcastable to the result: the bias of a convolution lies along dim 1."""
    spatial = len(call.shapes[0]) - 2 if "conv" in call.op and name == "bias" else 0
    return bias.reshape(-1, *(1,) * spatial) if spatial else bias


_CONVOLUTIONS = ("convolution", *(f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3)))
for _name in ("linear", *_CONVOLUTIONS):
    RULES[f"aten::{_name}"] = _bilinear("input", "weight", "bias")
RULES["aten::matmul"] = _bilinear("self", "other")
RULES["aten::mm"] = RULES["aten::bmm"] = _bilinear("self", "mat2")
RULES["aten::addmm"] = _bilinear("mat1", "mat2", "self")
RULES["aten::baddbmm"] = _bilinear("batch1", "batch2", "self")


@_rule("einsum")
def _einsum(call: Marking) -> Tensor | None:
    tensors = call["tensors"]
    if len(tensors) != 2:
        return None
    total = torch.zeros(call.shapes[0])
    for i, each in enumerate(tensors):
        if each.on is not None:
            pair = [t.live.float() for t in tensors]
            pair[i] = each.on * each.live
            total = total + torch.einsum(call["equation"], *pair)
    return total


@_rule("batch_norm")
def _batch_norm(call: Marking) -> Tensor | None:
    """With running statistics each channel by itself; a scale of zero leaves a constant."""
    x, weight = call["input"], call.args.get("weight")
    if call["training"]:
        return None
    shape = (1, -1, *(1,) * (len(x.shape) - 2))
    total = x.marks if weight is None else x.marks * weight.live.reshape(shape)
    for name in ("weight", "bias", "running_mean", "running_var"):
        each = call.args.get(name)
        if each is not None and each.on is not None:
            total = total + each.on.reshape(shape)
    return total


@_rule("scaled_dot_product_attention")
def _attention(call: Marking) -> Tensor | None:
    """A weighted mean of values: of values that are the same at all positions, these. Where weights are marked, all."""
    q, k, v = call["query"], call["key"], call["value"]
    (shape,) = call.shapes
    if q.shape[:-2] != k.shape[:-2] or q.shape[:-2] != v.shape[:-2]:
        return None
    mask = call.args.get("attn_mask")
    along = v.marks if v.uneven is None else v.marks + v.uneven
    total = along.amax(-2, keepdim=True).expand(shape)
    if v.uneven is None:  # what goes of queries and keys must not change the weights
        total = total + _scores(q, k).sum((-2, -1), keepdim=True).expand(shape)
        if mask is not None:
            total = total + mask.marks.sum().expand(shape)
    return total


def _scores(q: Marked, k: Marked) -> Tensor:
    a, b = (m.marks * m.live for m in (q, k))
    live = [m.live.float() for m in (q, k)]
    return a @ live[1].transpose(-2, -1) + live[0] @ b.transpose(-2, -1)


@_rule("embedding")
def _embedding(call: Marking) -> Tensor | None:
    """Rows that are looked up."""
    table, index = call["weight"], call["indices"]
    if index.value is not None:
        return torch.nn.functional.embedding(index.value, table.marks)
    along = table.marks if table.uneven is None else table.marks + table.uneven
    return along.amax(0).expand(call.shapes[0])


@_rule("glu")
def _glu(call: Marking) -> Tensor:
    value, gate = call["self"].marks.chunk(2, call.args.get("dim", -1))
    return value + gate


@_rule("amax", "amin")
def _extreme(call: Marking) -> Tensor:
    named = {k: v for k, v in call.args.items() if k != "self"}
    return torch.amax(call["self"].marks, **named)


@_rule("argmax", "argmin")
def _winner(call: Marking) -> Tensor | None:
    """Which of several is the largest depends on all of them."""
    if call.args.get("dim") is None:
        return None
    return torch.amax(call["self"].marks, call["dim"], keepdim=call.args.get("keepdim", False))


_MOVED = (
    "view", "reshape", "_unsafe_view", "flatten", "unflatten", "_reshape_alias", "ravel", "squeeze", "unsqueeze",
    "permute", "transpose", "swapaxes", "swapdims", "t", "mT", "movedim", "moveaxis", "expand", "broadcast_to",
    "repeat", "tile", "repeat_interleave", "flip", "split", "split_with_sizes", "chunk", "tensor_split", "slice",
    "narrow", "select", "unbind", "cat", "concat", "concatenate", "stack", "hstack", "vstack", "roll", "tril", "triu",
    "diagonal", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "im2col", "unfold", "index_select", "index",
    "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d", "replication_pad2d",
    "replication_pad3d",
)  # fmt: skip
_SUMMED = (
    "mean", *(f"{name}{n}d" for n in (1, 2, 3) for name in ("avg_pool", "adaptive_avg_pool")),
    *(f"max_pool{n}d" for n in (1, 2, 3)), *(f"{name}{n}d" for n in (1, 2, 3) for name in ("upsample_nearest",)),
    "upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d",
)  # fmt: skip


@_rule(*_MOVED, *_SUMMED)
def _same(call: Marking) -> Result | None:
    """The operation itself, on marks: elements are moved, averaged without signs, or the largest of them is taken."""

    def plain(each: Any) -> Any:
        if isinstance(each, Marked):
            return each.marks.contiguous() if each.value is None else each.value
        return type(each)(plain(e) for e in each) if isinstance(each, (list, tuple)) else each

    named = {k: plain(v) for k, v in call.args.items() if k != "dtype"}
    found: Result = call.target(**named)
    return found


@_rule("sum", "cumsum")
def _sum(call: Marking) -> Result | None:
    """A zero adds nothing, whether it is there or not."""
    x = call["self"]
    named = {k: v for k, v in call.args.items() if k not in ("self", "dtype")}
    found: Result = call.target(x.marks * x.live, **named)
    return found


@_rule("pad", "constant_pad_nd")
def _padded(call: Marking) -> Tensor:
    """What is padded with is a constant."""
    named = {**call.args, "self": call["self"].marks, "value": 0.0}
    if named.get("mode", "constant") != "constant":
        named["value"] = None
    found: Tensor = call.target(**named)
    return found
