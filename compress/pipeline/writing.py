"""The end of `compress prune`: prove that the result loads, measure it, and write bundle and report at once."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import fx

from compress.budget import Outcome
from compress.counting import count_nonzero, count_parameters, tensor_bytes
from compress.evaluate import Accuracy, evaluate
from compress.graph import Coupling, Program, macs
from compress.latency import counted, measured_pair
from compress.measure import LatencyPair, latency_pair
from compress.pipeline.bundle import Content, reloaded
from compress.pipeline.document import Facts, Side, document
from compress.pipeline.doubts import doubts, unvarying
from compress.pipeline.module_file import module_file
from compress.pipeline.opening import Opened
from compress.pipeline.planning import reached, tell
from compress.pipeline.sliced_onnx import SlicedOnnx, sliced_onnx
from compress.pipeline.slicing import Sliced
from compress.plan import plan_json
from compress.plugin import Context
from compress.progress import Progress
from compress.recover import Compensation, Trained
from compress.report import html, svg
from compress.request import PruneRequest
from compress.result import Pruned, Size
from compress.wording import plural

MICRO = 1e6
KERNEL = 4  # channels; ONNX Runtime takes other kernels for convolutions of 16 and more that are no multiple of it


@dataclass(frozen=True)
class Work:
    """What is known when everything is decided and only measuring and writing are left."""

    request: PruneRequest
    opened: Opened
    program: Program
    original: Coupling  # as it came; that of the context is of the trained network where a method has changed it
    units: int  # of it, that may go
    context: Context
    sliced: Sliced
    refit: Compensation | None
    module: fx.GraphModule
    recipe: Mapping[str, Any]
    kind: str  # of the method
    trained: Trained | None = None
    untrained: Accuracy | None = None  # of the smaller network before that


def write(work: Work, progress: Progress) -> Pruned:
    """Prove that the result loads, measure it, and put bundle and report in their place at once."""
    opened, request = work.opened, work.request
    program = Program(work.module, work.program.inputs, work.program.dynamic_batch)
    plan = plan_json(work.sliced.plan, work.context.coupling)
    content = Content(program, opened, plan, request.settings.seed)
    weights = content.weights()
    progress.step("Loading the result in a new process")
    reload = reloaded(program, weights, opened)
    with sliced_onnx(work.module, opened, work.program, progress) as onnx:
        return _written(work, content, len(weights), reload, onnx, progress)


def _written(work: Work, content: Content, size: int, reload: float, onnx: SlicedOnnx, progress: Progress) -> Pruned:
    """Measure what was proved to load, ``size`` bytes of weights, and write everything."""
    opened, request = work.opened, work.request
    examples = opened.examples(int(work.program.inputs[0].shape[0]), seed=1)
    module = module_file(work.sliced.in_place, work.module, examples) if request.keep_module else None
    progress.step("Measuring")
    before, after, speed = _measured(work, {"model.safetensors": size, **onnx.sizes}, progress)
    budget = _reached(work, size, speed)
    limited = tell(budget, work.sliced, progress) if budget is not None and work.kind == "criterion" else None
    doubted = (*doubts(before, after, work.trained), *unvarying(work.program.module, work.module, work.program.inputs))
    for each in doubted:
        progress.warn(each)
    unmeasured = () if opened.unjudged is None else (f"no accuracy is reported: {opened.unjudged}",)
    facts = Facts(
        request, opened, work.context.coupling, work.sliced, work.refit, work.recipe, before, after, speed, reload,
        trained=work.trained, budget=budget, limited=limited, module=None if module is None else module[1],
        onnx_error=onnx.error, warnings=(*onnx.warnings, *doubted, *unmeasured), untrained=work.untrained,
    )  # fmt: skip
    report = document(facts)
    if after.parameters > before.parameters:
        progress.warn(
            f"the result has {plural(after.parameters, 'parameter')}, and what came in {before.parameters:,}: a budget "
            "such as --params 0.5 counts in the result"
        )
    _tell_precision(opened, request.output, progress)
    if work.kind != "retrain" and request.granularity == "unit":  # the others cannot be told to round
        _tell_odd_widths(report, request, progress)
    drawings = {f"figures/{figure.name}.svg": svg(figure) for figure in work.sliced.plan.figures}
    pages = {"report.html": html(report, drawings), **drawings}
    files: dict[str, bytes | Path] = {
        **({} if module is None else {module[1].file: module[0]}),
        **{name: text.encode() for name, text in pages.items()},
        **onnx.files,
    }
    content.write(request.output, report, work.recipe, files, request.force)
    return _result(work, before, after, report)


def _tell_precision(opened: Opened, output: Path, progress: Progress) -> None:
    """A file of 16 bits is compared with a bundle of 32."""
    for kind, precision in (("float16", "fp16"), ("bfloat16", "bf16")):
        if any(note.startswith(f"{kind} in the file, float32") for note in opened.loaded.notes):
            command = f"compress export {shlex.quote(str(output))} --safetensors --quantize {precision}"
            progress.step(
                f"{opened.loaded.path.name} holds {kind} and the bundle float32, so their sizes do not compare; "
                f"`{command}` stores it in 16 bits again"
            )


def _tell_odd_widths(report: Mapping[str, Any], request: PruneRequest, progress: Progress) -> None:
    """A narrower layer may run slower than the wider one where its kernels work on several channels at once."""
    narrower = [each["after"] for each in report["layers"] if each["after"] < each["before"]]
    odd = sum(after % KERNEL != 0 for after in narrower)
    if odd and request.round_to == 1:
        progress.step(
            f"{odd} of {plural(len(narrower), 'narrower layer')} have no multiple of {KERNEL} outputs, which some "
            "runtimes run slower than more of them; --round-to 8 or auto avoids that"
        )


def _result(work: Work, before: Side, after: Side, report: dict[str, Any]) -> Pruned:
    gone = sum(len(u) for u in work.sliced.plan.removed.values())
    return Pruned(
        bundle=work.request.output,
        before=_size(before),
        after=_size(after),
        units_before=work.units,
        units_after=work.units - gone,
        error=work.sliced.error,
        report=report,
    )


def _size(side: Side) -> Size:
    return Size(side.parameters, side.macs, side.bytes, side.accuracy, side.nonzero)


def _measured(work: Work, written: Mapping[str, int], progress: Progress) -> tuple[Side, Side, LatencyPair]:
    opened = work.opened
    original = work.program.module
    device = opened.device
    batch = 1 if work.program.dynamic_batch else int(work.program.inputs[0].shape[0])
    inputs = tuple(x.to(device) for x in opened.examples(batch))
    threads = work.request.settings.threads or 1
    if work.context.budget.kind == "latency":
        speed = measured_pair(original, work.module, tuple(x.cpu() for x in inputs), work.request.target, threads)
    else:
        speed = latency_pair(original.to(device), work.module.to(device), inputs, threads=threads)
    original.to(device)
    work.module.to(device)
    accuracy: list[Accuracy | None] = [None, None]
    if opened.data is not None and opened.unjudged is None:
        accuracy = [evaluate(m, opened.data.test, device=device, progress=progress) for m in (original, work.module)]
    original.to("cpu")
    work.module.to("cpu")
    torch.manual_seed(work.request.settings.seed)
    counts = (macs(work.original), macs(work.context.coupling, work.sliced.alive))
    files = ({opened.loaded.path.name: opened.loaded.bytes}, written)
    nominal = _nominal(work)
    before, after = (
        Side(count_parameters(m), count_nonzero(m), macs_, tensor_bytes(m), file, accuracy_, kept)
        for m, macs_, file, accuracy_, kept in zip(
            (original, work.module), counts, files, accuracy, nominal, strict=True
        )
    )
    return before, after, speed


def _reached(work: Work, size: int, speed: LatencyPair) -> Outcome | None:
    """What the budget came to; of a latency what was measured, as a run that was resumed predicts none."""
    budget, given = work.context.budget, work.request.budget
    if budget.kind != "latency" or given is None:
        return reached(work.context, work.sliced, size)
    return Outcome(budget.kind, budget.value, MICRO * counted(speed, budget.value / given.value / MICRO, given.value))


def _nominal(work: Work) -> tuple[int | None, int | None]:
    """Weights of the masked tensors that are not zero, before and after, whatever is cut out of them besides.

    Before is the network that came in: one that was trained for its slice has the zeros already.
    """
    masks = work.sliced.plan.masks
    if not masks:
        return None, None
    original = work.program.module
    came = dict(original.named_parameters(remove_duplicate=False)) | dict(original.named_buffers())
    trained = {name: work.context.weight(name) for name in masks}
    whole = sum(int(torch.count_nonzero(came.get(name, weight))) for name, weight in trained.items())
    return whole, sum(int(((weight != 0) & masks[name]).sum()) for name, weight in trained.items())
