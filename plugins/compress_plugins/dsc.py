"""Differentiable short circuits: every layer reads all layers before it, through gates, and drops some of it again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from compress.plugin import Context, Session, option
from compress_plugins.amounts import check_fraction
from compress_plugins.dsc_session import Circuits

Form = Literal["ffn", "gsc", "dsc"]
Gating = Literal["effective", "contribution", "threshold", "ste", "bernoulli"]
Scope = Literal["layer", "all"]
Init = Literal["function", "fresh"]
Formula = Literal["pairs", "layers"]
Stop = Literal["fall", "std", "never"]


@dataclass(frozen=True)
class DSC:
    """Lets every layer read all layers before it through gates that learn, and removes inputs that it can do without"""

    granularities: ClassVar = ("unit",)
    source: ClassVar[str] = (
        "Parvatharaju and Narasimha Murthy, Differentiable Learning by means of Neural Network Pruning, Worcester "
        "Polytechnic Institute 2020, eqs. 3 to 10"
    )

    keep: float | None = option(None, "fraction of the inputs of layers that stays: 0.5 where nothing else says it")
    form: Form = option(
        "dsc", "what layers read: ffn, the one before; gsc, all before and the input; dsc, these by gates"
    )
    gates: Gating = option(
        "contribution",
        "by what inputs go: effective, gate times norm of the column; contribution, that times size of the feature; "
        "threshold, the gate alone; ste and bernoulli, the gate, shut below tau or drawn at random while it trains",
    )
    tau: float = option(0.5, "gates below it are shut, where they alone decide and there is no budget")
    scope: Scope = option("layer", "layer: every layer keeps its fraction; all: inputs of all layers compete")
    min_accuracy: float | None = option(None, "instead of keep: as few inputs as are right for this share of samples")
    max_drop: float | None = option(None, "instead of keep: as few inputs as lose at most so many points of accuracy")
    strength: float = option(0.001, "weight in the loss of the sum over layers of the norm of their gates")
    learn: float = option(0.5, "share of the epochs in which all inputs are there; the rest trains those that are left")
    stop: Stop = option(
        "fall", "when gates have settled, to choose earlier: the fall or std of the transfer rate is small"
    )
    window: int = option(10, "epochs over which the transfer rate must have settled")
    settled: float = option(0.005, "fall or standard deviation of the transfer rate below which they have")
    itr: Formula = option(
        "pairs", "transfer rate: mean over pairs of source and layer, or over layers of all their gates"
    )
    init: Init = option("function", "function: the network computes what it did at first; fresh: stacks are drawn anew")
    conv: bool = option(False, "stacks of convolutions as well, their resolutions aligned by adaptive max pooling")

    def __post_init__(self) -> None:
        check_fraction(self.keep)
        if not 0 < self.tau < 1:
            raise ValueError(f"tau: must be above 0 and below 1, got {self.tau:g}")
        if not 0 < self.learn <= 1:
            raise ValueError(f"learn: must be above 0 and at most 1, got {self.learn:g}")
        for name, value in (("strength", self.strength), ("settled", self.settled)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name}: must be 0 or more, got {value:g}")
        if self.window < 1:
            raise ValueError(f"window: must be at least 1, got {self.window}")
        if self.form != "dsc" and self.gates not in ("effective", "contribution"):
            raise ValueError(f"gates: {self.form} has none, so inputs go by the norms of their columns: leave it out")
        if self.keep is not None:
            for name in ("min_accuracy", "max_drop"):
                if getattr(self, name) is not None:
                    raise ValueError(f"keep: it and --{name.replace('_', '-')} both say how much stays, give one")
            if self.gates not in ("effective", "contribution"):
                raise ValueError(f"keep: with --gates {self.gates} gates alone decide; leave it out, or give a --ratio")
        if self.min_accuracy is not None and self.max_drop is not None:
            raise ValueError("min_accuracy: it and --max-drop are both a floor, give one")
        if self.min_accuracy is not None and not 0 < self.min_accuracy <= 1:
            raise ValueError(f"min_accuracy: must be above 0 and at most 1, got {self.min_accuracy:g}")
        if self.max_drop is not None and not 0 <= self.max_drop <= 100:
            raise ValueError(f"max_drop: must be from 0 to 100 points, got {self.max_drop:g}")

    def start(self, context: Context) -> Session:
        """A session; raises InputError or ModelError where there is nothing to choose from, or not that much."""
        return Circuits(self, context)
