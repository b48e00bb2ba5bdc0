"""`compress search`: the smallest model that holds an accuracy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from compress.checkpoint.bundle import load_bundle
from compress.checkpoint.folder import write_folder
from compress.checkpoint.write import check_output
from compress.errors import InputError
from compress.files import write_whole
from compress.graph import macs, parameters, stored_bytes
from compress.pipeline.bench import KEPT_OUT, Ready, ready, scoring
from compress.pipeline.bundle import check_not_within
from compress.pipeline.prune import prune
from compress.pipeline.searched import FILES, Search, contents, document, nothing_holds, told
from compress.pipeline.training import check_trainable
from compress.progress import Progress
from compress.report import html
from compress.request import BudgetTarget, PruneRequest
from compress.result import Searched
from compress.search import (
    Choice,
    Goal,
    Space,
    Trial,
    families,
    objective,
    open_study,
    robustness,
    run,
    smallest,
    trials_of,
)
from compress.searching import SearchRequest
from compress.wording import plural


def search(request: SearchRequest, progress: Progress) -> Searched:
    """Checkpoint to the smallest bundle: score once, try candidates, prune as the best of them was.

    Candidates are cut and refitted like the result of `prune`, on the same samples, but not verified; what is written
    is. They are judged on a part of the training samples that neither scores nor refits see, the one that fine-tuning
    chooses its best epoch by; the test samples are looked at once, for the report.

    Raises:
        InputError: Something about the request, the files, the data or the study is wrong.
        ModelError: The model cannot be handled, or no candidate holds the floor; what was tried is kept.
        PluginError: A method broke its contract.
    """
    check_output(request.output, request.force)
    check_not_within(request.model.path, request.output, request.force)
    for method in request.methods:
        scoring(method)
    made = ready(
        *(request.model, request.data, request.settings, request.scope, progress), samples=request.samples, refit=True
    )
    if request.training is not None:
        check_trainable(made.program, made.opened)
    plan = _prepared(request, made, progress)
    study = open_study(_storage(request), request.study, _identity(plan))
    known = trials_of(study)
    if known:
        progress.step(
            f"Going on with study {request.study!r}: {len(known)} of {plural(request.trials, 'trial')} are there"
        )
    try:
        trials = run(study, plan.space, _Judge(plan, known), plan.goal, progress)
    except KeyboardInterrupt:
        progress.step(f"{plural(len(trials_of(study)), 'trial')} kept: the same command goes on from there")
        raise
    best = smallest(trials, plan.goal)
    if best is None:
        folder = _work(request)
        write_folder(folder, contents(document(plan, trials, None, None)), ours=FILES)
        raise nothing_holds(plan, trials, folder)
    progress.step(f"Writing trial {best.number}: {told(plan, best)}")
    return _written(plan, trials, best, progress)


def _written(plan: Search, trials: tuple[Trial, ...], best: Trial, progress: Progress) -> Searched:
    """The candidate as a bundle, with what was tried beside it."""
    result = prune(_pruning(plan, best), progress)
    accuracy = plan.made.bench.accuracy(load_bundle(result.bundle))
    if accuracy.accuracy < plan.goal.floor - 1e-9:
        progress.warn(
            f"the written model has {100 * accuracy.accuracy:.2f} % on the validation part, below the floor, as it is "
            "another network than the candidate: groups keep their size, or layers were refitted together"
        )
    found = document(plan, trials, best, (result, accuracy))
    drawings = {e["file"]: (result.bundle / e["file"]).read_text("utf-8") for e in result.report["figures"]}
    pages = {**contents(found), "report.html": html(result.report, drawings, found).encode()}
    for name, content in pages.items():
        write_whole(result.bundle / name, content)
    return Searched(result.bundle, result.report, found)


def _prepared(request: SearchRequest, made: Ready, progress: Progress) -> Search:
    coupling = made.context.coupling
    goal_size = objective(request.objective, coupling, request.settings.threads or 1)
    scores = {}
    for method in request.methods:
        progress.step(f"Scoring with {method}: {plural(len(made.context.groups), 'group')} of units")
        scores[method] = made.scores(method)
    whole = made.bench.accuracy(made.program.module)
    floor = request.floor.accuracy(whole.accuracy)
    if floor > whole.accuracy:
        raise InputError(
            f"the model itself has {100 * whole.accuracy:.2f} % on {plural(whole.count, 'validation sample')}, which "
            f"is below the floor of {100 * floor:.2f} %",
            "a lower --min-accuracy, or --max-drop 0.5",
        )
    progress.step(
        f"Searching on {plural(whole.count, 'validation sample')}: the model has {100 * whole.accuracy:.2f} %, "
        f"the floor is {100 * floor:.2f} %"
    )
    found = families(coupling, made.context.clusters)
    dense = goal_size(coupling.alive({}))
    first = scores[request.methods[0]]
    space = Space(
        found,
        request.methods,
        _prior(request, made),
        lambda steps: goal_size(made.bench.alive(first, steps)) / dense,
    )
    goal = Goal(floor, dense, request.trials, request.timeout, request.settings.seed)
    return Search(request, made, scores, goal_size, space, goal, whole)


def _prior(request: SearchRequest, made: Ready) -> tuple[float, ...]:
    """By family how robust it is, from a sensitivity.json; empty without one.

    Raises:
        InputError: The file is no sensitivity.json, or that of another model.
    """
    if request.sensitivity is None:
        return ()
    path = request.sensitivity / "sensitivity.json" if request.sensitivity.is_dir() else request.sensitivity
    try:
        known = json.loads(path.read_text("utf-8"))
        if known["schema"] != "compress.sensitivity/1":
            raise ValueError(f"schema {known['schema']!r} is unknown")
        whole, digest, losses = known["accuracy"]["accuracy"], known["sha256"], {}
        for each in known["families"]:
            found = [point["accuracy"] for point in each["points"] if point["accuracy"] is not None]
            if found:
                losses[each["name"]] = whole - sum(found) / len(found)
    except (OSError, ValueError, KeyError, TypeError) as error:
        hint = "give the sensitivity.json that `compress sensitivity` wrote"
        raise InputError(f"--sensitivity {path}: {error}", hint) from None
    if digest != made.opened.loaded.sha256:
        raise InputError(
            f"--sensitivity {path} is of {known['model']}, which is another file than {request.model.path}",
            f"compress sensitivity {request.model.path} --data {request.data.spec}",
        )
    return robustness(losses, families(made.context.coupling, made.context.clusters))


def _work(request: SearchRequest) -> Path:
    """Where a search keeps what it needs to go on, and what it found if that is no model."""
    return request.output.parent / f"{request.output.name}.search"


def _storage(request: SearchRequest) -> str:
    if request.storage is not None:
        return request.storage
    folder = _work(request)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made: {error}", "choose another --output, or --storage URL") from None
    return f"sqlite:///{folder / 'study.db'}"


def _identity(plan: Search) -> dict[str, Any]:
    """What trials depend on: a study with another identity is that of another search."""
    request, opened = plan.request, plan.made.opened
    data, scope = request.data, request.scope
    return {
        "model": opened.loaded.sha256,
        "families": [[f.name, f.units, f.steps] for f in plan.space.families],
        "data": [data.spec, data.mean, data.std],
        "samples": [plan.whole.count, plan.whole.correct],
        "floor": plan.goal.floor,
        "objective": request.objective,
        "threads": request.settings.threads or 1 if request.objective == "latency" else None,
        "methods": list(request.methods),
        "sensitivity": list(plan.space.prior),
        "scope": [list(scope.only), list(scope.exclude), scope.prune_outputs, scope.allow_frozen],
        "seed": request.settings.seed,
    }


class _Judge:
    """Candidates cut, refitted and judged; one that was there already is not judged again."""

    def __init__(self, plan: Search, known: tuple[Trial, ...]) -> None:
        self.plan = plan
        self.known = {(t.method, t.fractions): t for t in known if t.accuracy is not None}

    def __call__(self, choice: Choice) -> Trial:
        plan, method = self.plan, choice.method
        steps = plan.space.steps(choice)
        fractions = tuple(step / f.steps for step, f in zip(steps, plan.space.families, strict=True))
        if (method, fractions) not in self.known:
            bench, coupling = plan.made.bench, plan.made.context.coupling
            cut = bench.candidate(plan.scores[method], steps)
            self.known[method, fractions] = Trial(
                number=0,
                start="",
                method=method,
                fractions=fractions,
                units=cut.units,
                macs=macs(coupling, cut.alive),
                params=parameters(coupling, cut.alive),
                bytes=stored_bytes(coupling, cut.alive),
                size=plan.size(cut.alive),
                accuracy=bench.accuracy(cut.module).accuracy,
            )
        return self.known[method, fractions]


def _pruning(plan: Search, best: Trial) -> PruneRequest:
    """What `prune` is to do to write a candidate."""
    request, scope = plan.request, plan.request.scope
    units = sum(f.units for f in plan.space.families)
    return PruneRequest(
        model=request.model,
        output=request.output,
        method=best.method,
        budget=BudgetTarget("ratio", best.units / units),
        only=scope.only,
        exclude=scope.exclude,
        prune_outputs=scope.prune_outputs,
        allow_frozen=scope.allow_frozen,
        data=request.data,
        training=request.training,
        running=request.running,
        force=request.force,
        settings=request.settings,
        command=request.command,
        ratio_of=plan.made.ratios(best.fractions),
        kept_out=KEPT_OUT,
    )
