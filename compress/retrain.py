"""Methods that prune while the network trains: what such a plugin offers, and what it sees of the training.

The core runs its one training loop on ``session.network``, calls the session beside every step and epoch, and slices
the network of the best epoch by the session's plan. A session may put parameters and operations of its own into the
network's graph; `Session.fold` takes them out again or leaves what belongs to the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor, fx

from compress.errors import CompressError, ModelError, PluginError
from compress.graph import Program, trace
from compress.graph.double import leaves
from compress.graph.verify import compare
from compress.plan import Plan
from compress.progress import Progress

if TYPE_CHECKING:
    from compress.plugin import Context

_FOLDED = 1e-4  # largest relative difference of a folded network, in its own precision


class Loop(Protocol):
    """The training loop as a session sees it.

    Attributes:
        network: What is trained; its tensors may be changed in place, on the device they are on.
        optimizer: A torch optimizer over all parameters that require gradients; those of one dim do not decay,
            nor do those that the session names.
        step: Steps that are complete.
        total: Steps in all.
        steps_per_epoch: Steps of one epoch.
        history: By epoch that was judged, from 0: losses and accuracy, as they go into the report.
        progress: Is told what happens; silent in all processes but the main one.
    """

    network: fx.GraphModule
    optimizer: Any
    step: int
    total: int
    steps_per_epoch: int
    history: list[dict[str, Any]]
    progress: Progress

    @property
    def epoch(self) -> int:
        """Epochs that are complete."""
        ...

    def rate(self, step: int) -> float:
        """The learning rate that the schedule has for a step."""
        ...

    def change_optimizer(self, **settings: Any) -> None:
        """Go on with a new optimizer that has seen no step, made of the settings of the training with these changed.

        They are optimizer ("sgd", "adamw"), lr, momentum, nesterov and weight_decay. A resumed training has it at once.
        """
        ...

    def summed(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over all processes, each of which has to ask for it."""
        ...

    def validated(self) -> tuple[float, float]:
        """Accuracy and mean loss of the network as it is now on the samples that are kept out."""
        ...


