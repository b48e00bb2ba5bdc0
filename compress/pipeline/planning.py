"""From what is asked for to a plan: the budget in force, the rounds, and what it came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from compress.budget import Allocation, Budget, Outcome, check, multiple, outcome, rungs
from compress.errors import InputError
from compress.graph import Coupling
from compress.pipeline.divided import without_judges
from compress.pipeline.filesize import file_size
from compress.pipeline.opening import Opened
from compress.pipeline.rounds import Refit, plan_in_rounds
from compress.pipeline.slicing import Sliced
from compress.plan import Plan
from compress.plugin import Context, make_plan
from compress.progress import Progress
from compress.report import budget_text
from compress.request import PruneRequest
from compress.wording import plural


def check_widths(request: PruneRequest, kind: str) -> None:
    """See that the method leaves the widths to the budget where something is said about them.

    Raises:
        InputError: It does not.
    """
    if request.granularity == "weight" and request.round_to != 1:
        raise InputError("--round-to rounds whole units", "leave out --granularity weight")
    if request.budget is not None and request.budget.kind == "latency" and kind != "criterion":
        reason = "decides by itself how much goes" if kind == "pruner" else "prunes before the result can be timed"
        hint = "choose a method that scores units, or another budget"
        raise InputError(f"--latency: {request.method} {reason}", hint)
    if kind == "criterion" and request.granularity == "unit":
        return
    given = {
        "--steps": (request.steps > 1, "cannot be asked for scores round by round"),
        "--allocation": (request.allocation != "local", "leaves no choice of that"),
        "--ratio-of": (bool(request.ratio_of), "leaves no choice of that"),
    }
    for flag, (said, reason) in given.items():
        if said and kind == "criterion":
            raise InputError(f"{flag} is about whole units", "leave out --granularity weight")
        if said:
            raise InputError(
                f"{flag}: {request.method} decides by itself how much of each layer goes, and {reason}",
                f"leave out {flag}, or choose a method that scores units, such as dependency",
            )


def context_of(
    request: PruneRequest, opened: Opened, coupling: Coupling, progress: Progress, has_budget: bool = True
) -> Context:
    """What the method will see; names groups that rounding leaves whole.

    Raises:
        InputError: A glob matches nothing.
        ModelError: Nothing can be pruned.
    """
    judges = 0.0 if request.training is None else request.training.validation
    data = without_judges(opened.data, max(request.kept_out, judges))
    budget = Budget() if request.budget is None else Budget(request.budget.kind, request.budget.value)
    allocation = Allocation(request.allocation, request.ratio_of, multiple(request.round_to, request.target))
    context = Context(
        *(coupling, budget, request.granularity, request.only, request.exclude, request.settings.seed, data),
        progress=progress,
        allocation=allocation,
        has_budget=has_budget,
        size=file_size(coupling, opened, request.settings.seed) if budget.kind == "bytes" else None,
    )
    held = _held_by_rounding(context)
    for name in held:
        context.notes[name] = {"keeps its width": f"no smaller one is a multiple of {allocation.round_to}"}
    if held:
        more = f" and {len(held) - 3} more" if len(held) > 3 else ""
        progress.warn(
            f"{len(held)} of {plural(len(context.groups), 'group')} keep their width, as no smaller one is a multiple "
            f"of {allocation.round_to}: {', '.join(held[:3])}{more}"
        )
    return context


def _held_by_rounding(context: Context) -> list[str]:
    allowed = rungs(context.coupling, context.clusters, context.allocation.round_to)
    found = zip(context.clusters, allowed, strict=True)
    return [name for cluster, rung in found if len(rung) == 1 for name in cluster.groups]


def planned(method: Any, kind: str, context: Context, steps: int, refit: Refit | None, progress: Progress) -> Plan:
    """The plan of a method.

    Raises:
        ModelError: The budget cannot be met.
        PluginError: The method breaks the contract or fails.
    """
    if kind != "criterion" or context.granularity == "weight":
        plan = make_plan(method, context)
    else:
        check(context.coupling, context.clusters, context.budget, context.allocation, context.size)
        plan = plan_in_rounds(method, context, steps, refit, progress)
    notes: dict[str, Mapping[str, Any]] = {**context.notes}
    for name, note in plan.notes.items():
        notes[name] = {**notes.get(name, {}), **note}
    return replace(plan, notes=notes)


def reached(work: Context, sliced: Sliced, written: int) -> Outcome | None:
    """What the budget came to; None where single weights were masked, which is met to the weight.

    Args:
        work: The context of the plan.
        sliced: What was removed in the end.
        written: Bytes of the file.
    """
    if sliced.plan.masks:
        return None
    if sliced.plan.reached is not None:
        return Outcome(work.budget.kind, work.budget.value, sliced.plan.reached, sliced.plan.counted)
    removed = {name: np.asarray(units) for name, units in sliced.plan.removed.items()}
    found = outcome(work.coupling, work.clusters, removed, work.budget, work.allocation, work.size)
    return replace(found, reached=float(written)) if found.kind == "bytes" else found


def tell(found: Outcome, sliced: Sliced, progress: Progress) -> bool:
    """Say so where a budget was missed by more than 2 %, and why; whether it is for want of nearer widths."""
    if not (found.short or found.over):
        return False
    near = "the nearest that the allowed widths come" + (" to it from below" if found.kind != "ratio" else "")
    if found.kind == "latency":
        near = "timed again at the end, it was slower" if found.over else "no try came nearer"
    if sliced.rolled_back:
        near = f"{plural(len(sliced.rolled_back), 'group')} left whole after all"
    text = budget_text(asdict(found))
    progress.warn(f"--{found.kind}: {text}: {near}")
    return found.short and not sliced.rolled_back and found.kind != "latency"
