"""One operation at a time: tensors with labels made by hand, the rule's answer, and the rewrite after a removal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from compress.graph.labels import Factor, Relations, Value
from compress.graph.propagate import rule_of
from compress.graph.rules import REWRITES, Call, Cut, Kept


class Bench:
    """Labels are counted from 1 in the order in which tensors are made."""

    def __init__(self) -> None:
        self.relations = Relations()

    def tensor(self, *shape: int, along: Sequence[int] | None = None) -> Value:
        """A tensor with fresh labels along the given dims (all of size above 1 when absent), like a parameter."""
        factors = []
        for axis in range(len(shape)) if along is None else along:
            if shape[axis] > 1:
                small = [1] * len(shape)
                small[axis] = shape[axis]
                factors.append(Factor(self.relations.fresh(*small), axis))
        return Value(tuple(shape), tuple(factors))

    def fixed(self, *shape: int) -> Value:
        return Value(tuple(shape))

    def call(self, op: str, /, *shapes: tuple[int, ...], **args: Any) -> Call:
        self.relations.op = f"aten::{op}"
        return Call(f"aten::{op}", args, shapes, self.relations)

    def __call__(self, op: str, /, *shapes: tuple[int, ...], **args: Any) -> Any:
        """The rule's results for an operation with results of the given shapes; the shapes must agree."""
        call = self.call(op, *shapes, **args)
        rule = rule_of(call.op, None)
        assert rule is not None, op
        out = rule(call)
        found = (out.shape,) if isinstance(out, Value) else tuple(v.shape for v in out)
        assert found == shapes
        return out

    def rewrite(self, removed: Sequence[int], op: str, /, *shapes: tuple[int, ...], **args: Any) -> dict[str, Any]:
        """The arguments that change when the labels ``removed`` are gone."""
        out = self(op, *shapes, **args)
        alive = np.ones(self.relations.count, dtype=bool)
        alive[list(removed)] = False
        outs = (out,) if isinstance(out, Value) else tuple(out)
        return REWRITES[f"aten::{op}"](Cut(self.call(op, *shapes, **args), outs, Kept(alive)))

    def along(self, value: Value, axis: int) -> list[list[int]]:
        """Flat labels of every factor along ``axis``."""
        return [f.labels.ravel().tolist() for f in value.along(axis)]

    @property
    def edges(self) -> set[tuple[int, int]]:
        pairs = ((int(a), int(b)) for xs, ys in self.relations.edges for a, b in zip(xs, ys, strict=True))
        return {(min(p), max(p)) for p in pairs}

    @property
    def pinned(self) -> list[int]:
        return sorted(int(n) for pin in self.relations.pins for n in pin.labels)

    @property
    def reasons(self) -> set[str]:
        return {pin.reason for pin in self.relations.pins}


@pytest.fixture
def bench() -> Bench:
    return Bench()
