"""From what a search found to its files, and to what it says where it found nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compress.budget import Scores, Size
from compress.errors import ModelError
from compress.evaluate import Accuracy
from compress.graph import macs, parameters, stored_bytes
from compress.pipeline.bench import Ready
from compress.report import svg
from compress.report.search import figure, page, size
from compress.result import Pruned
from compress.search import Goal, Space, Trial, front
from compress.searching import SearchRequest
from compress.wording import plural

FILES = ("search.json", "search.md", "pareto.svg")


@dataclass(frozen=True)
class Search:
    """What is known before the first trial."""

    request: SearchRequest
    made: Ready
    scores: Mapping[str, Scores]  # by method
    size: Size  # the objective
    space: Space
    goal: Goal
    whole: Accuracy


def told(plan: Search, trial: Trial) -> str:
    """A candidate in some words."""
    part = trial.size / plan.goal.whole
    return f"{size(plan.request.objective, trial.size)} ({100 * part:.1f} %), {100 * (trial.accuracy or 0):.2f} %"


def nothing_holds(plan: Search, trials: tuple[Trial, ...], folder: Path) -> ModelError:
    """What to say where no candidate holds the floor."""
    kept = f"what was tried is in {folder / FILES[0]}"
    judged = [each for each in trials if each.units and each.accuracy is not None]
    if not judged:
        reason = trials[-1].reason if trials else "there was no time for one"
        return ModelError(f"none of {plural(len(trials), 'candidate')} could be judged: {reason}", kept)
    best = max(judged, key=lambda t: (t.accuracy or 0.0, -t.size))
    return ModelError(
        f"none of {plural(len(trials), 'candidate')} holds {100 * plan.goal.floor:.2f} %: the most accurate has "
        f"{100 * (best.accuracy or 0.0):.2f} % with {size(plan.request.objective, best.size)} "
        f"({100 * best.size / plan.goal.whole:.1f} % of the original)",
        f"more --trials, or a lower floor; {kept}",
    )


def document(
    plan: Search, trials: tuple[Trial, ...], best: Trial | None, written: tuple[Pruned, Accuracy] | None
) -> dict[str, Any]:
    """search.json."""
    request, coupling = plan.request, plan.made.context.coupling
    document: dict[str, Any] = {
        "schema": "compress.search/1",
        "command": list(request.command),
        "seed": request.settings.seed,
        "model": str(request.model.path),
        "sha256": plan.made.opened.loaded.sha256,
        "data": request.data.spec,
        "validation": {"samples": plan.whole.count, "accuracy": plan.whole.accuracy},
        "floor": {"kind": request.floor.kind, "value": request.floor.value, "accuracy": plan.goal.floor},
        "objective": request.objective,
        "methods": list(request.methods),
        "sensitivity": None if request.sensitivity is None else str(request.sensitivity),
        "whole": {
            "units": sum(f.units for f in plan.space.families),
            "macs": macs(coupling),
            "params": parameters(coupling),
            "bytes": stored_bytes(coupling),
            "size": plan.goal.whole,
        },
        "families": [{"name": f.name, "groups": list(f.groups), "units": f.units} for f in plan.space.families],
        "trials": [{**asdict(each), "fractions": list(each.fractions)} for each in trials],
        "front": [each.number for each in front(trials)],
        "best": None if best is None else best.number,
        "written": None,
    }
    if written is not None:
        result, accuracy = written
        test = {side: result.report[side]["accuracy"]["accuracy"] for side in ("before", "after")}
        document["written"] = {"bundle": str(result.bundle), "validation": accuracy.accuracy, "test": test}
    return document


def contents(document: Mapping[str, Any]) -> dict[str, bytes]:
    """The files, by name."""
    texts = (json.dumps(document, indent=2, allow_nan=False) + "\n", page(document), svg(figure(document)))
    return {name: text.encode() for name, text in zip(FILES, texts, strict=True)}
