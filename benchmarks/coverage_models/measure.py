"""What is measured of one model: traced, coupled, cut at random, compared with the masked original in float64."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from compress.budget import at_steps
from compress.errors import CompressError, ModelError
from compress.graph import (
    Coupling,
    Program,
    analyse,
    clusters,
    macs,
    parameters,
    slice_graph,
    slice_module,
    slice_verified,
    trace,
    verify,
)
from compress.graph.freedom import Freedom, freedom
from coverage_models.case import Case

OUTPUT = "an output of the network keeps its size"


@dataclass
class Row:
    """What was found; written as one line of JSON.

    Attributes:
        status: ``exact``; ``partly``: groups were left whole, and are named; ``not traced``; ``refused``: the path
            depends on the data, and the module cannot hold the slice; ``BAD``.
        error: Worst relative error over the ratios.
        problem: What failed first, "" if nothing did.
        share: Prunable channel indices of layer weights over all, and how many there are.
        held: What holds the others, most indices first: (reason, operation, module, indices).
        parameters, macs: Before, and after the largest ratio.
        seconds: By stage; slice and verify at the largest ratio.
        in_place: "" if the user's own module holds the slice, else what prevents it.
        unruled: Operations without a rule, with the modules that use them.
        left_whole: Groups taken back because their slice failed.
        outputs_too: Where the stream is the output: share and error when outputs may be pruned.
    """

    suite: str
    name: str
    family: str
    status: str = "BAD"
    error: float = 0.0
    problem: str = ""
    share: float = 0.0
    total: int = 0
    groups: int = 0
    held: list[tuple[str, str, str, int]] = field(default_factory=list)
    parameters: tuple[int, int] = (0, 0)
    macs: tuple[int, int] = (0, 0)
    seconds: dict[str, float] = field(default_factory=dict)
    in_place: str = ""
    unruled: dict[str, list[str]] = field(default_factory=dict)
    left_whole: list[str] = field(default_factory=list)
    outputs_too: tuple[float, float] | None = None

    @property
    def exact(self) -> bool:
        return self.status in ("exact", "partly")


class _Clock:
    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds, self.started = seconds, time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage], self.started = now - self.started, now


def measure(case: Case, ratios: Sequence[float]) -> dict[str, Any]:
    """The row of one model as plain data; whatever goes wrong is part of it."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    row = Row(case.suite, case.name, case.family)
    try:
        module = case.build().eval()
        _measure(case, module, ratios, row)
    except Exception as error:  # a benchmark of what fails must not fail
        row.status, row.problem = "BAD", _first_line(error)
    return asdict(row)


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    name = "" if isinstance(error, CompressError) else f"{type(error).__name__}: "
    return name + (lines[0].strip() if lines else "")


def _measure(case: Case, module: nn.Module, ratios: Sequence[float], row: Row) -> None:
    clock = _Clock(row.seconds)
    args, kwargs = case.inputs()
    try:
        program = _trace(case, module, args, kwargs)
    except Exception as error:  # a model's own code may raise anything
        row.status, row.problem = "not traced", _first_line(error)
        return
    clock.lap("trace")
    coupling = analyse(program, allow_frozen=True)  # what the engine can do, not what its owner froze
    clock.lap("couple")
    found = freedom(coupling)
    row.share, row.total, row.groups = found.share, found.total, len(coupling.groups)
    row.held = [(h.reason, h.op, h.where, h.indices) for h in found.held[:8]]
    row.unruled = {op: list(where) for op, where in coupling.flow.unruled.items()}
    row.status = "exact"
    for ratio in sorted(ratios):
        cut = _cut if program.replayable else _cut_module
        cut(case, module, coupling, ratio, row, last=ratio == max(ratios))
    if found.share < 0.8 and _stream_is_output(found):
        row.outputs_too = _with_outputs(program, min(ratios), case.tolerance)


def _trace(case: Case, module: nn.Module, args: Any, kwargs: Any) -> Program:
    """A graph for any data; for a network whose path depends on its data, the path that the example takes."""
    if not case.detector:
        try:
            return trace(module, args, kwargs)
        except ModelError as error:
            with contextlib.suppress(ModelError):
                return trace(module, args, kwargs, follow_data=True)
            raise error
    return trace(module, args, kwargs, follow_data=True)


def remove(coupling: Coupling, ratio: float, seed: int = 0) -> dict[str, NDArray[np.int64]]:
    """Units of every family chosen at random, whole heads and groups included; at least one step of each."""
    rng = np.random.default_rng(seed)
    found = [c for c in clusters(coupling) if c.steps > 1]
    scores = {g.name: rng.random(g.size) for g in coupling.groups}
    steps = [min(c.steps - 1, max(1, round(ratio * c.steps))) for c in found]
    return at_steps(coupling, found, scores, steps)


def _cut(case: Case, module: nn.Module, coupling: Coupling, ratio: float, row: Row, last: bool) -> None:
    removed = remove(coupling, ratio)
    alive = coupling.alive(removed)
    clock = _Clock(row.seconds)
    try:
        sliced = slice_graph(coupling, alive)
        clock.lap("slice")
        outcome = verify(coupling, alive, sliced, tolerance=case.tolerance)
        clock.lap("verify")
        problem = outcome.problem or ("" if outcome.passed else f"differs by {outcome.error:.1e}")
        error = outcome.error
    except ValueError as failure:  # blocks that would keep different numbers
        problem, error = _first_line(failure), 0.0
    if problem:
        verified = slice_verified(coupling, removed)
        row.status, row.problem = "partly", row.problem or f"at {ratio:.0%}: {problem}"
        row.left_whole = sorted({*row.left_whole, *verified.rolled_back})
        sliced, alive, error = verified.module, verified.alive, verified.verification.error
    row.error = max(row.error, error)
    if last:
        _sizes(coupling, alive, row)
        row.in_place = slice_module(module, coupling, alive, sliced).problem


def _cut_module(case: Case, module: nn.Module, coupling: Coupling, ratio: float, row: Row, last: bool) -> None:
    """A network whose path depends on its data: sliced in place, and compared with its masked module."""
    alive = coupling.alive(remove(coupling, ratio))
    clock = _Clock(row.seconds)
    found = slice_module(module, coupling, alive)
    clock.lap("verify")
    row.error = max(row.error, found.error)
    if found.problem:
        row.status, row.in_place = "refused", found.problem
        row.problem = row.problem or f"at {ratio:.0%}: {found.problem}"
    if last:
        _sizes(coupling, alive, row)


def _sizes(coupling: Coupling, alive: NDArray[np.bool_], row: Row) -> None:
    row.parameters = (parameters(coupling), parameters(coupling, alive))
    row.macs = (macs(coupling), macs(coupling, alive))


def _stream_is_output(found: Freedom) -> bool:
    """Whether that outputs keep their size is what holds most of the indices."""
    by_output = sum(h.indices for h in found.held if h.reason == OUTPUT)
    return by_output * 2 > found.total - found.prunable


def _with_outputs(program: Program, ratio: float, tolerance: float) -> tuple[float, float]:
    coupling = analyse(program, prune_outputs=True, allow_frozen=True)
    alive = coupling.alive(remove(coupling, ratio))
    return freedom(coupling).share, verify(coupling, alive, slice_graph(coupling, alive), tolerance=tolerance).error
