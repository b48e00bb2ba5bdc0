"""What of a model may be pruned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from compress import searching
from compress.cli.groups import flag
from compress.request import Granularity

_SCOPE = "What may be pruned"


@dataclass(frozen=True)
class Scope:
    """What of the model may go."""

    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB",
            help="Prune these layers alone; repeatable.",
            show_default=False,
            rich_help_panel=_SCOPE,
        ),
    ] = None
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB",
            help="Leave these layers as they are; repeatable.",
            show_default=False,
            rich_help_panel=_SCOPE,
        ),
    ] = None
    prune_outputs: Annotated[
        bool,
        flag("--prune-outputs", help="Let the model's outputs shrink too.", rich_help_panel=_SCOPE),
    ] = False
    allow_frozen: Annotated[
        bool,
        flag(
            "--allow-frozen",
            help="Prune frozen parameters too (requires_grad is False); by default they keep their size.",
            rich_help_panel=_SCOPE,
        ),
    ] = False

    def source(self) -> searching.Scope:
        """What a search wants of these."""
        return searching.Scope(tuple(self.only or ()), tuple(self.exclude or ()), self.prune_outputs, self.allow_frozen)


@dataclass(frozen=True)
class Kinds(Scope):
    """As `Scope`, and whether units or weights go, and of what class."""

    granularity: Annotated[
        Granularity,
        typer.Option(
            help="For methods that pick single weights: unit removes whole units by what is left of them; weight "
            "zeroes the weights and removes the units that are dead then.",
            rich_help_panel=_SCOPE,
        ),
    ] = "unit"
    keep_module: Annotated[
        bool,
        flag(
            "--keep-module",
            help="Prune only what the original class can represent; its state dict is written too.",
            rich_help_panel=_SCOPE,
        ),
    ] = False

    def settings(self) -> dict[str, Any]:
        """The fields of a PruneRequest."""
        return {**vars(self), "only": tuple(self.only or ()), "exclude": tuple(self.exclude or ())}


@dataclass(frozen=True)
class KindsAndInputs(Kinds):
    """As `Kinds`, and the inputs, which a training reads all."""

    prune_inputs: Annotated[
        bool,
        flag(
            "--prune-inputs",
            help="Let the model read fewer of its input features, where an input is (N, F). It still takes all.",
            rich_help_panel=_SCOPE,
        ),
    ] = False