class Session:
    """One training of a retrain method. All methods but `plan` do nothing unless overridden.

    With several processes each has a session of its own, which sees equal tensors and has to do the same.

    Args:
        context: The network as it came.

    Attributes:
        network: What the core trains: a copy of the context's network, changed as the method needs it.
        only: Globs of the layers that this method may prune, where those are fewer than the context's: they alone are
            what a budget is measured on.
        same_operations: Whether `fold` gives a network of the operations that came in, which alone its class can hold.
        approximation: What `fold` loses, measured, where it only comes near to the trained network; a warning.
    """

    only: tuple[str, ...] = ()
    same_operations: bool = True
    approximation: str = ""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.network = context.copy()

    def undecayed(self) -> Iterable[str]:
        """Names of the network's parameters that weight decay leaves alone, beside those of one dim, which it never
        reaches. Asked once, before the optimizer is made."""
        return ()

    def begin(self, loop: Loop) -> None:
        """Before everything else that the loop calls, also after `load`; epoch 0 is judged after it."""

    def before_step(self, loop: Loop) -> None:
        """The learning rate of step ``loop.step`` is set; the batch has not been run."""

    def penalty(self, loop: Loop) -> Tensor | None:
        """What is added to the mean loss of a step: a scalar with a gradient."""
        return None

    def after_step(self, loop: Loop) -> None:
        """The optimizer has made the step. What is to be zero has to be set to zero here, as momentum revives it."""

    def after_epoch(self, loop: Loop) -> None:
        """Before the epoch is judged on the validation samples."""

    def ready(self, loop: Loop) -> bool:
        """Whether the network may be the result now: an epoch for which this is not so is not kept.

        The best of the epochs that are ready is the result, so from the first one on whatever `plan` needs has to be
        in the network's tensors or stay as it is.
        """
        return True

    def finished(self, loop: Loop) -> str:
        """Why the training may end with this epoch, which has been judged and is in the history; "" goes on.

        It ends where some epoch was ready.
        """
        return ""

    def numbers(self, loop: Loop) -> Mapping[str, float]:
        """What the training history tells of an epoch beside its losses; epoch 0 is before the first step."""
        return {}

    def state(self) -> dict[str, Any]:
        """What an interrupted training has to keep: tensors, numbers, texts, and lists and dicts of them."""
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`."""

    def fold(self, network: fx.GraphModule) -> fx.GraphModule:
        """The network that is to be sliced, made of the trained one: it computes the same in evaluation.

        Where it does not, on purpose, ``approximation`` has to be set.
        """
        return network

    def plan(self, context: Context) -> Plan:
        """Units to remove, weights to mask, or both; ``context`` is that of the folded network."""
        raise NotImplementedError("a session ends in a plan")


@runtime_checkable
class Retrain(Protocol):
    """Prunes while the network trains."""

    def start(self, context: Context) -> Session:
        """A session on a network that has not been trained yet."""
        ...


class guarded:  # a class, as a generator takes several times as long, three times in every step
    """Whatever a plugin raises, as an error that names it; ours pass.

    Raises:
        PluginError: It failed.
    """

    def __init__(self, plugin: Any) -> None:
        self.plugin = plugin

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, CompressError):  # foreign code may raise anything
            reason = f"{type(error).__name__}: {error}"
            hint = "run again with --debug for the traceback"
            raise PluginError(f"{type(self.plugin).__name__} failed: {reason}", hint) from error


def start_session(method: Retrain, context: Context) -> Session:
    """The session of a method.

    Raises:
        PluginError: The method breaks the contract or fails.
    """
    with guarded(method):
        session = method.start(context)
    if not isinstance(session, Session):
        raise PluginError(f"{type(method).__name__}.start returned {type(session).__name__}, not a Session")
    if session.network is context.module:
        raise PluginError(f"{type(method).__name__}: a session trains a copy, not the network of its context")
    return session


def folded(session: Session, network: fx.GraphModule, before: Program) -> Program:
    """The trained network as the session wants it sliced; traced anew where operations were left in it.

    Args:
        session: Of the training.
        network: Its result.
        before: The network as it came.

    Raises:
        ModelError: It takes batches of one size alone where the network took any.
        PluginError: The session fails, or what it gives does not compute what the trained network computes.
    """
    with guarded(session):
        made = session.fold(network)
    if not isinstance(made, fx.GraphModule):
        raise PluginError(f"{type(session).__name__}.fold returned {type(made).__name__}, not a GraphModule")
    if made is not network and not session.approximation:
        with torch.no_grad():
            expected, got = (leaves(module(*(x.clone() for x in before.inputs))) for module in (network, made))
        outcome = compare(expected, got, _FOLDED)
        if not outcome.passed:
            what = outcome.problem or f"by {outcome.error:.1e}"
            raise PluginError(f"{type(session).__name__}.fold: the result differs from the trained network: {what}")
    if _calls(made) == _calls(before.module):
        return replace(before, module=made)
    program = trace(made, before.inputs)
    if before.dynamic_batch and not program.dynamic_batch:
        raise ModelError("the trained network takes batches of one size alone, and the original takes any")
    return program


def _calls(module: fx.GraphModule) -> list[tuple[str, Any]]:
    return [(node.op, node.target) for node in module.graph.nodes]


def plan_of(session: Session, context: Context) -> Plan:
    """What a session decided, on the context of its folded network; its notes tell what folding has lost.

    Raises:
        PluginError: It breaks the contract or fails.
    """
    with guarded(session):
        plan = session.plan(context)
    if not isinstance(plan, Plan):
        raise PluginError(f"{type(session).__name__}.plan returned {type(plan).__name__}, not a Plan")
    if session.approximation:
        return replace(plan, notes={**plan.notes, "fold": {"warning": session.approximation}})
    return plan
