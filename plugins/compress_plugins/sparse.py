"""Training under a norm that makes components zero: how hard it presses, when it ends, and what has become zero."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, fx

from compress.plugin import Budget, Context, Figure, InputError, Loop, Plan, Series, Session
from compress_plugins.amounts import check_fraction, check_one_size
from compress_plugins.components import Removed, Values, scale_figure
from compress_plugins.steering import Steering
from compress_plugins.thresholds import l1

_GOAL = 0.85  # of the way until components are closed, where those that the budget takes are to be zero
_KEEP = 0.5  # where nobody says how much
_SMALL = 1e-4  # what is counted as nearly zero


class Components(Protocol):
    """What a training makes sparse."""

    noun: str
    size: int
    only: tuple[str, ...]
    same_operations: bool

    def values(self, network: fx.GraphModule) -> dict[str, Tensor]: ...

    def prepared(self, network: fx.GraphModule) -> dict[str, Tensor]: ...

    def prepared_norm(self, network: fx.GraphModule, only: Removed | None) -> Tensor | None: ...

    def withdraw(self, network: fx.GraphModule, share: float) -> None: ...

    def pressed(self, values: Values, only: Removed | None = None) -> list[Tensor]: ...

    def mean(self, values: Values, units: Removed, pressed: Sequence[Tensor] | None = None) -> float: ...

    def scores(self, values: Values) -> dict[str, Tensor]: ...

    def zeros(self, values: Values) -> Removed: ...

    def chosen(self, values: Values) -> Removed: ...

    def masks(self, removed: Removed) -> dict[str, Tensor]: ...

    def fold(self, network: fx.GraphModule) -> fx.GraphModule: ...

    def plan(self, context: Context, closed: Removed) -> Plan: ...


Norm = Callable[[list[Tensor]], Tensor]


class Sparse(Session):
    """One training. Until components are closed, lambda times a norm is part of the loss; from then on, it is not.

    With a budget, lambda is steered so that the components that the budget takes, by the ranking of the moment, fall
    to zero shortly before they are closed; it is off while all of them are zero. What the budget takes at that time is
    closed: set to zero for good, whether it is zero by then or not. Without a budget lambda stays as it is, and what is
    zero at the end goes; where no step follows, nothing is set to zero but what training has made so, and only what is
    dead then goes: behind a sigmoid a zero is the constant 0.5, and in front of padding it stays.

    Args:
        context: The network as it came.
        network: What is trained, prepared for ``parts``.
        parts: What becomes sparse.
        norm: Of the weights of components; None where the session presses by itself.
        lam: Lambda, or where it starts; None where it is steered, from a guess.
        settle: Share of the training that is left when components are closed.
        narrow: Whether the norm is that of the components alone that the budget takes.
        steered: Whether a budget steers lambda.
    """

    def __init__(
        self,
        context: Context,
        network: fx.GraphModule,
        parts: Components,
        norm: Norm | None,
        *,
        lam: float | None,
        settle: float,
        narrow: bool = False,
        steered: bool = True,
    ) -> None:
        self.context, self.network, self.parts, self.norm = context, network, parts, norm
        self.lam, self.settle, self.narrow = lam or 0.0, settle, narrow
        self.only, self.same_operations = parts.only, parts.same_operations
        self.budget = budget = context.has_budget
        self.steered = budget and steered
        if not budget and context.allocation.round_to > 1:
            raise InputError("widths follow the zeros, and cannot be rounded", "give a budget, such as --ratio 0.5")
        self.wanted: Removed = parts.chosen(self._values(network)) if budget else {}
        self.steering: Steering | None = None
        self.kept_steering: dict[str, Any] = {}
        self.pressing = True
        self.closed: Removed | None = None
        self.masked = False  # whether all that the closed ones hold was set to zero
        self.exact: dict[str, int] = {}  # by group, how many of what was closed were zero by themselves
        self.counts: list[list[float]] = []  # epoch, components left
        self._masks: dict[str, Tensor] = {}
        self._final: Values = {}
        self._pressed: list[Tensor] | None = None  # in this step

    def begin(self, loop: Loop) -> None:
        end = self.end(loop) * loop.steps_per_epoch
        rates = torch.tensor([loop.rate(step) for step in range(end)], dtype=torch.float64).clamp(min=1e-12)
        self.way = torch.cat((torch.zeros(1, dtype=torch.float64), rates.cumsum(0))) / rates.sum()
        if self.steered and self.steering is None:
            mean = self.parts.mean(self._values(loop.network), self.wanted)
            lam = self.lam or mean / (float(rates.sum()) * self.speed(loop))
            self.steering = Steering(lam, end, _GOAL)
            if self.kept_steering:
                self.steering.load(self.kept_steering)
        if not self.counts:
            self._count(loop)

    def speed(self, loop: Loop) -> float:
        """How fast the norm alone would move what it presses on, at a learning rate and a lambda of 1."""
        if self.norm is None:
            return 1.0
        values = {name: each.requires_grad_() for name, each in self._values(loop.network).items()}
        pressed = self.parts.pressed(values, self._pressed_on())
        if not pressed:
            return 1.0
        slopes = torch.autograd.grad(self.norm(pressed), pressed)
        momentum = loop.optimizer.param_groups[0].get("momentum", 0.9)  # Adam's is 0.9
        return float(torch.cat([slope.abs() for slope in slopes]).mean()) / (1 - momentum)

    def _pressed_on(self) -> Removed | None:
        return self.wanted if self.narrow else None

    def before_step(self, loop: Loop) -> None:
        if self.closed is not None:
            return
        # Half of the time to learn to do without the constants
        self.parts.withdraw(loop.network, max(0.0, 1 - 2 * loop.step / (len(self.way) - 1)))
        values: dict[str, Tensor] | None = None
        if self.norm is not None:  # which is of the same numbers, with their gradients
            made = self.parts.prepared_norm(loop.network, self._pressed_on()) if self.norm is total_l1 else None
            if made is None:
                values = self.parts.prepared(loop.network)
                self._pressed = self.parts.pressed(values, self._pressed_on())
            else:
                self._pressed = [made.reshape(1)]
        if self.steering is not None:
            same = self._pressed if self.narrow else None
            now = self._values(loop.network) if values is None and same is None else values or {}
            mean = self.parts.mean(now, self.wanted, same)
            self.pressing = mean > 0
            self.steering.look(float(self.way[loop.step]), mean)
            self.lam = self.steering.lam

    def penalty(self, loop: Loop) -> Tensor | None:
        if self.norm is None or not self.force:
            return None
        pressed, self._pressed = self._pressed, None
        if pressed is None:
            pressed = self.parts.pressed(self.parts.values(loop.network), self._pressed_on())
        return self.force * self.norm(pressed) if pressed else None

    @property
    def force(self) -> float:
        """Lambda as it acts now."""
        return self.lam if self.pressing and self.closed is None else 0.0

    def after_step(self, loop: Loop) -> None:
        self._pressed = None
        self._mask(loop.network)

    def after_epoch(self, loop: Loop) -> None:
        if self.closed is None and loop.epoch >= self.end(loop):
            self._close(loop)
        elif self.closed is None and self.budget:
            self.wanted = self.parts.chosen(self._values(loop.network))
            if self.steering is not None:
                self.steering.forget()
        self._count(loop)

    def ready(self, loop: Loop) -> bool:
        return self.closed is not None

    def numbers(self, loop: Loop) -> Mapping[str, float]:
        values, noun = self._values(loop.network), self.parts.noun
        scores = torch.cat(list(self.parts.scores(values).values()))
        # Of what came: scales in place of the alphas that are stored for them, and no betas
        own = {name: loop.network.get_parameter(name) for name, _ in self.context.module.named_parameters()}
        scales = {name: each for name, each in values.items() if name in own and each.shape == own[name].shape}
        return {
            "nonzero": sum(int(torch.count_nonzero(tensor)) for tensor in (own | scales).values()),
            f"{noun} zero": int((scores == 0).sum()),
            f"{noun} below 1e-4": int((scores < _SMALL).sum()),
            "lambda": self.force,
        }

    def state(self) -> dict[str, Any]:
        found = {name: getattr(self, name) for name in ("lam", "pressing", "wanted", "exact", "counts", "masked")}
        if self.closed is not None:
            found["closed"] = self.closed
        if self.steering is not None:
            found["kept_steering"] = self.steering.state()
        return found

    def load(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
        if self.closed is not None and self.masked:
            self._masks = self.parts.masks(self.closed)

    def fold(self, network: fx.GraphModule) -> fx.GraphModule:
        self._final = {name: each.detach().cpu() for name, each in self._values(network).items()}
        return self.parts.fold(network)

    def plan(self, context: Context) -> Plan:
        plan = self.parts.plan(context, self.closed if self.closed and self.masked else {})
        left = Series("", [each[0] for each in self.counts], [each[1] for each in self.counts])
        noun = self.parts.noun
        figure = Figure(f"{noun}-left", f"{noun.capitalize()} that are not zero", "epoch", noun, (left,))
        return replace(plan, notes=self._notes(), figures=(scale_figure(self._final, noun), figure))

    def end(self, loop: Loop) -> int:
        """The epoch after which components are closed; one at least trains what is left, where there are two."""
        epochs = loop.total // loop.steps_per_epoch
        last = max(1, round(self.settle * epochs)) if self.settle else 0
        return max(1, epochs - last)

    def _values(self, network: fx.GraphModule) -> dict[str, Tensor]:
        with torch.no_grad():
            return self.parts.values(network)

    def _close(self, loop: Loop) -> None:
        values = self._values(loop.network)
        zeros = self.parts.zeros(values)
        self.closed = self.parts.chosen(values) if self.budget else {n: u for n, u in zeros.items() if len(u)}
        none = torch.zeros(0, dtype=torch.int64)
        self.exact = {n: int(torch.isin(u, zeros.get(n, none)).sum()) for n, u in self.closed.items()}
        self.masked = self.budget or loop.step < loop.total
        self._masks = self.parts.masks(self.closed) if self.masked else {}
        self._mask(loop.network)
        total, exact = sum(len(u) for u in self.closed.values()), sum(self.exact.values())
        found = sum(len(u) for u in zeros.values())
        self.context.progress.step(
            f"Closed {total:,} of {self.parts.size:,} {self.parts.noun}: {exact:,} exactly zero, "
            f"{total - exact:,} by rank" + (f"; {found - exact:,} more are zero" if found > exact else "")
        )

    def _mask(self, network: fx.GraphModule) -> None:
        parameters = dict(network.named_parameters()) if self._masks else {}
        with torch.no_grad():
            for name, mask in self._masks.items():
                self._masks[name] = mask = mask.to(parameters[name].device)
                parameters[name].mul_(mask)

    def _count(self, loop: Loop) -> None:
        zeros = self.parts.zeros(self._values(loop.network))
        self.counts.append([float(loop.epoch), float(self.parts.size - sum(len(u) for u in zeros.values()))])

    def _notes(self) -> dict[str, dict[str, Any]]:
        """By group, how many of the components went because they were zero, and how many by their rank."""
        return {
            name: {"zero by training": self.exact[name], "closed by rank": len(units) - self.exact[name]}
            for name, units in (self.closed or {}).items()
        }


def with_budget(context: Context, lam: float | None, keep: float | None) -> Context:
    """The context; without a budget, with one that leaves a fraction of all units, unless lambda alone is given.

    Raises:
        InputError: Both say how much stays.
    """
    check_one_size(context, keep)
    if context.has_budget or (keep is None and lam is not None):
        return context
    return replace(context, budget=Budget("ratio", 1 - (_KEEP if keep is None else keep)), has_budget=True)


def check_options(lam: float | None, keep: float | None, settle: float, last: str = "settle") -> None:
    """Raises ValueError for what cannot be meant."""
    if lam is not None and not 0 < lam < math.inf:
        raise ValueError(f"lam: must be above 0, got {lam:g}")
    check_fraction(keep)
    if not 0 <= settle < 1:
        raise ValueError(f"{last}: must be from 0 to below 1, got {settle:g}")


def total_l1(values: Sequence[Tensor]) -> Tensor:
    """The sum of all magnitudes, which knows no sites."""
    return l1(torch.cat(list(values)))


def summed(norm: Callable[[Tensor], Tensor]) -> Norm:
    """The norm of each site, summed over sites."""

    def total(values: Sequence[Tensor]) -> Tensor:
        return torch.stack([norm(each) for each in values]).sum()

    return total
