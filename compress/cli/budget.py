"""How small the model shall get, and how that is spread over its layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from compress import registry
from compress.cli import parse
from compress.cli.output import Output
from compress.request import DEFAULT_RATIO, Allocation, BudgetTarget, Target

_BUDGET = "Budget (one of these)"
_WIDTHS = "From the budget to widths"


def _amount(help: str) -> Any:
    return typer.Option(metavar="AMOUNT", help=help, rich_help_panel=_BUDGET)


def _width(**settings: Any) -> Any:
    return typer.Option(rich_help_panel=_WIDTHS, **settings)


@dataclass(frozen=True)
class Sizes:
    """How small the model shall get; one of these. All of them can be counted before the result is there."""

    ratio: Annotated[
        float | None,
        typer.Option(
            metavar="FRACTION",
            help=f"Units to remove, between 0 and 1. {DEFAULT_RATIO} where a method needs a budget and none is given.",
            show_default=False,
            rich_help_panel=_BUDGET,
        ),
    ] = None
    macs: Annotated[
        str | None,
        _amount("Multiply-accumulates to keep per sample: a fraction such as 0.5, or a number such as 2G."),
    ] = None
    params: Annotated[str | None, _amount("Parameters to keep: a fraction such as 0.5, or a number such as 3M.")] = None
    bytes: Annotated[
        str | None,
        _amount(
            "Size of the written model.safetensors: a size such as 5MB, or a fraction such as 0.5 of what the whole "
            "model takes as one. Weights and buffers in their precision, with graph and plan."
        ),
    ] = None

    def given(self) -> BudgetTarget | None:
        """The one that was typed. Raises InputError."""
        return parse.budget(self.ratio, self.macs, self.params, self.bytes)

    def chosen(self, method: str, output: Output) -> BudgetTarget | None:
        """The budget; None where none was given and the method does without. Raises InputError."""
        given = self.given()
        if given is not None or registry.find(method).kind != "criterion":
            return given
        output.step(f"No budget given: {DEFAULT_RATIO:.0%} will go (--ratio {DEFAULT_RATIO})")
        return BudgetTarget("ratio", DEFAULT_RATIO)


@dataclass(frozen=True)
class Budget(Sizes):
    """As `Sizes`, or how fast."""

    latency: Annotated[
        str | None,
        _amount(
            "Time of one sample on --target: a fraction to keep such as 0.5, or a time such as 8ms or 500us. Layers "
            "are measured there, and so is the result, on --threads threads, 1 where left out."
        ),
    ] = None

    def given(self) -> BudgetTarget | None:
        """The one that was typed. Raises InputError."""
        return parse.budget(self.ratio, self.macs, self.params, self.bytes, self.latency)


@dataclass(frozen=True)
class Spread:
    """How a budget becomes widths."""

    allocation: Annotated[
        Allocation,
        _width(
            help="local: the same fraction of every group. global: all units are ranked together by their scores. "
            "block: ranked together by score over the mean score of their block. Ranked together, a group keeps a "
            "tenth of its units at least."
        ),
    ] = "local"
    ratio_of: Annotated[
        list[str] | None,
        _width(
            metavar="GLOB=FRACTION",
            help="Remove this fraction of these layers, whatever the budget, which the rest meets; 0 leaves them "
            "whole. Repeatable; of several that match the last holds.",
            show_default=False,
        ),
    ] = None
    round_to: Annotated[
        str,
        _width(
            metavar="N",
            help="Make smaller widths multiples of N, the nearest that the budget allows. auto: as --target likes "
            "them. none: any.",
        ),
    ] = "none"
    target: Annotated[
        Target,
        _width(
            help="Where the model will run, for --latency and --round-to auto; onnxruntime-cpu speaks of this "
            "machine's CPU."
        ),
    ] = "onnxruntime-cpu"
    steps: Annotated[
        int,
        _width(
            metavar="N",
            help="Approach the budget in N equal rounds; in each, units are scored anew on the network as it is then.",
        ),
    ] = 1

    def settings(self) -> dict[str, Any]:
        """The fields of a PruneRequest. Raises InputError."""
        return {
            "allocation": self.allocation,
            "ratio_of": tuple(parse.fraction_of(text) for text in self.ratio_of or ()),
            "round_to": parse.round_to(self.round_to),
            "target": self.target,
            "steps": self.steps,
        }
