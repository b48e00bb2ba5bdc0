"""Operations that act on each element by itself, with broadcasting."""

from __future__ import annotations

from compress.graph.labels import Value, join_all
from compress.graph.rules.registry import Call, rule

# Other names of pointwise operations, which PyTorch does not tag as such.
UNTAGGED = (
    "absolute", "subtract", "multiply", "divide", "floor_divide", "float_power", "negative", "greater",
    "greater_equal", "less", "less_equal", "not_equal", "special_expit", "special_erf", "special_expm1", "special_exp2",
    "special_log1p", "special_round", "special_sinc", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2",
    "arctanh", "fix", "rrelu", "isclose", "__and__", "__or__", "__xor__", "real", "imag", "conj", "resolve_conj",
    "resolve_neg", "complex", "polar",
)  # fmt: skip


@rule(
    "aten::where",
    "aten::masked_fill",
    "aten::lerp",
    "aten::addcmul",
    "aten::addcdiv",
    "aten::relu6",
    "aten::prelu",
    "aten::rsub",
    "aten::type_as",
    "aten::dropout",
    "aten::feature_dropout",
    "aten::alpha_dropout",
    "aten::feature_alpha_dropout",
    "aten::selu",
    "aten::clamp",
    "aten::clip",
    "aten::log_sigmoid",
    "aten::softplus",
    "aten::contiguous",
    "aten::clone",
    "aten::alias",
    "aten::detach",
    "aten::to",
    "aten::_to_copy",
    "aten::float",
    "aten::lift_fresh_copy",
    "aten::lift_fresh",
    "aten::copy",
    "aten::hardswish",
    "aten::fill",
    "aten::zero",
    "aten::zeros_like",
    "aten::ones_like",
    "aten::full_like",
    "aten::empty_like",
    "aten::rand_like",
    "aten::randn_like",
    "aten::expand_as",
    "aten::nan_to_num",
    "aten::square",
    *(f"aten::{name}" for name in UNTAGGED),
)
def pointwise(call: Call) -> Value:
    """Elements at the same (broadcast) position live and die together."""
    values = call.values()[:1] if call.op == "aten::type_as" else call.values()  # of the other only its type is read
    if call.op == "aten::prelu" and values[1].rank == 1 and values[0].rank > 1:
        weight = values[1]
        shape = [1] * values[0].rank
        shape[1] = weight.shape[0]
        values[1] = Value(tuple(shape), tuple(type(f)(f.labels.reshape(shape), 1) for f in weight.factors))
    joined = join_all(call.relations, values)
    return Value(call.shape, joined.factors)
