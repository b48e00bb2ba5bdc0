"""`compress prune`: the main job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import fx, nn

from compress.checkpoint.write import check_output
from compress.errors import Elsewhere, InputError, ModelError
from compress.evaluate import evaluate
from compress.graph import Coupling, Program, parameters
from compress.graph.names import graph_tensors
from compress.pipeline.bundle import check_not_within
from compress.pipeline.opening import Opened, analysed, open_model, traced
from compress.pipeline.planning import check_widths, context_of, planned
from compress.pipeline.quick import Timed, plan_within, with_latency
from compress.pipeline.refitting import refit_of, refitted
from compress.pipeline.retrain import check_retrain, kept, retrain
from compress.pipeline.rounds import Refit
from compress.pipeline.slicing import Sliced, slice_units, slice_weights
from compress.pipeline.training import check_trainable, train
from compress.pipeline.unfit import check_network
from compress.pipeline.writing import Work, write
from compress.plan import Plan
from compress.plugin import Context, granularities, no_meaning
from compress.progress import Progress
from compress.recipe import prune_recipe
from compress.recover.launch import from_main, is_main
from compress.registry import create
from compress.request import PruneRequest
from compress.result import Pruned
from compress.training import Training
from compress.wording import plural


def prune(request: PruneRequest, progress: Progress) -> Pruned:
    """Checkpoint to bundle: analyse, plan, slice, verify, refit, train, measure, write.

    Raises:
        InputError: Something about the request, the file or the data is wrong.
        ModelError: The model cannot be handled, or has nothing to prune.
        PluginError: The method broke its contract.
        Elsewhere: This is not the main one of several processes; it has trained with it, where that was asked.
    """
    if request.training is None and not is_main():
        raise Elsewhere("one process prunes alone")
    check_output(request.output, request.force)
    method, instance = create(request.method, request.options)
    request = _checked(request, method.kind, instance, progress)
    start, context = _begun(request, method.kind, instance, progress)
    if method.kind == "retrain":
        return _retrained(start, instance, context, progress)
    together = request.refit == "joint" or (request.refit == "auto" and getattr(instance, "joint_refit", False))
    progress.step(f"Planning with {method.name}: {plural(len(context.groups), 'group')} of units")
    context, plan = _decided(start, instance, context, refit_of(context, request, together), progress)
    work = _sliced(start, context, from_main(plan, start.opened.device), progress, together)
    return write(work, progress) if request.training is None else _trained(work, request.training, progress)


@dataclass(frozen=True)
class _Start:
    """What is known before anything is decided."""

    request: PruneRequest
    opened: Opened
    program: Program
    recipe: Mapping[str, Any]
    kind: str
    original: Coupling
    units: int


def _checked(request: PruneRequest, kind: str, method: Any, progress: Progress) -> PruneRequest:
    """The request as the method can carry it out; refused before any work where it cannot."""
    request = _at_granularity(request, method)
    if request.granularity == "weight" and request.refit == "joint":
        raise InputError(
            "--refit joint belongs to whole units: layers with zeros are refitted one by one", "leave out --refit joint"
        )
    check_not_within(request.model.path, request.output, request.force)
    if kind == "retrain":
        request = replace(request, training=check_retrain(request))
    check_widths(request, kind)
    if request.budget is not None and kind == "pruner":
        progress.warn(f"{request.method} may decide by itself how much goes, whatever --{request.budget.kind} says")
    return request


def _begun(request: PruneRequest, kind: str, method: Any, progress: Progress) -> tuple[_Start, Context]:
    """The model open, traced and analysed, and what the method will see of it."""
    judged = request.training is not None
    opened = open_model(request.model, request.settings, request.data, progress, judged=judged)
    if opened.unjudged is not None:
        progress.warn(f"no accuracy is reported: {opened.unjudged}")
    if request.data is None and kind == "criterion":
        progress.step("Without --data layers are not refitted, which costs accuracy, and how much is not measured")
    progress.step("Tracing")
    program = traced(opened)
    _tell_unread(opened, program, progress)
    if request.training is not None:
        check_trainable(program, opened)
    check_network(program, opened)
    coupling = analysed(
        program,
        progress,
        prune_outputs=request.prune_outputs,
        prune_inputs=request.prune_inputs,
        allow_frozen=request.allow_frozen,
    )
    decides = request.budget is None and kind != "criterion"
    context = context_of(request, opened, coupling, progress, has_budget=not decides)
    budget = None if decides else {"kind": context.budget.kind, "value": context.budget.value}
    recipe = prune_recipe(request, asdict(method), budget, context.allocation.round_to)
    units = sum(group.size for group in context.groups)
    return _Start(request, opened, program, recipe, kind, coupling, units), context


def _tell_unread(opened: Opened, program: Program, progress: Progress) -> None:
    """Parameters that `compress inspect` counts and the network does without, such as a head for the training alone."""
    whole, traced = (dict(graph_tensors(m)) for m in (opened.loaded.module, program.module))
    unread = {n: t for n, t in whole.items() if isinstance(t, nn.Parameter) and n not in traced}
    count = sum({id(t): t.numel() for t in unread.values()}.values())
    if count:
        names = list(unread)[:3] + ([f"{len(unread) - 3} more"] if len(unread) > 3 else [])
        progress.step(f"Left out are {count:,} parameters that no output depends on: {', '.join(names)}")


def _retrained(start: _Start, method: Any, context: Context, progress: Progress) -> Pruned:
    """The same by a method that prunes while the network trains."""
    request = start.request
    done = retrain(method, context, start.opened, request, start.recipe, progress)
    with kept(done.file, progress):
        work = _sliced(replace(start, opened=done.opened), done.context, done.plan, progress)
        result = write(replace(work, trained=done.trained), progress)
    done.file.remove()
    return result


def _decided(start: _Start, method: Any, context: Context, refit: Refit, progress: Progress) -> tuple[Context, Plan]:
    """What goes, and the context with the budget that this was decided for."""
    request = start.request

    def decide(context: Context) -> Plan:
        return planned(method, start.kind, context, request.steps, refit, progress)

    if context.budget.kind != "latency" or request.budget is None or start.kind != "criterion":
        return context, decide(context)
    if not is_main():  # the main process times alone, and hands on what it found
        return context, Plan()
    kept = Timed.read(request)
    if kept is not None:
        return context.changed(budget=kept.budget), Plan(kept.removed, notes=context.notes)
    context, model = with_latency(context, request, progress)
    plan = plan_within(request.budget.value, context, model, decide, progress)
    Timed(context.budget, plan.removed).keep(request)
    return context, plan


def _sliced(start: _Start, context: Context, plan: Plan, progress: Progress, together: bool = False) -> Work:
    """The plan carried out and refitted; ``start.program`` is the network as it came, measured beside the result."""
    request = start.request
    progress.step("Slicing and verifying")
    sliced = _slice(context, plan, start, progress)
    masked = bool(sliced.plan.masks)
    same = masked and not _zeroes(context, sliced.plan)  # nothing to make up for: what is dead goes exactly
    refit = None if same else refitted(context, sliced.alive, sliced.module, request, together, keep_zeros=masked)
    module = sliced.module if refit is None else refit.module
    return Work(
        request, start.opened, start.program, start.original, start.units, context, sliced, refit, module,
        start.recipe, start.kind,
    )  # fmt: skip


def _trained(work: Work, training: Training, progress: Progress) -> Pruned:
    """The same with a training first, with the original as its teacher."""
    request, data = work.request, work.opened.data
    before = evaluate(work.module, data.test, device=work.opened.device) if data is not None and is_main() else None
    teacher = None if training.distill == "none" else work.program.module
    with Timed.needed(request):
        done, file = train(
            work.module, work.opened, teacher, training=training, running=request.running, output=request.output,
            recipe=work.recipe, progress=progress,
        )  # fmt: skip
        result = write(replace(work, module=done.module, trained=done, untrained=before), progress)
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
    return request


def _slice(context: Context, plan: Plan, start: _Start, progress: Progress) -> Sliced:
    coupling, request, opened = context.coupling, start.request, start.opened
    for name, note in plan.notes.items():
        if "warning" in note:
            progress.warn(f"{name}: {note['warning']}")
    if plan.masks:
        return _masked(context, plan, start, progress)
    after, before = parameters(coupling), parameters(start.original)
    if plan.empty and after > before:
        raise ModelError(
            f"{request.method} takes no unit out, and what it adds makes {after:,} parameters of {before:,}",
            "a smaller budget; --params 0.7 counts what is added as well",
        )
    if plan.empty and after == before:
        raise ModelError(
            f"{request.method} prunes nothing on this model",
            f"change its options or the budget: `compress methods {request.method}` explains them",
        )
    module = opened.loaded.module
    if request.keep_module and isinstance(module, fx.GraphModule):
        progress.warn(f"{opened.loaded.path} holds a graph and no module of a class, so --keep-module changes nothing")
    sliced = slice_units(coupling, plan, module, request.keep_module, progress)
    if sliced.plan.empty and not plan.empty:
        name, reason = next(iter(sliced.rolled_back.items()))
        raise ModelError(
            f"nothing could be removed. {name}: {reason}",
            "leave out --keep-module" if request.keep_module else "another method, or --exclude this layer",
        )
    return sliced


def _masked(context: Context, plan: Plan, start: _Start, progress: Progress) -> Sliced:
    """Weights at zero, and without the units that are dead then; of all groups, unless the user named some.

    Raises:
        ModelError: Nothing changes. What was masked while it was trained has changed before.
    """
    request = start.request
    scoped = request.only or request.exclude
    sliced = slice_weights(context.coupling, plan, [g.name for g in context.groups] if scoped else None)
    for name, problem in sliced.rolled_back.items():
        progress.warn(f"{name} keeps its size: {problem}")
    if sliced.plan.removed or start.kind == "retrain" or _zeroes(context, plan):
        return sliced
    raise _nothing_dead(context, sliced.plan, start)


def _nothing_dead(context: Context, plan: Plan, start: _Start) -> ModelError:
    zeros = sum(int((context.weight(name) == 0).sum()) for name in plan.masks)
    weights = sum(mask.numel() for mask in plan.masks.values())
    held = sum(note.get("dead, but held", 0) for note in plan.notes.values())
    units = sum(g.size for g in context.groups)
    text = (
        f"no weight becomes zero, and nothing is dead: {zeros:,} of {weights:,} prunable weights are zero, and "
        f"{units - held:,} of {plural(units, 'unit')} are reached and read"
    )
    text += f"; the other {held:,} are held by the shapes of their layers" if held else ""
    command = f"`compress methods {start.request.method}`"
    if start.kind == "criterion":
        return ModelError(text, f"change its options or the budget: {command} explains them")
    hint = f"{command} explains its options; weights become zero with --method magnitude --granularity weight"
    return ModelError(text, hint)


def _zeroes(context: Context, plan: Plan) -> bool:
    """Whether masks take a weight that is not zero already."""
    return any(bool(((context.weight(name) != 0) & ~mask).any()) for name, mask in plan.masks.items())
