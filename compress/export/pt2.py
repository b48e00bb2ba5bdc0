"""The archive of ``torch.export``, for ``torch.export.load`` and ahead-of-time compilers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from compress.checkpoint.reload import apart, largest_error
from compress.errors import CompressError, ModelError
from compress.export.program import Traced, first_line, random_batches, traced, whole
from compress.graph.quiet import quiet

# Run by a new process that has PyTorch and nothing of this package
_ALONE = """
import sys
path, count, given, made, *libraries = sys.argv[1:]
sys.path[:0] = [path for path in libraries if path not in sys.path]
import torch
from safetensors.torch import load_file, save_file
module, leaves = torch.export.load(path).module(), []
inputs = [value for _, value in sorted(load_file(given).items())]
for start in range(0, len(inputs), int(count)):
    found = module(*inputs[start:start + int(count)])
    leaves += [each for each in torch.utils._pytree.tree_leaves(found) if isinstance(each, torch.Tensor)]
save_file({f"{index:06d}": each.detach().contiguous().clone() for index, each in enumerate(leaves)}, made)
"""


@dataclass(frozen=True)
class Pt2Export:
    """An archive that was written and loaded again in a new process.

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


def export_pt2(
    module: nn.Module, inputs: Sequence[Tensor], path: str | Path, *, against: nn.Module | None = None
) -> Pt2Export:
    """Write `module` as a ``.pt2`` archive and compare what it computes when a new process has loaded it.

    The archive holds no example inputs, which are its only pickle, and no paths of source files.

    Args:
        module: Any module; it is not changed.
        inputs: Examples, batch first.
        path: Where; an existing file is replaced.
        against: What the archive is compared with; None for `module`.

    Raises:
        ModelError: The module cannot be traced, written or loaded again.
        InputError: `path` cannot be written.
    """
    path = Path(path)
    start = traced(module, inputs)
    start.program._example_inputs = None
    with whole(path) as target:
        try:
            with quiet(), target.open("wb") as file:
                torch.export.save(start.program, file)
        except (RuntimeError, TypeError, ValueError, NotImplementedError, AssertionError) as error:
            raise ModelError(f"the model cannot be written as .pt2: {first_line(error)}") from error
        worst = _compared(target, start.module if against is None else against, start)
        size_on_disk = target.stat().st_size
    return Pt2Export(path, size_on_disk, worst, start.dynamic_batch, start.reason)


def _compared(file: Path, module: nn.Module, start: Traced) -> float:
    """The largest relative error over batches of several sizes, which the model may change in place."""
    batches = random_batches(start.inputs, start.dynamic_batch)
    with torch.no_grad():
        expected = [module(*(x.clone() for x in batch)) for batch in batches]
    try:
        found = apart(_ALONE, (file.resolve(), str(len(start.inputs))), batches)
    except CompressError as error:
        raise ModelError(f"the written .pt2 does not load in a new process: {error}") from error
    return largest_error(found, expected)
