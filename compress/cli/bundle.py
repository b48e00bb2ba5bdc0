"""Options that commands share which write a bundle: where it goes, and whether its layers are refitted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from compress.cli.groups import flag
from compress.request import Refit

Bundle = Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The bundle to write.")]
Force = Annotated[bool, flag("--force", help="Replace DIR even where it is no bundle.")]
Refitted = Annotated[
    Refit,
    typer.Option(
        help="What is refitted: the statistics of batch norms, all layers one by one, or layers also together with "
        "those before them (joint: more accurate, up to minutes). auto: joint for reconstruct, layers for others."
    ),
]


def calibration(help: str) -> Any:
    """The option that switches the refit off, which means something else in each command."""
    return typer.Option("--calibrate/--no-calibrate", metavar="", help=help)
