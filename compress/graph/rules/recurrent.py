"""Recurrent layers: LSTM, GRU and plain RNN, whole or cell by cell.

A hidden unit is a row of both weights and biases for each gate, a column of the recurrent weight, and an input of
whatever reads the state. With all of these at zero, a unit whose state starts at zero stays at zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import fx

from compress.graph.calls import bind, op_name
from compress.graph.labels import Factor, Labels, Value, join, join_all
from compress.graph.rules.registry import Call, only, rule

RECURRENT = {"aten::lstm": 4, "aten::gru": 3, "aten::rnn_tanh": 1, "aten::rnn_relu": 1}  # gates by operation
CELLS = {f"{name}_cell": gates for name, gates in RECURRENT.items()}
_ZEROS = {"aten::zeros", "aten::new_zeros"}
_SAME = {"aten::detach", "aten::clone", "aten::contiguous", "aten::alias"}


def _along(call: Call, value: Value, axis: int) -> Value:
    """The labels of one dim as those of a vector; where they differ along other dims they are made equal."""
    axis %= value.rank
    factors = []
    for factor in value.along(axis):
        labels = factor.labels
        for other in factor.blocks():
            labels = call.relations.align(labels, other)
        factors.append(Factor(labels.reshape(-1), 0))
    return Value((value.shape[axis],), tuple(factors))


def _units(call: Call, value: Value, gates: int) -> Value:
    """Labels of the hidden units from the rows of a weight or bias, (gates * H, ...)."""
    rows = _along(call, value, 0)
    size = rows.shape[0] // gates
    if size == 1 or len(rows.factors) != 1:
        call.relations.pin_all(rows.factors, "a recurrent layer with one unit, or with rows that go for two reasons")
        return Value((size,))
    labels = call.relations.align(rows.factors[0].labels.reshape(gates, size), 0)
    return Value((size,), (Factor(labels[0], 0),))


def _cell(call: Call, x: Value, params: Sequence[Value], gates: int) -> tuple[Value, Value]:
    """Labels of the output and of the inner state of one layer in one direction; ``x`` are those of its input.

    ``params`` are weight_ih (gates * H, I), weight_hh (gates * H, P), two biases or none, and where the output is
    projected weight_hr (P, H); P is H without.
    """
    relations = call.relations
    biases = [p for p in params if p.rank == 1]
    projection = params[-1] if len(params) % 2 else None
    join(relations, x, _along(call, params[0], 1))
    state = join_all(relations, [_units(call, p, gates) for p in (*params[:2], *biases)])
    out = state
    if projection is not None:
        state = join(relations, state, _along(call, projection, 1))
        out = _along(call, projection, 0)
    return join(relations, out, _along(call, params[1], 1)), state


def _vectors(call: Call, rows: Sequence[Value]) -> Labels | None:
    """Labels (rows, H) of the layers and directions, which all have as many units; None where they keep their size."""
    if any(len(row.factors) != 1 for row in rows):
        for row in rows:
            call.relations.pin_all(row.factors, "all layers of a recurrent network have as many units")
        return None
    labels = np.stack([row.factors[0].labels for row in rows])
    call.relations.balance(labels, 1)
    return labels


def _is_zero(node: object) -> bool:
    """Whether a state is made of zeros that nothing else writes to, so that it fits units in any order."""
    while isinstance(node, fx.Node) and node.op == "call_function":
        if any(u.op != "call_function" or op_name(u.target) not in {*_SAME, *RECURRENT} for u in node.users):
            return False
        op = op_name(node.target)
        if op not in _SAME:
            return op in _ZEROS
        node = node.args[0]
    return False


def _start(call: Call, value: Value, node: object, rows: Sequence[Value]) -> None:
    """Tie an initial state (layers * directions, N, H) to the units of its layers."""
    kept = Value(value.shape, only(call, value, (2,), "sample or layer in the state of a recurrent layer"))
    if _is_zero(node):
        join(call.relations, _along(call, kept, 2), rows[0])
        return
    for i, row in enumerate(rows):
        parts = tuple(Factor(f.labels[[min(i, len(f.labels) - 1)]], 2) for f in kept.factors)
        join(call.relations, _along(call, Value((1, *value.shape[1:]), parts), 2), row)


@rule(*RECURRENT)
def layers(call: Call) -> list[Value]:
    """All layers and directions of a recurrent network; (N, T, I), (T, N, I) or packed (samples, I)."""
    x = call["data"] if "data" in call.args else call["input"]
    only(call, x, (-1,), "sample or time step of a recurrent layer")
    directions = 2 if call["bidirectional"] else 1
    count = int(call["num_layers"]) * directions
    each = len(call["params"]) // count
    features = _along(call, x, -1)
    outs: list[Value] = []
    states: list[Value] = []
    for first in range(0, count, directions):
        cells = [call["params"][k * each : (k + 1) * each] for k in range(first, first + directions)]
        made = [_cell(call, features, params, RECURRENT[call.op]) for params in cells]
        outs += [out for out, _ in made]
        states += [state for _, state in made]
        last = _vectors(call, outs[-directions:])
        size = (directions * outs[-1].shape[0],)
        features = Value(size) if last is None else Value(size, (Factor(last.reshape(-1), 0),))
    given, nodes = call["hx"], _nodes(call)
    for value, node, rows in zip([given] if isinstance(given, Value) else given, nodes, (outs, states), strict=False):
        _start(call, value, node, rows)
    lead = (1,) * (len(call.shape) - 1)
    factors = tuple(Factor(f.labels.reshape(*lead, -1), len(lead)) for f in features.factors)
    finals = [_final(call, rows, shape) for rows, shape in zip((outs, states), call.shapes[1:], strict=False)]
    return [Value(call.shape, factors), *finals]


def _nodes(call: Call) -> list[object]:
    if call.node is None:
        return [None, None]
    found = bind(call.node.target, call.node.args, call.node.kwargs)["hx"]
    return list(found) if isinstance(found, (list, tuple)) else [found]


def _final(call: Call, rows: Sequence[Value], shape: tuple[int, ...]) -> Value:
    """The last state (layers * directions, N, H)."""
    labels = _vectors(call, rows)
    return Value(shape) if labels is None else Value(shape, (Factor(labels[:, None, :], 2),))


@rule(*CELLS)
def cells(call: Call) -> Value | list[Value]:
    """One step of one layer: input (N, I), state (N, H)."""
    names = ("w_ih", "w_hh", "b_ih", "b_hh")
    only(call, call["input"], (1,), "sample of a recurrent layer")
    params = [call[name] for name in names if call.get(name) is not None]
    out, _ = _cell(call, _along(call, call["input"], 1), params, CELLS[call.op])
    for state in [call["hx"]] if isinstance(call["hx"], Value) else call["hx"]:
        only(call, state, (1,), "sample in the state of a recurrent layer")
        out = join(call.relations, out, _along(call, state, 1))
    results = [Value(s, tuple(Factor(f.labels[None], 1) for f in out.factors)) for s in call.shapes]
    return results if len(results) > 1 else results[0]


@rule("aten::_pack_padded_sequence", "aten::_pad_packed_sequence")
def packing(call: Call) -> list[Value]:
    """Sequences of different lengths, padded to one length or one time step after the other."""
    x = call["input"] if "input" in call.args else call["data"]
    only(call, x, (-1,), "sample or time step of packed sequences")
    features = _along(call, x, -1)
    lead = (1,) * (len(call.shape) - 1)
    factors = tuple(Factor(f.labels.reshape(*lead, -1), len(lead)) for f in features.factors)
    return [Value(call.shape, factors), *(Value(shape) for shape in call.shapes[1:])]
