"""`compress prune`: the main job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import fx

from compress.budget import Budget
from compress.checkpoint.write import bundle_bytes, check_output, write_bundle
from compress.errors import InputError, ModelError
from compress.evaluate import Accuracy, evaluate
from compress.graph import Coupling, Program, macs
from compress.measure import LatencyPair, count_nonzero, count_parameters, latency_pair, tensor_bytes
from compress.pipeline.bundle import input_records, normalisation, provenance, reloaded, state_dict_file
from compress.pipeline.document import Facts, Side, document
from compress.pipeline.opening import Opened, analysed, open_model, traced
from compress.pipeline.slicing import Sliced, slice_units, slice_weights
from compress.pipeline.training import check_trainable, train
from compress.plan import Plan, plan_json
from compress.plugin import Context, granularities, make_plan, no_meaning
from compress.progress import Progress
from compress.recipe import prune_recipe, to_toml
from compress.recover import Compensation, Trained, compensate
from compress.registry import create
from compress.report import markdown, svg
from compress.request import PruneRequest
from compress.result import Pruned, Size
from compress.training import Training


def prune(request: PruneRequest, progress: Progress) -> Pruned:
    """Checkpoint to bundle: analyse, plan, slice, verify, refit, train, measure, write.

    Raises:
        InputError: Something about the request, the file or the data is wrong.
        ModelError: The model cannot be handled, or has nothing to prune.
        PluginError: The method broke its contract.
        Elsewhere: Where it trains, this is not the main one of several processes.
    """
    check_output(request.output, request.force)
    method, instance = create(request.method, request.options)
    request = _at_granularity(request, instance)
    if request.budget is not None and method.kind != "criterion":
        progress.warn(f"{method.name} may decide by itself how much goes, whatever --{request.budget.kind} says")
    opened = open_model(request.model, request.settings, request.data, progress)
    progress.step("Tracing")
    program = traced(opened)
    if request.training is not None:
        check_trainable(program, opened)
    coupling = analysed(program, progress, prune_outputs=request.prune_outputs, allow_frozen=request.allow_frozen)
    budget = Budget() if request.budget is None else Budget(request.budget.kind, request.budget.value)
    context = Context(
        *(coupling, budget, request.granularity, request.only, request.exclude, request.settings.seed, opened.data),
        progress=progress,
    )
    progress.step(f"Planning with {method.name}: {len(context.groups)} groups of units")
    plan = make_plan(instance, context)
    progress.step("Slicing and verifying")
    sliced = _slice(context, plan, opened, request, progress)
    refit = _refit(context, sliced, request, getattr(instance, "joint_refit", False), progress)
    module = sliced.module if refit is None else refit.module
    decides = request.budget is None and method.kind != "criterion"
    recipe = prune_recipe(request, asdict(instance), None if decides else asdict(budget))
    work = _Work(request, opened, program, coupling, context, sliced, refit, module, recipe)
    return _write(work, progress) if request.training is None else _trained(work, request.training, progress)


def _trained(work: _Work, training: Training, progress: Progress) -> Pruned:
    """The same with a training first, with the original as its teacher."""
    request = work.request
    teacher = None if training.distill == "none" else work.program.module
    done, file = train(
        work.module, work.opened, teacher, training=training, running=request.running, output=request.output,
        recipe=work.recipe, progress=progress,
    )  # fmt: skip
    result = _write(replace(work, module=done.module, trained=done), progress)
    file.remove()
    return result


def _at_granularity(request: PruneRequest, method: Any) -> PruneRequest:
    """The request, with the granularity of a method that has only one; refused before any work where it is wrong."""
    has = granularities(method)
    if has == ("weight",):
        if request.keep_module:
            raise InputError(f"--keep-module belongs to whole units, not to {request.method}", "leave it out")
        request = replace(request, granularity="weight")
    if request.granularity == "weight" and request.keep_module:
        raise InputError("--keep-module belongs to whole units", "leave out --granularity weight")
    if request.granularity not in has:
        raise InputError(*no_meaning(method))
    source, output = request.model.path.resolve(), request.output.resolve()
    if not request.force and output in (source, *source.parents) and output.exists():
        raise InputError(
            f"{request.output} holds the model itself, which would be replaced",
            "choose another --output DIR, or --force to replace it",
        )
    return request


def _slice(context: Context, plan: Plan, opened: Opened, request: PruneRequest, progress: Progress) -> Sliced:
    coupling = context.coupling
    for name, note in plan.notes.items():
        if "warning" in note:
            progress.warn(f"{name}: {note['warning']}")
    if plan.masks:
        return _masked(context, plan, request, progress)
    if plan.empty:
        raise ModelError(
            f"{request.method} prunes nothing on this model",
            f"change its options or the budget: `compress methods {request.method}` explains them",
        )
    module = opened.loaded.module
    if request.keep_module and isinstance(module, fx.GraphModule):
        progress.warn(f"{opened.loaded.path} holds a graph and no module of a class, so --keep-module changes nothing")
    sliced = slice_units(coupling, plan, module, request.keep_module, progress)
    if sliced.plan.empty:
        name, reason = next(iter(sliced.rolled_back.items()))
        raise ModelError(
            f"nothing could be removed. {name}: {reason}",
            "leave out --keep-module" if request.keep_module else "another method, or --exclude this layer",
        )
    return sliced


def _masked(context: Context, plan: Plan, request: PruneRequest, progress: Progress) -> Sliced:
    """Weights at zero, and without the units that are dead then; of all groups, unless the user named some."""
    scoped = request.only or request.exclude
    sliced = slice_weights(context.coupling, plan, [g.name for g in context.groups] if scoped else None)
    for name, problem in sliced.rolled_back.items():
        progress.warn(f"{name} keeps its size: {problem}")
    if sliced.plan.removed:
        return sliced
    weights = {name: (context.weight(name), mask) for name, mask in plan.masks.items()}
    if any(bool(((weight != 0) & ~mask).any()) for weight, mask in weights.values()):
        return sliced
    zeros = sum(int((weight == 0).sum()) for weight, _ in weights.values())
    held = sum(note.get("dead, but held", 0) for note in sliced.plan.notes.values())
    raise ModelError(
        f"nothing is dead: {zeros:,} of {sum(m.numel() for m in plan.masks.values()):,} prunable weights are zero, and "
        f"{sum(g.size for g in context.groups) - held:,} of {sum(g.size for g in context.groups):,} units are reached "
        f"and read" + (f"; the other {held:,} are held by the shapes of their layers" if held else ""),
        f"`compress methods {request.method}` explains its options; weights become zero with --method magnitude "
        "--granularity weight",
    )


def _refit(
    context: Context, sliced: Sliced, request: PruneRequest, together: bool, progress: Progress
) -> Compensation | None:
    """Closed-form compensation where training samples are at hand; masks would not survive it.

    Joint refits take minutes, for which a method has to ask.
    """
    train = None if context.data is None else context.data.train
    if not request.calibrate or train is None or sliced.plan.masks:
        return None
    inputs, _ = context.samples()
    progress.step(f"Refitting on {len(inputs)} training samples")
    result = compensate(
        context.coupling,
        sliced.alive,
        sliced.module,
        inputs,
        seed=request.settings.seed,
        together=together,
        progress=progress,
    )
    progress.detail(
        f"{len(result.refitted)} of {len(result.refitted) + len(result.skipped)} layers refitted, "
        f"{len(result.together)} of them together with those before"
    )
    return result


@dataclass(frozen=True)
class _Work:
    """What is known when everything is decided and only measuring and writing are left."""

    request: PruneRequest
    opened: Opened
    program: Program
    coupling: Coupling
    context: Context
    sliced: Sliced
    refit: Compensation | None
    module: fx.GraphModule
    recipe: Mapping[str, Any]
    trained: Trained | None = None


def _write(work: _Work, progress: Progress) -> Pruned:
    """Prove that the result loads, measure it, and put bundle and report in their place at once."""
    opened, request = work.opened, work.request
    plan = plan_json(work.sliced.plan, work.coupling)
    origin = provenance(opened, request.settings.seed)
    weights = bundle_bytes(work.module, input_records(opened), plan, origin, normalisation(opened))
    progress.step("Loading the result in a new process")
    reload = reloaded(Program(work.module, work.program.inputs, work.program.dynamic_batch), weights, opened)
    progress.step("Measuring")
    before, after, speed = _measured(work, len(weights), progress)
    facts = Facts(
        request, opened, work.coupling, work.sliced, work.refit, work.recipe, before, after, speed, reload,
        trained=work.trained,
    )  # fmt: skip
    report = document(facts)
    write_bundle(
        request.output,
        program_module=work.module,
        inputs=input_records(opened),
        plan_json=plan,
        report=report,
        recipe_toml=to_toml(work.recipe),
        report_md=markdown(report),
        provenance=origin,
        force=request.force,
        metadata=normalisation(opened),
        files={**_module_file(work), **_pictures(work.sliced.plan)},
    )
    return _result(work, before, after, report)


def _module_file(work: _Work) -> dict[str, bytes]:
    """Under ``--keep-module`` the weights of the user's own module, sliced in place."""
    in_place = work.sliced.in_place
    if not work.request.keep_module or in_place is None or in_place.module is None:
        return {}
    return {"module.safetensors": state_dict_file(in_place.module, work.module)}


