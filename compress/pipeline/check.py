"""`compress check`: what a model is, counted and measured, against its limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from compress.checkpoint.bundle import is_bundle, read_metadata
from compress.counting import count_macs, count_parameters
from compress.errors import CompressError, InputError, ModelError
from compress.evaluate import accuracy_of, answers
from compress.files import write_whole
from compress.gate import (
    Checked,
    CheckRequest,
    Facts,
    Limit,
    Scored,
    Timed,
    against,
    baseline_text,
    judge,
    of_report,
    read_baseline,
)
from compress.inputs import recorded_type
from compress.pipeline.measure import measure_model
from compress.pipeline.opening import Opened, open_model
from compress.pipeline.original import original_of
from compress.pipeline.sliced_onnx import NAME as ONNX
from compress.progress import Progress
from compress.report import read_report
from compress.request import MeasureRequest, ModelSource, Runtime
from compress.wording import plural

Report = Mapping[str, Any]


def check(request: CheckRequest, progress: Progress) -> Checked:
    """Judge every limit, or write the baseline anew and judge what does not compare with it.

    Raises:
        InputError: A file or the data is wrong, or a limit is about something that nobody measured.
        ModelError: The model cannot be run or timed.
    """
    gate = request.gate
    has_baseline = gate.baseline is not None
    over_time = against(gate.limits, "baseline", has_baseline)
    kept = tuple(limit for limit in gate.limits if limit not in over_time) if request.update else gate.limits
    model, original = _reported(request) if request.reported else _measured(request, progress)
    baseline = None
    if gate.baseline is not None and over_time and not request.update:
        baseline = read_baseline(gate.baseline)
    judged = judge(replace(gate, limits=kept), model, original, baseline)
    if request.update and gate.baseline is not None:
        write_whole(gate.baseline, baseline_text(model).encode())
    named = str(request.against.path) if request.against is not None else None if original is None else original.model
    compared = any(each.against == "original" for each in judged)
    return Checked(gate, model, judged, request.update, named if compared else None)


def _reported(request: CheckRequest) -> tuple[Facts, Facts]:
    path = request.model.path
    report = read_report(path)
    return of_report(report, "after", str(path)), of_report(report, "before", str(report["input"]["path"]))


def _measured(request: CheckRequest, progress: Progress) -> tuple[Facts, Facts | None]:
    """The model as it lies there, and its original as far as limits need it."""
    source, limits = request.model, request.gate.limits
    opened = open_model(source, request.settings, request.data, progress, judged=False)
    if request.data is not None:  # the original is judged on the same values
        request = replace(request, data=replace(request.data, mean=opened.mean, std=opened.std))
    report = _report_of(source)
    model = _counted(source, opened)
    if report is not None and report["after"]["params"] != model.params:
        raise InputError(
            f"the report in {source.path} is of a model with {plural(report['after']['params'], 'parameter')}, its "
            f"model.safetensors has {model.params:,}",
            "write the bundle again, or check model.safetensors alone from another folder",
        )
    if request.data is not None:
        model = replace(model, accuracy=_evaluated(request, opened, progress))
    elif report is not None:
        model = replace(model, accuracy=of_report(report, "after", "").accuracy)
    whole = against(limits, "original", request.gate.baseline is not None)
    original = _original(request, report, whole, progress)
    if any(limit.key.metric == "latency" for limit in limits):
        model = replace(model, latency=_timed(request, progress))
    return model, original


def _report_of(source: ModelSource) -> Report | None:
    """The report beside the weights of a bundle, if they are one and have one."""
    folder = source.path if source.path.is_dir() else source.path.parent
    if not is_bundle(source.path) or not (folder / "report.json").is_file():
        return None
    return read_report(folder)


def _counted(source: ModelSource, opened: Opened) -> Facts:
    """What needs no data and no clock."""
    module = opened.loaded.module
    try:
        macs = count_macs(module, opened.examples(2)).total
    except ModelError:  # some were exported for one sample
        macs = count_macs(module, opened.examples(1)).total
    return Facts(str(source.path), _bytes(source, opened), count_parameters(module), macs)


def _bytes(source: ModelSource, opened: Opened) -> int:
    """Of the file; of a bundle of an ONNX model those of its ONNX file, if it is there."""
    file = source.path / ONNX
    if opened.loaded.onnx is None or not file.is_file():
        return opened.loaded.bytes
    beside = file.with_name(f"{ONNX}.data")
    return file.stat().st_size + (beside.stat().st_size if beside.is_file() else 0)


def _evaluated(request: CheckRequest, opened: Opened, progress: Progress) -> Scored:
    if opened.data is None or request.data is None:
        raise AssertionError("an evaluation without data")
    if opened.unjudged is not None:
        raise opened.unjudged
    test = opened.data.test
    made = answers(opened.loaded.module, test, device=opened.device, progress=progress)
    found = accuracy_of(made, test.targets)
    told = (found.correct, found.count, found.accuracy, found.low, found.high)
    return Scored(*told, request.data.spec, right=tuple(made.right.tolist()))


def _original(
    request: CheckRequest, report: Report | None, limits: tuple[Limit, ...], progress: Progress
) -> Facts | None:
    """What limits have to know of the original: measured where it is named, else as the report says."""
    told = None if report is None else of_report(report, "before", str(report["input"]["path"]))
    metrics = {limit.key.metric for limit in limits} - {"latency"}  # which is timed in turns, with the model
    if not metrics:
        return told
    if request.against is not None:
        opened = open_model(request.against, request.settings, request.data, progress, judged=False)
        facts = _counted(request.against, opened)
        if request.data is not None and "accuracy" in metrics:
            return replace(facts, accuracy=_evaluated(request, opened, progress))
        same = report is not None and told is not None and report["input"]["sha256"] == opened.loaded.sha256
        return replace(facts, accuracy=told.accuracy) if same and told is not None else facts
    if told is None or "accuracy" not in metrics or request.data is None:
        return told
    source = _found(request, progress)
    if source is None:
        return told
    opened = open_model(source, request.settings, request.data, progress, judged=False)
    return replace(told, accuracy=_evaluated(request, opened, progress))


def _found(request: CheckRequest, progress: Progress) -> ModelSource | None:
    """The original that a bundle names, if it is there unchanged."""
    if not is_bundle(request.model.path):
        return None
    try:
        source, digest = original_of(request.model)
        if source.input_shapes is None:  # the data said it then, and the bundle says it now
            inputs = read_metadata(request.model.path)["inputs"]
            source = replace(
                source,
                input_shapes=tuple(tuple(each["shape"]) for each in inputs),
                input_types=tuple(map(recorded_type, inputs)),
            )
        opened = open_model(source, request.settings)
        if opened.loaded.sha256 != digest:
            raise InputError(f"{source.path} is not the file any more that it was")
    except CompressError as error:
        progress.step(f"Without the original: {error}. --against names it")
        return None
    return source


def _timed(request: CheckRequest, progress: Progress) -> Timed:
    """Latency now: in turns with the original where it is at hand, in ONNX Runtime where that is possible."""
    dense = request.against or _found(request, progress)
    chosen: Runtime = "torch" if request.runtime == "torch" or _on_gpu(request) else "onnxruntime"
    try:
        return _clocked(request, dense, chosen, progress)
    except ModelError as error:
        if request.runtime != "auto" or chosen == "torch":
            raise
        progress.warn(f"timed in PyTorch, as ONNX Runtime cannot: {error}")
        return _clocked(request, dense, "torch", progress)


def _on_gpu(request: CheckRequest) -> bool:
    return request.runtime == "auto" and request.settings.device.startswith("cuda")


def _clocked(request: CheckRequest, dense: ModelSource | None, runtime: Runtime, progress: Progress) -> Timed:
    first, second = (request.model, None) if dense is None else (dense, request.model)
    asked = MeasureRequest(first, second, runs=request.runs, runtime=runtime, settings=request.settings)
    found = measure_model(asked, progress)
    ratio = None if found.ratio is None else 1 / found.ratio
    return Timed(found.models[-1].p50, ratio, runtime, found.batch_size, found.threads)
