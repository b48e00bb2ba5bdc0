"""FSA: as much of a network is kept as a linear classifier needs of its input features."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from compress.plugin import (
    Context,
    FSASettings,
    Group,
    InputError,
    ModelError,
    Plan,
    compression_factor,
    option,
    select_features,
)

Loss = Literal["lorenz", "logistic", "hinge", "huber-svm", "square"]

FOLDS = 3  # of the cross-validation, each with a sample at least


@dataclass(frozen=True)
class FSA:
    """Finds by feature selection with annealing which share of the inputs is enough, and keeps that share of the rest.

    Every layer but those that read the input keeps its largest weights; units go by what survives of theirs. With
    --prune-inputs the features that the selection drops go too. Meant for a network before its training, which --epochs
    adds.
    """

    source: ClassVar[str] = (
        "Resnick, Activation, Dropout, Pruning, University of Colorado Boulder 2020, section on the data-driven "
        "pipeline; Barbu, She, Ding and Gramajo 2017 (arXiv:1310.2880)"
    )

    keep: float = option(0.0, "share to keep, above 0 and below 1; 0 finds the smallest of 0.2, 0.4, 0.6, 0.8 in reach")
    tolerance: float = option(0.01, "by how much the linear classifier's accuracy may fall, as a fraction of 1")
    loss: Loss = option("lorenz", "of the linear classifier's margins: lorenz, logistic, hinge, huber-svm or square")
    mu: float = option(10.0, "how early most features are dropped; 0 drops evenly")
    iterations: int = option(100, "steps of a selection")
    lr: float = option(1.0, "step over the largest that is safe for smooth losses")
    ridge: float = option(1e-4, "weight of the squared weights")
    samples: int = option(5000, "training samples to look at")

    def __post_init__(self) -> None:
        if not 0 <= self.keep < 1:
            raise ValueError(f"keep: must be at least 0 and below 1, got {self.keep:g}")
        if not 0 <= self.tolerance <= 1:
            raise ValueError(f"tolerance: must lie between 0 and 1, got {self.tolerance:g}")
        if self.samples < FOLDS:
            raise ValueError(f"samples: must be at least {FOLDS}, got {self.samples}")
        self._settings(0.5)

    def _settings(self, keep: float) -> FSASettings:
        return FSASettings(keep, self.loss, self.iterations, self.mu, self.lr, ridge=self.ridge)

    def plan(self, context: Context) -> Plan:
        """Masks of all layers but the first, as units where whole units go, and the input features that go.

        Raises:
            InputError: There are no training samples, or too few, or they are all of one class.
            ModelError: Nothing but layers that read the input may be pruned.
        """
        layers = {n: weight for n, weight in context.layers().items() if n not in context.first_layers}
        if not layers and not context.input_groups:
            raise ModelError(
                "fsa leaves layers that read the model's input whole, and no other can be pruned",
                "choose another method, such as magnitude",
            )
        inputs, targets = context.samples(self.samples, labels=True)
        classes, y = np.unique(targets.numpy(), return_inverse=True)
        if len(classes) < 2:
            looked = f"all {len(targets)} training samples that fsa looks at are of class {classes[0]}"
            raise InputError(looked, "add samples of other classes, or look at more with --samples 5000")
        if len(targets) < FOLDS:
            raise InputError(f"fsa needs {FOLDS} training samples, and there are {len(targets)}", "add samples")
        x = inputs.flatten(1).float().numpy()
        keep, note = self._share(x, y, context)
        notes: dict[str, dict[str, Any]] = {"compression factor": note}
        masks = {name: largest(weight, keep) for name, weight in layers.items()}
        plan = context.plan_from_masks(masks, notes)
        for group in context.input_groups:
            features = context.weight(group.members[0].tensor).numpy()[group.members[0].index]
            gone = self._dropped(x, y, features, keep)
            if context.granularity == "unit":
                plan = replace(plan, removed={**plan.removed, group.name: gone})
            else:
                plan = replace(plan, masks={**plan.masks, **without(context, group, gone)})
        return plan

    def _share(self, x: np.ndarray, y: np.ndarray, context: Context) -> tuple[float, dict[str, Any]]:
        """The share to keep, and how it was found."""
        if self.keep:
            return self.keep, {"kept": self.keep}
        found = compression_factor(
            x, y, tolerance=self.tolerance, folds=FOLDS, settings=self._settings(0.5), seed=context.seed
        )
        note: dict[str, Any] = {"kept": found.factor}
        note |= {f"accuracy with {c:.0%} of the features": accuracy for c, accuracy in found.accuracies.items()}
        if found.factor == 1:
            note["warning"] = f"no smaller share is within {self.tolerance:g} of the accuracy with all features"
        return found.factor, note

    def _dropped(self, x: np.ndarray, y: np.ndarray, features: np.ndarray, keep: float) -> np.ndarray:
        """Units of a group that go, given the input features (units, k) that each holds."""
        if keep == 1:
            return np.zeros(0, dtype=np.int64)
        model = select_features(x[:, features.ravel()], y, int(y.max()) + 1, self._settings(keep))
        chosen = np.zeros(features.size)
        chosen[model.selected] = 1
        order = np.argsort(-chosen.reshape(features.shape).sum(1), kind="stable")
        return np.sort(order[max(1, int(keep * len(features))) :])


def largest(weight: Tensor, share: float) -> Tensor:
    """True for that share of the weights with the largest magnitudes, at least one."""
    count = max(1, int(share * weight.numel()))
    mask = torch.zeros(weight.numel(), dtype=torch.bool)
    mask[weight.flatten().abs().argsort(descending=True, stable=True)[:count]] = True
    return mask.reshape(weight.shape)


def without(context: Context, group: Group, gone: np.ndarray) -> dict[str, Tensor]:
    """Masks of the weights that read the units which go."""
    masks = {}
    for member in group.members:
        weight = context.weight(member.tensor)
        if weight.dim() > 1 and member.dim == 1:
            mask = torch.ones(weight.shape, dtype=torch.bool)
            mask[:, torch.as_tensor(member.index[gone].ravel())] = False
            masks[member.tensor] = mask
    return masks