def _pictures(plan: Plan) -> dict[str, bytes]:
    return {f"figures/{figure.name}.svg": svg(figure).encode() for figure in plan.figures}


def _result(work: _Work, before: Side, after: Side, report: dict[str, Any]) -> Pruned:
    units = sum(g.size for g in work.context.groups)
    gone = sum(len(u) for u in work.sliced.plan.removed.values())
    return Pruned(
        bundle=work.request.output,
        before=_size(before),
        after=_size(after),
        units_before=units,
        units_after=units - gone,
        error=work.sliced.error,
        report=report,
    )


def _size(side: Side) -> Size:
    return Size(side.parameters, side.macs, side.bytes, side.accuracy, side.nonzero)


def _measured(work: _Work, written: int, progress: Progress) -> tuple[Side, Side, LatencyPair]:
    opened = work.opened
    original = work.program.module
    device = opened.device
    inputs = tuple(x.to(device) for x in opened.examples(1 if work.program.dynamic_batch else 2))
    speed = latency_pair(
        original.to(device), work.module.to(device), inputs, threads=work.request.settings.threads or 1
    )
    accuracy: list[Accuracy | None] = [None, None]
    if opened.data is not None:
        accuracy = [evaluate(m, opened.data.test, device=device, progress=progress) for m in (original, work.module)]
    original.to("cpu")
    work.module.to("cpu")
    torch.manual_seed(work.request.settings.seed)
    counts = (macs(work.coupling), macs(work.coupling, work.sliced.alive))
    files = ((opened.loaded.path.name, opened.loaded.bytes), ("model.safetensors", written))
    nominal = _nominal(work)
    before, after = (
        Side(count_parameters(m), count_nonzero(m), macs_, tensor_bytes(m), file, accuracy_, kept)
        for m, macs_, file, accuracy_, kept in zip(
            (original, work.module), counts, files, accuracy, nominal, strict=True
        )
    )
    return before, after, speed


def _nominal(work: _Work) -> tuple[int | None, int | None]:
    """Weights of the masked tensors that are not zero, before and after, whatever is cut out of them besides."""
    masks = work.sliced.plan.masks
    if not masks:
        return None, None
    nonzero = {name: work.context.weight(name) != 0 for name in masks}
    kept = sum(int((nonzero[name] & mask).sum()) for name, mask in masks.items())
    return sum(int(each.sum()) for each in nonzero.values()), kept
