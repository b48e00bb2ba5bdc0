"""`compress finetune`: a model trained again, as a bundle with a report."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from compress.checkpoint.bundle import is_bundle, read_metadata
from compress.checkpoint.write import check_output
from compress.counting import count_macs, count_nonzero, count_parameters, tensor_bytes
from compress.errors import InputError
from compress.evaluate import Accuracy, evaluate
from compress.graph import Program
from compress.pipeline.bundle import Content, check_not_within, reloaded
from compress.pipeline.doubts import doubts
from compress.pipeline.opening import Opened, open_model, traced
from compress.pipeline.training import Taught, check_trainable, find_teacher, train
from compress.pipeline.unfit import check_network
from compress.progress import Progress
from compress.recipe import finetune_recipe, to_toml
from compress.recover import Trained
from compress.recover.launch import is_main
from compress.report import DataUsed, InputFile, Measures, Method, Verification, build_report, html
from compress.request import FinetuneRequest
from compress.result import Finetuned


def finetune_model(request: FinetuneRequest, progress: Progress) -> Finetuned:
    """Checkpoint or bundle to bundle: open, train, measure, write.

    Raises:
        InputError: Something about the request, the files or the data is wrong, or nothing could be learned.
        ModelError: The model cannot be traced or trained.
        Elsewhere: This is not the main one of several processes.
    """
    check_output(request.output, request.force)
    check_not_within(request.model.path, request.output, request.force)
    opened = open_model(request.model, request.settings, request.data, progress)
    teacher = find_teacher(request, progress)
    progress.step("Tracing")
    program = traced(opened)
    check_trainable(program, opened)
    check_network(program, opened)
    recipe = finetune_recipe(request, None if teacher is None else (teacher.source, teacher.opened.loaded.sha256))
    before = _accuracy(program.module, opened, progress) if is_main() else None
    trained, file = train(
        program.module, opened, None if teacher is None else teacher.program.module, training=request.training,
        running=request.running, output=request.output, recipe=recipe, progress=progress,
    )  # fmt: skip
    if trained.diverged and trained.best == 0:
        file.remove()
        raise InputError(f"nothing was learned: {trained.stopped}", "a lower --lr")
    result = _write(_Work(request, opened, program, teacher, trained, recipe, before), progress)
    file.remove()
    return result


@dataclass(frozen=True)
class _Work:
    """What is known when the training is over."""

    request: FinetuneRequest
    opened: Opened
    program: Program
    teacher: Taught | None
    trained: Trained
    recipe: dict[str, Any]
    before: Accuracy | None


def _accuracy(module: nn.Module, opened: Opened, progress: Progress) -> Accuracy:
    if opened.data is None:  # the request always names data
        raise AssertionError("a training without data")
    return evaluate(module, opened.data.test, device=opened.device, progress=progress)


def _write(work: _Work, progress: Progress) -> Finetuned:
    request, opened, trained = work.request, work.opened, work.trained
    program = Program(trained.module, work.program.inputs, work.program.dynamic_batch)
    content = Content(program, opened, _plan(request.model.path), request.settings.seed)
    weights = content.weights()
    progress.step("Loading the result in a new process")
    verification = Verification(reload=reloaded(program, weights, opened))
    after = _accuracy(trained.module, opened, progress)
    report = _report(work, after, len(weights), verification, progress)
    files = {"report.html": html(report).encode()}
    content.write(request.output, report, work.recipe, files, request.force)
    return Finetuned(request.output, trained.best, trained.stopped, report)


def _plan(path: Path) -> dict[str, Any] | None:
    """What a bundle says was removed from its original: that is still so."""
    if not is_bundle(path):
        return None
    whole = (path if path.is_dir() else path.parent) / "plan.json"
    try:
        return dict(json.loads(whole.read_text("utf-8")))
    except (OSError, ValueError):  # it was moved alone; what is in its metadata lacks masks
        plan = read_metadata(path)["plan"]
        return None if plan is None else dict(plan)


def _report(
    work: _Work, accuracy: Accuracy, written: int, verification: Verification, progress: Progress
) -> dict[str, Any]:
    request, opened, trained = work.request, work.opened, work.trained
    loaded, data = opened.loaded, opened.data
    before = _measures(work.program.module, opened, loaded.path.name, loaded.bytes, work.before)
    after = _measures(trained.module, opened, "model.safetensors", written, accuracy)
    doubted = doubts(before, after, trained)
    for each in doubted:
        progress.warn(each)
    options = {**work.recipe["finetune"], "distill": trained.distill, "best epoch": trained.best}
    if work.teacher is not None:
        options["teacher"] = str(work.teacher.source.path)
    return build_report(
        command=request.command or ("compress", "finetune", str(request.model.path)),
        seed=request.settings.seed,
        device=str(opened.device),
        threads=request.settings.threads,
        input=InputFile(
            str(request.model.path), loaded.sha256, loaded.bytes, loaded.form, loaded.architecture, loaded.notes
        ),
        method=Method("finetune", options),
        data=DataUsed(request.data.spec, trained.train, None, accuracy.count, () if data is None else data.class_names),
        before=before,
        after=after,
        verification=verification,
        history=trained.history,
        best_epoch=trained.best,
        recipe=to_toml(work.recipe),
        warnings=(*((trained.stopped,) if trained.diverged else ()), *doubted),
    )


def _measures(module: nn.Module, opened: Opened, name: str, size: int, accuracy: Accuracy | None) -> Measures:
    return Measures(
        params=count_parameters(module),
        nonzero=count_nonzero(module),
        macs=count_macs(module, opened.examples(2)).total,
        bytes=tensor_bytes(module),
        files={name: size},
        accuracy=accuracy,
    )
