"""A method that prunes while the network trains, inside `compress prune`: train, fold, analyse anew, plan."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx, nn

from compress.budget import Budget, everything, size_of
from compress.errors import InputError
from compress.graph import analyse
from compress.graph.names import graph_tensors
from compress.pipeline.filesize import file_size
from compress.pipeline.opening import Opened
from compress.pipeline.training import train
from compress.plan import Plan
from compress.plugin import Context
from compress.progress import Progress
from compress.recover import InSession, StateFile, Trained
from compress.request import PruneRequest
from compress.retrain import Retrain, Session, folded, plan_of, start_session
from compress.training import Training
from compress.wording import plural


@dataclass(frozen=True)
class Retrained:
    """A network that was trained for its slice.

    Attributes:
        context: The trained network under analysis; the slice is compared with it.
        opened: The user's model with the trained weights, where it can hold them.
        plan: What goes.
        trained: The training.
        file: Its state, to be removed when the result is in its place.
    """

    context: Context
    opened: Opened
    plan: Plan
    trained: Trained
    file: StateFile


def check_retrain(request: PruneRequest) -> Training:
    """See before any work that there is a training to prune in; its settings.

    Raises:
        InputError: There are no epochs or no data, or what may go has to stay for a training.
    """
    if request.data is None:
        raise InputError(f"{request.method} prunes while the network trains, and there is no data", "add --data")
    if request.prune_inputs:
        raise InputError(
            f"{request.method} prunes while the network trains, which takes all inputs", "leave out --prune-inputs"
        )
    if request.prune_outputs:
        raise InputError(
            f"{request.method} prunes while the network trains to tell all classes apart, each by an output of its own",
            "leave out --prune-outputs",
        )
    if request.training is None:
        raise InputError(f"{request.method} prunes while the network trains: 0 epochs are none", "--epochs 10")
    return request.training


def retrain(
    method: Retrain,
    context: Context,
    opened: Opened,
    request: PruneRequest,
    recipe: Mapping[str, Any],
    progress: Progress,
) -> Retrained:
    """Train the network with the method at its side, and ask it what goes.

    Raises:
        InputError: Data, settings or state are wrong, or the training broke off before the method was done.
        ModelError: The network cannot be trained, or the method has nothing to prune in it.
        PluginError: The method broke its contract.
        Elsewhere: This is not the main one of several processes.
    """
    training = check_retrain(request)
    _check_budget(context)
    progress.step(f"Pruning with {request.method} in training: {plural(len(context.groups), 'group')} of units")
    session = start_session(method, _from_scratch(context) if request.from_scratch else context)
    if request.keep_module and not session.same_operations:
        raise InputError(
            f"--keep-module: {request.method} leaves a network of other operations than its class has",
            "leave out --keep-module",
        )
    teacher = None if training.distill == "none" else context.module
    trained, file = train(
        session.network, opened, teacher, training=training, running=request.running, output=request.output,
        recipe=recipe, progress=progress, hooks=(InSession(session),),
    )  # fmt: skip
    with kept(file, progress):
        return _planned(session, trained, file, context, opened, request, progress)


@contextmanager
def kept(file: StateFile, progress: Progress) -> Iterator[None]:
    """Says where a training is that is over, if what follows it fails."""
    try:
        yield
    except Exception:
        progress.step(f"The training is kept in {file.folder}: the same command with --resume goes on from there")
        raise


def _planned(
    session: Session,
    trained: Trained,
    file: StateFile,
    context: Context,
    opened: Opened,
    request: PruneRequest,
    progress: Progress,
) -> Retrained:
    """The trained network as the session wants it sliced, and what goes of it."""
    program = folded(session, trained.module, context.coupling.program)
    coupling = analyse(program, prune_outputs=request.prune_outputs, allow_frozen=request.allow_frozen)
    # The trained network may have other labels than the one that came in, of which a budget is a fraction
    size = file_size(coupling, opened, request.settings.seed) if context.budget.kind == "bytes" else None
    after = replace(context, coupling=coupling, size=size, only=session.only or context.only, budget=_absolute(context))
    after.notes.update(context.notes)
    progress.step("Planning on the trained network")
    plan = plan_of(session, after)
    module = _with_weights(opened.loaded.module, program.module)
    return Retrained(after, replace(opened, loaded=replace(opened.loaded, module=module)), plan, trained, file)


def _from_scratch(context: Context) -> Context:
    """The same network with weights as layers start with them."""
    network = context.copy()
    own = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    with torch.no_grad():
        for name, tensor in context.fresh(context.generator()).items():
            own[name].copy_(tensor)
    return context.on(network)


def _check_budget(context: Context) -> None:
    """Raises InputError for a budget that the network meets as it came, before it is trained for nothing."""
    budget = context.budget
    if not context.has_budget or budget.kind in ("ratio", "latency"):
        return
    whole = _whole(context)
    if budget.limit(whole) >= whole:
        raise InputError(
            f"--{budget.kind} {budget.value:,.0f}: the whole network has {whole:,.0f}, so nothing would go",
            "a smaller number, or a fraction such as 0.5",
        )


def _absolute(context: Context) -> Budget:
    """The budget as a number, where it is a fraction of what it counts in the network that came in."""
    budget = context.budget
    if budget.kind in ("ratio", "latency"):
        return budget
    return Budget(budget.kind, max(1.0, budget.limit(_whole(context))))


def _whole(context: Context) -> float:
    """What a budget counts in the network that came in; it is of a kind that counts."""
    count = context.size or size_of(context.coupling, context.budget.kind)
    return count(everything(context.coupling))


def _with_weights(module: nn.Module, network: fx.GraphModule) -> nn.Module:
    """The user's module with the trained tensors; the graph itself where they have other names or shapes."""
    newer = {name: tensor.detach() for name, tensor in (*network.named_parameters(), *network.named_buffers())}
    module = copy.deepcopy(module)
    own = graph_tensors(module)
    if any(name not in own or own[name].shape != tensor.shape for name, tensor in newer.items()):
        return network
    with torch.no_grad():
        for name, tensor in newer.items():
            own[name].copy_(tensor)
    return module
