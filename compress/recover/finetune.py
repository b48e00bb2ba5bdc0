"""Training a smaller network again, with the original as its teacher where that is at hand."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from compress.data import Split
from compress.errors import InputError, ModelError
from compress.evaluate import class_scores, wilson
from compress.graph.calls import op_name
from compress.progress import Progress, Silent
from compress.recover import launch, samples
from compress.recover.distill import Teacher, shared_features
from compress.recover.hooks import Hook, KeepZeros
from compress.recover.loop import Loop
from compress.recover.snapshot import restore
from compress.recover.state import StateFile
from compress.training import Training
from compress.wording import plural

_BLOWN_UP = 100.0  # times the loss of the start, or 1: that of a guess among a million classes is 14


@dataclass(frozen=True)
class Trained:
    """What a training came to.

    Attributes:
        module: The network with the weights of its best epoch, on the CPU; the one that went in is not changed.
        history: By epoch, from 0 (as it came): losses, accuracy on the validation samples, learning rate.
        best: The epoch whose weights these are.
        train, validation: Numbers of samples.
        distill: What was learned from the original: "logits", "features" or "none".
        stopped: Why it ended before its last epoch; "" if it did not.
        diverged: Whether that was a loss that is no number.
    """

    module: fx.GraphModule
    history: tuple[Mapping[str, Any], ...]
    best: int
    train: int
    validation: int
    distill: str
    stopped: str = ""
    diverged: bool = False


def finetune(
    network: fx.GraphModule,
    data: Split,
    settings: Training,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    teacher: fx.GraphModule | None = None,
    hooks: Sequence[Hook] = (),
    file: StateFile | None = None,
    resume: bool = False,
    log: Path | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train a traced classifier on labelled samples and keep its best epoch.

    The same call does the same in one process and in several, started by ``torchrun`` or ``accelerate launch``; all of
    them return the same. Weights that are zero stay zero. Same seed, same machine: same result.

    Args:
        network: Gives class scores (N, classes).
        data: Training samples; a part of them is kept out to choose the best epoch by.
        settings: How.
        seed: Of order, augmentation and dropout.
        device: "cpu", "cuda" or "cuda:N".
        teacher: The original network, in whose class scores and features there is more than in labels.
        hooks: What is done beside the steps.
        file: Where the state is kept; without it an interrupted training is lost.
        resume: Go on from the state in ``file``.
        log: Folder for TensorBoard.
        progress: Told about every epoch, by the main process.

    Raises:
        InputError: The data, the settings and the network do not go together, there is no state to resume, or it ended
            before a hook was ready.
        ModelError: Nothing in the network can be trained.
        KeyboardInterrupt: After a Ctrl-C; the state has been saved.
    """
    progress = progress if progress is not None and launch.is_main() else Silent()
    settings = _resolved(settings, teacher, progress, len(data))
    network = copy.deepcopy(network)  # it may share tensors with the original, which is to stay
    train, validation = samples.divided(data, settings.validation)
    content = file.load() if resume and file is not None else None
    if resume and file is None:
        raise InputError("there is no state to resume", "leave out --resume")
    _check(network, data, teacher)
    accelerator = launch.accelerator(settings.precision, torch.device(device))
    samples.check_share(len(train), settings.batch_size, accelerator.num_processes, settings.accumulate)
    _check_norms(network, len(train) // samples.batch_count(len(train), settings.batch_size) // settings.accumulate)
    taught, features = _teacher(network, teacher, settings, train, accelerator.device)
    zeros = KeepZeros(network)
    if zeros.masks:
        progress.detail(f"zeros in {plural(len(zeros.masks), 'weight')} stay zeros")
    writer = None
    if log is not None and accelerator.is_main_process:
        writer = launch.tensorboard(log, 0 if content is None else content["step"])
    loop = Loop(
        network, train, validation, settings, seed, accelerator,
        progress=progress, teacher=taught, features=features, hooks=(zeros, *hooks), file=file, log=writer,
    )  # fmt: skip
    if content is not None:
        restore(loop, content)
        progress.step(f"Going on after step {loop.step} of {loop.total}")
    try:
        loop.run()
    finally:
        if writer is not None:
            writer.close()
        if teacher is not None:
            teacher.cpu()
    return _trained(loop, progress)


def _trained(loop: Loop, progress: Progress) -> Trained:
    if loop.best is None:
        reason = loop.stopped or "the method was not done with the network in any epoch"
        raise _nothing(loop, reason, "a lower --lr" if loop.diverged else "more --epochs")
    _check_kept(loop, loop.best.epoch)
    if loop.stopped and not loop.diverged:
        progress.step(f"Stopped after epoch {loop.epoch}: {loop.stopped}")
    return Trained(
        module=loop.network.cpu(),
        history=tuple(loop.history),
        best=loop.best.epoch,
        train=len(loop.train),
        validation=len(loop.validation),
        distill=loop.settings.distill,
        stopped=loop.stopped,
        diverged=loop.diverged,
    )


def _nothing(loop: Loop, reason: str, hint: str) -> InputError:
    """The error of a training without a result, whose state is of no use to anyone."""
    if loop.file is not None and loop.accelerator.is_main_process:
        loop.file.remove()
    return InputError(f"nothing was learned: {reason}", hint)


def _check_kept(loop: Loop, best: int) -> None:
    """Refuse an epoch whose loss is far beyond that of the start and of any guess, and which puts samples at random."""
    count = len(loop.validation)
    first, kept = (next(e for e in loop.history if e["epoch"] == epoch) for epoch in (0, best))
    loss, accuracy = kept["validation loss"], kept["validation accuracy"]
    low, _ = wilson(round(accuracy * count), count)
    chance = int(loop.validation.targets.bincount().max()) / count
    # Of few samples the interval is wide, and a network that has won some since the start is no guess
    guesses = low <= chance and accuracy <= max(chance, first["validation accuracy"])
    if guesses and loss > _BLOWN_UP * max(1.0, first["validation loss"]):
        raise _nothing(
            loop,
            f"the weights blew up. On the validation samples the loss was {first['validation loss']:.3g} and is "
            f"{loss:.3g} in the best epoch, {best}, and {100 * accuracy:.2f} % are right, of "
            f"{100 * first['validation accuracy']:.2f} % before",
            "a lower --lr, and a smaller --lam where the method has one",
        )


def _resolved(settings: Training, teacher: Any, progress: Progress, count: int) -> Training:
    """The settings with what depends on the data and the teacher decided."""
    if settings.distill == "auto":
        alone = teacher is None or settings.loss == "bce"
        settings = replace(settings, distill="none" if alone else "logits")
    if settings.distill != "none" and teacher is None:
        raise InputError(
            f"--distill {settings.distill} needs the original model", "name it with --teacher, or --distill none"
        )
    if count and settings.batch_size > count:
        progress.warn(f"there are {count} training samples, fewer than a batch of {settings.batch_size}: all are one")
    return settings


def _check(network: fx.GraphModule, data: Split, teacher: fx.GraphModule | None) -> None:
    if not any(p.requires_grad for p in network.parameters()):
        raise ModelError("every parameter of the model is frozen, so nothing can be trained")
    if len(data.targets.unique()) < 2:
        raise InputError(
            f"all training samples are of class {int(data.targets[0])}, from which nothing can be learned",
            "give samples of all classes",
        )
    classes = _classes(network, data)
    if classes <= int(data.targets.max()):
        raise InputError(
            f"the model tells {classes} classes apart, the training labels go up to {int(data.targets.max())}",
            "use the data that the model was trained for",
        )
    if teacher is not None and _classes(teacher, data) != classes:
        raise InputError(
            f"the teacher tells {_classes(teacher, data)} classes apart, the model {classes}",
            "the teacher has to be the model that this one was made of",
        )


def _check_norms(network: fx.GraphModule, smallest: int) -> None:
    """Refuse batches, or parts of them, in which a batch norm sees one value of a channel, which has no variance."""
    for node in network.graph.nodes:
        if node.op == "call_function" and op_name(node.target) == "aten::batch_norm":
            value = node.args[0].meta.get("val")
            if value is not None and smallest * math.prod(value.shape[2:]) < 2:
                raise InputError(
                    f"in batches of one sample {node.name} would see one value of each channel, which has no variance",
                    "a larger --batch-size, a smaller --accumulate, or more training samples",
                )


def _classes(network: fx.GraphModule, data: Split) -> int:
    with torch.no_grad():
        return int(class_scores(network(data.inputs[:2].clone()), len(data.inputs[:2])).shape[1])


def _teacher(
    network: fx.GraphModule, teacher: fx.GraphModule | None, settings: Training, train: Split, device: torch.device
) -> tuple[Teacher | None, list[str]]:
    """The teacher on the device, and the names of the network's nodes that are compared with it."""
    if teacher is None or settings.distill == "none":
        return None, []
    pairs: list[tuple[str, str]] = []
    if settings.distill == "features":
        inputs: tuple[Tensor, ...] = (train.inputs[:2],)
        pairs = shared_features(network, teacher, inputs)
        if not pairs:
            raise InputError(
                "--distill features compares maps, and the two networks have none that correspond",
                "use --distill logits",
            )
    taught = Teacher(teacher.to(device), [twin for _, twin in pairs])
    return taught, [name for name, _ in pairs]
