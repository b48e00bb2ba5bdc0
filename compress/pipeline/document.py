"""From what a run found to its report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from compress.budget import Outcome
from compress.evaluate import Accuracy
from compress.graph import Coupling, attribute, layer_weights
from compress.graph.operands import output_dims
from compress.graph.propagate import UNTRAINED
from compress.measure import LatencyPair
from compress.pipeline.opening import Opened
from compress.pipeline.prunable import prunable
from compress.pipeline.slicing import Sliced
from compress.recipe import to_toml
from compress.recover import Compensation, Trained
from compress.report import (
    Budget,
    DataUsed,
    GroupChange,
    InputFile,
    LayerChange,
    Measures,
    Method,
    ModuleFile,
    Picture,
    Pin,
    RolledBack,
    Verification,
    build_report,
)
from compress.request import PruneRequest


@dataclass(frozen=True)
class Side:
    """One of the two networks: counts, bytes of its tensors and of its file, accuracy where data was given.

    ``nominal`` counts the weights of masked tensors that are not zero; None for a method of whole units.
    """

    parameters: int
    nonzero: int
    macs: int
    bytes: int
    files: Mapping[str, int]
    accuracy: Accuracy | None
    nominal: int | None = None


@dataclass(frozen=True)
class Facts:
    """Everything a run found."""

    request: PruneRequest
    opened: Opened
    coupling: Coupling
    sliced: Sliced
    refit: Compensation | None
    recipe: Mapping[str, Any]
    before: Side
    after: Side
    speed: LatencyPair
    reload_error: float
    onnx_error: float | None = None
    warnings: tuple[str, ...] = ()
    trained: Trained | None = None
    untrained: Accuracy | None = None
    budget: Outcome | None = None
    module: ModuleFile | None = None
    limited: bool | None = None  # whether the budget was missed for want of nearer widths; None: not by the method


def document(facts: Facts) -> dict[str, Any]:
    """report.json of a prune run."""
    request, opened, sliced = facts.request, facts.opened, facts.sliced
    return build_report(
        command=request.command or ("compress", "prune", str(request.model.path)),
        seed=request.settings.seed,
        device=str(opened.device),
        threads=facts.speed.before.threads,
        input=InputFile(
            str(request.model.path),
            opened.loaded.sha256,
            opened.loaded.bytes,
            opened.loaded.form,
            opened.loaded.architecture,
            opened.loaded.notes,
        ),
        method=_method(facts),
        data=_data(facts),
        before=_measures(facts.before, facts.speed.before),
        after=_measures(facts.after, facts.speed.after),
        speedup=facts.speed.speedup,
        layers=tuple(widths(facts.coupling, sliced.alive)),
        groups=tuple(
            GroupChange(g.name, g.kind, g.size, g.size - len(sliced.plan.removed.get(g.name, ())))
            for g in facts.coupling.groups
        ),
        pins=tuple(_pins(facts.coupling)),
        prunable=prunable(facts.coupling),
        rolled_back=tuple(RolledBack(n, r) for n, r in sliced.rolled_back.items()),
        figures=tuple(Picture(f"figures/{f.name}.svg", f.title) for f in sliced.plan.figures),
        module=facts.module,
        verification=Verification(slice=sliced.error, reload=facts.reload_error, onnx=facts.onnx_error),
        history=() if facts.trained is None else facts.trained.history,
        best_epoch=None if facts.trained is None else facts.trained.best,
        untrained_accuracy=None if facts.untrained is None else facts.untrained.accuracy,
        recipe=to_toml(facts.recipe),
        warnings=(*facts.warnings, *_module_note(sliced), *_training_note(facts.trained)),
    )


def _measures(side: Side, latency: Any) -> Measures:
    return Measures(
        params=side.parameters,
        nominal=side.nominal,
        nonzero=side.nonzero,
        macs=side.macs,
        bytes=side.bytes,
        files=side.files,
        accuracy=side.accuracy,
        latency=latency,
    )


def _method(facts: Facts) -> Method:
    prune = facts.recipe["prune"]
    notes: dict[str, dict[str, Any]] = {n: dict(note) for n, note in facts.sliced.plan.notes.items()}
    if facts.refit is not None:
        for name, ratio in facts.refit.refitted.items():
            notes.setdefault(name, {})["error after refit / before"] = ratio
        for name, ratio in facts.refit.together.items():
            notes.setdefault(name, {})["error after joint refit / before"] = ratio
        for name, reason in facts.refit.apart.items():
            notes.setdefault(name, {})["not refitted jointly"] = reason
        for name, ratio in facts.refit.norms.items():
            notes.setdefault(name, {})["error after new statistics / before"] = ratio
        for name, reason in facts.refit.skipped.items():
            notes.setdefault(name, {})["not refitted"] = reason
    asked, found = prune.get("budget"), facts.budget
    budget = None
    if asked is not None and found is not None:
        budget = Budget(asked["kind"], asked["value"], found.target, found.reached, facts.limited, found.counted)
    elif asked is not None:
        budget = Budget(asked["kind"], asked["value"])
    return Method(
        name=prune["method"],
        options=prune["options"],
        budget=budget,
        granularity=prune["granularity"],
        notes=notes,
    )


def _data(facts: Facts) -> DataUsed | None:
    data = facts.opened.data
    if data is None or facts.request.data is None:
        return None
    calibration = None if facts.refit is None else facts.refit.samples
    train = None if facts.trained is None else facts.trained.train
    return DataUsed(facts.request.data.spec, train, calibration, len(data.test), data.class_names)


def widths(coupling: Coupling, alive: NDArray[np.bool_]) -> list[LayerChange]:
    """The outputs of every layer before and after; ``alive`` says of every label whether it stays."""
    kept = coupling.kept(alive)
    frozen = {(f.tensor, f.dim): f.reason for f in coupling.frozen}
    outputs = output_dims(coupling)
    found = []
    for name in layer_weights(coupling):
        weight: Tensor = attribute(coupling.program.module, name)
        dim = outputs.get(name, 0)
        before = int(weight.shape[dim])
        after = len(kept.get(name, {}).get(dim, range(before)))
        reason = frozen.get((name, dim)) if after == before else None
        found.append(LayerChange(name.removesuffix(".weight"), _kind(name, weight), before, after, reason))
    return found


def _kind(name: str, weight: Tensor) -> str:
    """What a weight belongs to, told by its rank or name: the graph no longer knows the class of the layer."""
    if name.rpartition(".")[2].startswith(("weight_ih", "weight_hh", "weight_hr")):
        return "recurrent"
    rank = weight.dim()
    shape = "x".join(str(n) for n in weight.shape[2:])
    name = {2: "linear", 3: "convolution 1d", 4: "convolution", 5: "convolution 3d"}.get(rank, "weight")
    return f"{name} {shape}" if shape and isinstance(weight, nn.Parameter) else name


def _pins(coupling: Coupling) -> list[Pin]:
    """Operations without a rule, and every reason that holds a dim of a parameter."""
    found = [
        Pin(op, ", ".join(where[:3]), "has no label rule, so what goes into it keeps its size")
        for op, where in coupling.flow.unruled.items()
    ]
    for frozen in coupling.frozen:
        kind = "frozen" if frozen.reason.endswith(UNTRAINED) else "tie"
        found.append(Pin(frozen.op or kind, f"{frozen.tensor}, dim {frozen.dim}", frozen.reason))
    return found


def _module_note(sliced: Sliced) -> tuple[str, ...]:
    if sliced.in_place is None or not sliced.in_place.problem:
        return ()
    return (f"the original module's code cannot hold this slice ({sliced.in_place.problem}); the bundle's graph can",)


def _training_note(trained: Trained | None) -> tuple[str, ...]:
    return () if trained is None or not trained.diverged else (f"the training ended early: {trained.stopped}",)
