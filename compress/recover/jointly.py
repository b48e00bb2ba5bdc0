"""One window of layers refitted together: how much work that may be, and whether it helps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from compress.calibration.layers import Layers
from compress.recover.newton import PASSES, STEPS, Joint, Tensors
from compress.recover.window import Window

MOST = 512  # samples of a step
LEAST = 32
MAX_FEATURES = 4700  # of a layer; a 3 x 3 convolution of 512 channels has 4608
_WORK = 4e12  # multiply-accumulates in all: a minute or two on two cores
_MEMORY = 2e9  # bytes of activations that are kept for the gradients
_LENGTHS = (1.0, 0.5, 0.25)


class Budget:
    """Work that is left, shared evenly by the windows to come.

    Args:
        windows: How many there are.
    """

    def __init__(self, windows: int) -> None:
        self.left, self.windows = _WORK, windows

    def share(self) -> float:
        return self.left / max(self.windows, 1)

    def spend(self, work: float) -> None:
        self.left -= work
        self.windows -= 1


def jointly(
    part: Window,
    layers: Layers,
    envs: Sequence[dict[fx.Node, Any]],
    targets: Sequence[Tensor],
    judges: int,
    budget: Budget,
    generator: torch.Generator,
) -> float | None:
    """Refit the layers of a window to the dense results.

    Args:
        part: The window.
        layers: Of the sliced graph; their tensors are changed in place where that helps.
        envs: For each batch what the window reads; when its layers are changed, everything before the last is added.
        targets: For each batch the dense result at the window's end.
        judges: How many batches, the last, only judge.
        budget: Work that may be done.
        generator: Draws the samples.

    Returns:
        The held-out error after over that before, None where nothing was changed.
    """
    joint = Joint(part, layers, generator)
    work, memory = _price(joint, envs[0], targets[0])
    count = int(min(MOST, budget.share() / (work * PASSES), _MEMORY / memory))
    batches = count // max(1, len(targets[0]))
    wide = any(layers.layer(node).features > MAX_FEATURES for node in part.layers)
    if wide or batches < 1 or count < min(LEAST, sum(map(len, targets[:-judges]))):
        budget.spend(0)
        return None
    fit = len(envs) - judges
    held = envs[fit:], targets[fit:]
    with torch.no_grad():
        change, before, after = _steps(joint, envs[:fit], targets[:fit], held, batches, generator)
        budget.spend(work * PASSES * min(batches, fit) * len(targets[0]))
        if not after < before:
            return None
        joint.write(change)
        for env in envs:
            values = joint.run({}, env)
            env.update({s: values[s] for s in part.layers[-1].all_input_nodes if s in values})
    return after / before


def _steps(
    joint: Joint,
    envs: Sequence[dict[fx.Node, Any]],
    targets: Sequence[Tensor],
    held: tuple[Sequence[dict[fx.Node, Any]], Sequence[Tensor]],
    batches: int,
    generator: torch.Generator,
) -> tuple[Tensors, float, float]:
    """The change of the parameters, and the held-out error before and after."""
    change = joint.zero()
    before = best = joint.error(change, *held)
    for _ in range(STEPS):
        drawn = torch.randperm(len(envs), generator=generator)[:batches].tolist()
        step = joint.step(change, [envs[i] for i in drawn], [targets[i] for i in drawn])
        tried = [{n: change[n] + length * step[n] for n in change} for length in _LENGTHS]
        for candidate in tried:
            error = joint.error(candidate, *held)
            if error < best:
                change, best = candidate, error
                break
        else:
            break
    return change, before, best


def _price(joint: Joint, env: dict[fx.Node, Any], target: Tensor) -> tuple[float, float]:
    """Multiply-accumulates of the layers of a window and bytes of its results, of one sample."""
    with torch.no_grad():
        values = joint.run({}, env)
    work = 0.0
    for node in joint.part.layers:
        weight = joint.layers.layer(node).weight
        work += weight.numel() * values[node].numel() / weight.shape[0]
    memory = sum(4 * v.numel() for v in values.values() if isinstance(v, Tensor))
    return work / len(target), max(memory / len(target), 1)
