"""The settings of a training, checked where they are made. Nothing here imports torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from compress.errors import InputError

Optimizer = Literal["sgd", "adamw"]
Schedule = Literal["cosine", "constant"]
Loss = Literal["cross-entropy", "bce"]
Precision = Literal["no", "fp16", "bf16"]
Augment = Literal["none", "flip", "crop", "crop-flip", "auto"]
Distill = Literal["auto", "logits", "features", "none"]

LEARNING_RATES: dict[str, float] = {"sgd": 0.02, "adamw": 1e-3}
CLIP_NORM = 2.0  # of gradients; networks with batch norm stay below, refitted ones without it reach fifty


@dataclass(frozen=True)
class Training:
    """How a network is trained.

    Attributes:
        epochs: Passes over the training samples.
        lr: The highest learning rate; None takes that of ``LEARNING_RATES``.
        optimizer: SGD with momentum, or AdamW.
        momentum, nesterov: Of SGD.
        weight_decay: Of weights with two dims and more; biases and norms have none.
        schedule: How the learning rate goes after the warm-up: down to zero on a cosine, or not at all.
        warmup: Share of all steps over which the learning rate rises from zero.
        batch_size: Samples per step, over all processes and parts.
        accumulate: Parts in which a batch is run, one after the other, to save memory.
        precision: Of the arithmetic: as stored, or mixed with 16 bits.
        label_smoothing: Share of the target that all classes have in common.
        augment: What is done at random to images; "auto" decides by their shape.
        validation: Share of the training samples that is kept out to choose the best epoch by.
        patience: Epochs without a better one after which the training stops; 0 never stops it.
        distill: What is learned from the original besides the labels; "auto" is "logits" where it is at hand, and
            "none" with ``bce``.
        temperature: At which the class scores of the two networks are compared.
        distill_weight: Share of that comparison in the loss; the rest is the cross-entropy with the labels.
        loss: Cross-entropy of the softmax, or ``bce``: a binary cross-entropy for each class, without a teacher.
        clip_norm: Gradients with a larger norm over all weights are scaled down to it (Pascanu et al. 2013,
            arXiv:1211.5063, algorithm 1); 0 leaves all as they are. What a method that prunes meanwhile adds to
            the loss is not scaled.
    """

    epochs: int = 10
    lr: float | None = None
    optimizer: Optimizer = "sgd"
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 1e-4
    schedule: Schedule = "cosine"
    warmup: float = 0.05
    batch_size: int = 64
    accumulate: int = 1
    precision: Precision = "no"
    label_smoothing: float = 0.0
    augment: Augment = "auto"
    validation: float = 0.1
    patience: int = 10
    distill: Distill = "auto"
    temperature: float = 4.0
    distill_weight: float = 0.7
    loss: Loss = "cross-entropy"
    clip_norm: float = CLIP_NORM

    def __post_init__(self) -> None:
        for flag, value in (("epochs", self.epochs), ("batch-size", self.batch_size), ("accumulate", self.accumulate)):
            _check(flag, value, value >= 1, "at least 1")
        if self.lr is not None:
            _check("lr", self.lr, math.isfinite(self.lr) and self.lr > 0, "above 0")
        _check("clip-norm", self.clip_norm, 0 <= self.clip_norm < math.inf, "at least 0")
        for flag, part in (("momentum", self.momentum), ("label-smoothing", self.label_smoothing)):
            _check(flag, part, 0 <= part < 1, "from 0 to below 1")
        _check("weight-decay", self.weight_decay, 0 <= self.weight_decay < math.inf, "at least 0")
        _check("warmup", self.warmup, 0 <= self.warmup <= 1, "between 0 and 1")
        _check("validation", self.validation, 0 < self.validation <= 0.5, "above 0 and at most 0.5")
        _check("patience", self.patience, self.patience >= 0, "at least 0")
        _check("temperature", self.temperature, 0 < self.temperature < math.inf, "above 0")
        _check("distill-weight", self.distill_weight, 0 <= self.distill_weight <= 1, "between 0 and 1")
        for flag, text, kind in (
            ("optimizer", self.optimizer, Optimizer),
            ("loss", self.loss, Loss),
            ("schedule", self.schedule, Schedule),
            ("precision", self.precision, Precision),
            ("augment", self.augment, Augment),
            ("distill", self.distill, Distill),
        ):
            if text not in get_args(kind):
                raise InputError(f"--{flag} {text!r} is unknown", hint=" or ".join(get_args(kind)))
        if self.loss == "bce" and self.distill not in ("auto", "none"):
            # Scores of a softmax may all be shifted by a constant, so that each alone says nothing
            raise InputError(
                f"--distill {self.distill}: with --loss bce there is nothing to learn from the original's class scores",
                hint="--distill none",
            )

    @property
    def peak(self) -> float:
        """The highest learning rate."""
        return LEARNING_RATES[self.optimizer] if self.lr is None else self.lr

    def resolved(self) -> dict[str, Any]:
        """All settings with their values, for a recipe."""
        return {**vars(self), "lr": self.peak}


@dataclass(frozen=True)
class Running:
    """How a training is kept and watched; its result is the same.

    Attributes:
        resume: Go on from the state of an interrupted run.
        save_every: Steps between two saves of the state; the end of an epoch always saves.
        tensorboard: Folder for a log, if one is wanted.
    """

    resume: bool = False
    save_every: int = 500
    tensorboard: Path | None = None

    def __post_init__(self) -> None:
        _check("save-every", self.save_every, self.save_every >= 1, "at least 1")


def _check(flag: str, value: float, right: bool, allowed: str) -> None:
    if not right:
        raise InputError(f"--{flag} must be {allowed}, got {value:g}")
