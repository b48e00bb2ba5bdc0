"""The archive of ``torch.export``, for ``torch.export.load`` and ahead-of-time compilers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from compress.checkpoint.reload import largest_error
from compress.errors import ModelError
from compress.export.program import batch_of, first_line, traced, whole
from compress.graph.quiet import quiet


@dataclass(frozen=True)
class Pt2Export:
    """An archive that was written and loaded again.

    Attributes:
        path: The file.
        bytes: Its size.
        max_error: Largest relative difference of its outputs from those of the model,
            max |a - b| / max(1, max |b|), on random inputs.
        dynamic_batch: Whether it takes any batch size.
        reason: Why not, "" if it does.
    """

    path: Path
    bytes: int
    max_error: float
    dynamic_batch: bool
    reason: str


def export_pt2(module: nn.Module, inputs: Sequence[Tensor], path: str | Path) -> Pt2Export:
    """Write `module` as a ``.pt2`` archive and compare what it computes after loading it again.

    The archive holds no example inputs, which are its only pickle, and no paths of source files.

    Args:
        module: Any module; it is not changed.
        inputs: Examples, batch first.
        path: Where; an existing file is replaced.

    Raises:
        ModelError: The module cannot be traced, written or loaded again.
        InputError: `path` cannot be written.
    """
    path = Path(path)
    start = traced(module, inputs)
    start.program._example_inputs = None
    with whole(path) as target:
        try:
            with quiet():
                with target.open("wb") as file:
                    torch.export.save(start.program, file)
                with target.open("rb") as file:
                    again = torch.export.load(file).module()
        except (RuntimeError, TypeError, ValueError, NotImplementedError, AssertionError) as error:
            raise ModelError(f"the model cannot be written as .pt2: {first_line(error)}") from error
        worst = 0.0
        for size in (1, 2, 3) if start.dynamic_batch else (start.inputs[0].shape[0],):
            # Each its own batch: the model may work in place on its input
            one, other = batch_of(start.inputs, size), batch_of(start.inputs, size)
            with torch.no_grad():
                worst = max(worst, largest_error(again(*one), start.module(*other)))
        size_on_disk = target.stat().st_size
    return Pt2Export(path, size_on_disk, worst, start.dynamic_batch, start.reason)
