"""The options of a training: those that `prune` and `finetune` share, and those that only `finetune` has."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from compress.cli.groups import flag
from compress.errors import InputError
from compress.training import (
    LEARNING_RATES,
    Augment,
    Distill,
    Loss,
    Optimizer,
    Precision,
    Running,
    Schedule,
    Training,
)

_PANEL = "Fine-tuning"
_DETAILS = "Fine-tuning, in detail"
_RATES = ", ".join(f"{rate:g} for {name}" for name, rate in LEARNING_RATES.items())


def _option(*names: str, **settings: Any) -> Any:
    return typer.Option(*names, **{"rich_help_panel": _PANEL, **settings})


def _detail(*names: str, **settings: Any) -> Any:
    return typer.Option(*names, **{"rich_help_panel": _DETAILS, **settings})


@dataclass(frozen=True)
class Basics:
    """What most trainings need."""

    epochs: Annotated[int, _option(help="Passes over the training samples.")] = Training.epochs
    lr: Annotated[
        float | None,
        _option(help=f"The highest learning rate. Where left out: {_RATES}.", show_default=False),
    ] = None
    optimizer: Annotated[Optimizer, _option(help="SGD with momentum, or AdamW.")] = Training.optimizer
    batch_size: Annotated[int, _option(help="Samples per step, over all processes.")] = Training.batch_size
    precision: Annotated[Precision, _option(help="Mixed precision.")] = Training.precision
    augment: Annotated[
        Augment,
        _option(help="Images moved and mirrored at random. auto: crop-flip for images with colours, none for others."),
    ] = Training.augment
    distill: Annotated[
        Distill,
        _option(help="What is learned from the original. auto: its class scores (logits), where it is at hand."),
    ] = Training.distill
    resume: Annotated[
        bool, flag("--resume", help="Go on where an interrupted run of this command was.", rich_help_panel=_PANEL)
    ] = False


@dataclass(frozen=True)
class AfterPruning(Basics):
    """As `Basics`, but off unless asked for."""

    epochs: Annotated[
        int,
        _option(help="Train the smaller model again for so many, with the original as its teacher; 0 does not."),
    ] = 0

    def training(self) -> Training | None:
        """What is asked for, None without epochs. Raises InputError."""
        if self.epochs == 0:
            if self.resume:
                raise InputError("--resume goes on with a training, and there is none", hint="add --epochs 10")
            return None
        return training(self)


@dataclass(frozen=True)
class WithPruning(AfterPruning):
    """As `AfterPruning`, where methods may prune in the training."""

    epochs: Annotated[
        int,
        _option(
            help="With --data: train the smaller model again, with the original as its teacher. Methods of the kind "
            "retrain prune during these epochs."
        ),
    ] = 0


@dataclass(frozen=True)
class Details:
    """What a careful user may change."""

    loss: Annotated[
        Loss,
        _detail(help="cross-entropy: of the softmax. bce: each class a yes or no of its own; without the original."),
    ] = Training.loss
    momentum: Annotated[float, _detail(help="Of SGD.")] = Training.momentum
    nesterov: Annotated[bool, _detail("--nesterov/--no-nesterov", metavar="", help="Of SGD.")] = Training.nesterov
    weight_decay: Annotated[float, _detail(help="Of weights with two dims and more; biases and norms have none.")] = (
        Training.weight_decay
    )
    schedule: Annotated[
        Schedule, _detail(help="The learning rate after the warm-up: down to 0 on a cosine, or constant.")
    ] = Training.schedule
    warmup: Annotated[float, _detail(help="Share of the steps over which the learning rate rises.")] = Training.warmup
    accumulate: Annotated[int, _detail(help="Run each batch in so many parts, to save memory.")] = Training.accumulate
    label_smoothing: Annotated[float, _detail(help="Share of the target that all classes have in common.")] = (
        Training.label_smoothing
    )
    validation: Annotated[
        float, _detail(help="Share of the training samples that is kept out to choose the best epoch by.")
    ] = Training.validation
    patience: Annotated[int, _detail(help="Stop after so many epochs without a better one; 0 never does.")] = (
        Training.patience
    )
    temperature: Annotated[float, _detail(help="At which the class scores of model and teacher are compared.")] = (
        Training.temperature
    )
    distill_weight: Annotated[float, _detail(help="Share of that comparison in the loss; the rest is the labels'.")] = (
        Training.distill_weight
    )
    clip_norm: Annotated[
        float, _detail(help="Gradients of a larger norm are scaled down to it; 0 leaves all.")
    ] = Training.clip_norm
    save_every: Annotated[
        int, _detail(help="Steps between two saves of the state; the end of an epoch always saves.")
    ] = Running.save_every
    tensorboard: Annotated[
        Path | None, _detail(metavar="DIR", help="Write a log for TensorBoard.", show_default=False)
    ] = None


def training(basics: Basics, details: Details | None = None) -> Training:
    """The settings of a training. Raises InputError."""
    names = {field.name for field in fields(Training)}
    given = {**vars(basics), **(vars(details) if details else {})}
    return Training(**{name: value for name, value in given.items() if name in names})


def running(basics: Basics, details: Details | None = None) -> Running:
    """How it is kept and watched. Raises InputError."""
    if details is None:
        return Running(basics.resume)
    return Running(basics.resume, details.save_every, details.tensorboard)
