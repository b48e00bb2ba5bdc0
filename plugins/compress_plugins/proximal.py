"""Proximal gradient descent: after every step, the minimum of distance and norm, which holds exact zeros."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, fx

from compress.plugin import Context, Loop, ModelError, option
from compress_plugins.components import UnitScales, Values
from compress_plugins.gates import made_by_layers
from compress_plugins.norm_scales import Norms
from compress_plugins.sparse import Sparse, check_options, with_budget
from compress_plugins.thresholds import prox_l1, prox_l12, prox_l21

On = Literal["auto", "batchnorm", "filters"]
Press = Literal["chosen", "all"]
Norm = Literal["l1", "l21", "l12"]
Variant = Literal["exact", "printed"]


@dataclass(frozen=True)
class Proximal:
    """Shrinks scales or whole filters by a proximal step after every step of the training, until some are zero"""

    source: ClassVar[str] = (
        "Lee, Differentiable Sparsification for Deep Neural Networks, 2019, section 2 and equation 7: what it compares "
        "itself with; group lasso and exclusive lasso as in Yoon and Hwang, ICML 2017"
    )

    granularities: ClassVar[tuple[str, ...]] = ("unit",)

    keep: float | None = option(None, "fraction of the units that stays: 0.5 where no budget, keep or lam is given")
    on: On = option(
        "auto",
        "what shrinks: batchnorm, scales of channels; filters, all weights that make a unit; auto: batchnorm where the "
        "network has any, else filters",
    )
    lam: float | None = option(None, "weight of the norm; with a budget, where its control starts")
    press: Press = option(
        "chosen", "with a budget, what is shrunk: chosen, what the budget takes now; all, as the paper"
    )
    norm: Norm = option("l1", "l1: single values; l21: groups as a whole; l12: values of a group compete")
    variant: Variant = option("exact", "of l12: the exact proximal step, or the one that equation 7 prints")
    settle: float = option(0.25, "the last part of the training, in which what is zero stays so")

    def __post_init__(self) -> None:
        check_options(self.lam, self.keep, self.settle)
        if self.norm == "l21" and self.on != "filters":
            raise ValueError("norm: l21 takes whole groups, and a group of scales is a layer; choose --on filters")

    def start(self, context: Context) -> Shrunk:
        """A session; raises ModelError where there is nothing to shrink."""
        context = with_budget(context, self.lam, self.keep)
        network = context.copy()
        return Shrunk(self, context, network, self._parts(context, network))

    def _parts(self, context: Context, network: fx.GraphModule) -> UnitScales:
        if self.on != "filters":
            try:
                return Norms(context, network)
            except ModelError:
                if self.on == "batchnorm":
                    raise
        return Filters(context, network)


class Filters(UnitScales):
    """Units by the Euclidean norms of the rows of the weights that make them."""

    noun = "units"

    def __init__(self, context: Context, network: fx.GraphModule) -> None:
        super().__init__(context, made_by_layers(context, network))
        self.means = {name: each.mean() for name, each in self.scores(self.values(network)).items()}

    def worth(self, values: Values) -> dict[str, Tensor]:
        """Norms over the mean of their layers as it was at first: how large weights are differs from layer to layer."""
        return {name: score / self.means[name].clamp(min=1e-30) for name, score in self.scores(values).items()}

    def values(self, network: fx.GraphModule) -> dict[str, Tensor]:
        return {name: network.get_parameter(name).flatten(1).norm(dim=1) for name in self.removable}


class Shrunk(Sparse):
    """A training with a proximal step of the size of the learning rate times lambda behind each of its steps."""

    def __init__(self, method: Proximal, context: Context, network: fx.GraphModule, parts: UnitScales) -> None:
        narrow = context.has_budget and method.press == "chosen"
        super().__init__(context, network, parts, None, lam=method.lam, settle=method.settle, narrow=narrow)
        self.method, self.units = method, parts

    def after_step(self, loop: Loop) -> None:
        if self.force:
            step = self.force * loop.optimizer.param_groups[0]["lr"]
            with torch.no_grad():
                for name, index in self.units.indices(self.wanted if self.narrow else None).items():
                    tensor = loop.network.get_parameter(name)
                    index = index.to(tensor.device)
                    tensor[index] = self._shrunk(tensor, step)[index]
        super().after_step(loop)

    def _shrunk(self, tensor: Tensor, step: float) -> Tensor:
        # A group is the scales of a layer, or the weights of a filter
        dims = None if tensor.dim() == 1 else tuple(range(1, tensor.dim()))
        if self.method.norm == "l1":
            found = prox_l1(tensor, step)
        elif self.method.norm == "l21":
            found = prox_l21(tensor, step, dims)
        else:
            found = prox_l12(tensor, step, dims, self.method.variant)
        # A layer keeps its largest unit
        sizes = tensor.reshape(len(tensor), -1).norm(dim=1)
        kept = (sizes == sizes.max()).reshape(-1, *[1] * (tensor.dim() - 1)) & ~found.any()
        return torch.where(kept, tensor, found)
