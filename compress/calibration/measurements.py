"""What a method can learn from training samples about the network it is to prune."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from compress.calibration.gradients import BATCH, gradients
from compress.calibration.magnitudes import magnitudes
from compress.calibration.problems import Problem, problems
from compress.errors import InputError
from compress.graph import Coupling, Group
from compress.progress import Progress

SAMPLES = 1000  # training samples that a method looks at, and that a refit uses


class Measurements:
    """The part of a plugin's context that looks at data; each call runs the network anew."""

    coupling: Coupling
    seed: int
    data: Any
    progress: Progress

    @property
    def groups(self) -> tuple[Group, ...]:
        """What is measured."""
        raise NotImplementedError

    def samples(self, count: int = SAMPLES, *, labels: bool = False) -> tuple[Tensor, Tensor]:
        """Training samples at random, the same for the same seed: inputs (N, ...) and class numbers (N,).

        Args:
            count: How many, at most.
            labels: Whether the class numbers are needed; where the user's data has none, they are 0.

        Raises:
            InputError: The user gave no data, or data without a training part, or without labels that are needed.
        """
        train = getattr(self.data, "train", None)
        if train is None or not len(train.inputs):
            missing = "none were given" if self.data is None else "the data has no training part"
            raise InputError(f"the method looks at training samples, and {missing}", "give them with --data")
        unlabelled = getattr(self.data, "unlabelled", "")
        if labels and unlabelled:
            hint = "a method that needs none, such as reconstruct"
            raise InputError(f"the method needs class numbers. {unlabelled}", hint)
        # At random, as a file may list its samples class by class
        order = torch.randperm(len(train.inputs), generator=torch.Generator().manual_seed(self.seed))[:count]
        return train.inputs[order], train.targets[order]

    def problems(self, count: int = SAMPLES, most: int = 4700) -> Iterator[tuple[Group, list[Problem] | str]]:
        """By group what the linear layers and convolutions that read its units compute from them on training samples.

        One walk over the network; a group comes as soon as its last reader has been met, and its matrices can be
        dropped then.

        Args:
            count: Training samples.
            most: Inputs that a layer may have (channels times kernel); a group with a wider reader has no problems.

        Yields:
            A group, and its problems or the reason why there are none.

        Raises:
            InputError: There are no training samples.
        """
        inputs, _ = self.samples(count)
        found = problems(self.coupling, self.groups, inputs, self.seed, most)
        return self.progress.track(found, "measuring layers", len(self.groups))

    def magnitudes(self, count: int = SAMPLES) -> Iterator[tuple[Group, Tensor | str]]:
        """By group the mean magnitude of its units, (units,), where linear layers and convolutions read them.

        Args:
            count: Training samples.

        Yields:
            A group, and the magnitudes or the reason why there are none.

        Raises:
            InputError: There are no training samples.
        """
        inputs, _ = self.samples(count)
        return magnitudes(self.coupling, self.groups, inputs)

    def gradients(self, count: int = SAMPLES) -> Iterator[dict[str, Tensor]]:
        """For each batch of labelled training samples the gradient of the mean cross-entropy, by parameter name.

        Raises:
            InputError: There are no training samples.
            ModelError: The network gives no class scores.
        """
        inputs, targets = self.samples(count, labels=True)
        batches = -(-len(inputs) // BATCH)
        return self.progress.track(
            gradients(self.coupling.program.module, inputs, targets), "measuring gradients", batches
        )
