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
_LENGTHS = (1.0, 0.5, 0.25, 0.1)


class Budget:
    """Work that is left, shared evenly by the windows to come.

    Args:
        windows: How many there are.
    """

    def __init__(self, windows: int) -> None:
        self.left, self.windows = _WORK, windows

    def share(self) -> float:
        """What the next window may take."""
        self.windows -= 1
        return self.left / (self.windows + 1)

    def spend(self, work: float) -> None:
        """Work that was done."""
        self.left -= work


def jointly(
    part: Window,
    layers: Layers,
    envs: Sequence[dict[fx.Node, Any]],
    targets: Sequence[Tensor],
    judges: int,
    budget: Budget,
    generator: torch.Generator,
) -> float | str:
    """Refit the layers of a window to the dense results.

    Args:
        part: The window.
        layers: Of the sliced graph; their tensors are changed in place where that helps.
        envs: For each batch what the window and its last layer read; the latter is kept up to date.
        targets: For each batch the dense result at the window's end.
        judges: How many batches, the last, only judge.
        budget: Work that may be done.
        generator: Draws the samples.

    Returns:
        The held-out error after over that before, or why nothing was changed.
    """
    with torch.no_grad():
        joint = Joint(part, layers, generator)
        fit = len(envs) - judges
        reason, batches = _plan(joint, envs, targets, fit, budget)
        if reason:
            return reason
        held = envs[fit:], targets[fit:]
        try:
            change, before, after = _steps(joint, envs[:fit], targets[:fit], held, batches, generator)
        except (RuntimeError, NotImplementedError) as error:  # an operation without a derivative
            return f"cannot be linearised: {(str(error).splitlines() or [type(error).__name__])[0][:120]}"
        if not after < before:
            return "a joint refit does not help on held-out data"
        joint.write(change)
        for env in envs:
            env.update(_read_by_last(joint, env))
    return after / before


def _plan(
    joint: Joint, envs: Sequence[dict[fx.Node, Any]], targets: Sequence[Tensor], fit: int, budget: Budget
) -> tuple[str, int]:
    """Why there is nothing to be done, and the number of batches of one step."""
    share = budget.share()
    for node in joint.part.layers:
        features = joint.layers.layer(node).features
        if features > MAX_FEATURES:
            return f"{joint.layers.name(node)} has {features} inputs, too many for a joint refit", 0
    for node, value in _read_by_last(joint, envs[0]).items():
        if isinstance(value, Tensor) and not torch.allclose(value, envs[0][node], rtol=1e-3, atol=1e-4):
            return "what it reads is overwritten in place", 0
    work, memory = _price(joint, envs[0])
    batches = min(fit, int(min(share / (work * PASSES), _MEMORY / memory)), max(1, MOST // len(targets[0])))
    if batches < min(fit, -(-LEAST // len(targets[0]))):
        return "too large for a joint refit", 0
    budget.spend(work * PASSES * batches)
    return "", batches


def _read_by_last(joint: Joint, env: dict[fx.Node, Any]) -> dict[fx.Node, Any]:
    """What the last layer reads, computed anew."""
    values = joint.run({}, env)
    return {s: values[s] for s in joint.part.layers[-1].all_input_nodes if s in values}


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


def _price(joint: Joint, env: dict[fx.Node, Any]) -> tuple[float, float]:
    """Multiply-accumulates of the layers of a window and bytes of its results, of one batch."""
    values = joint.run({}, env)
    work = 1.0
    for node in joint.part.layers:
        weight = joint.layers.layer(node).weight
        work += weight.numel() * values[node].numel() / weight.shape[0]
    return work, 1.0 + sum(4 * v.numel() for v in values.values() if isinstance(v, Tensor))
