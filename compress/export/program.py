"""What every export begins with: the traced program, example batches, silence, and a place to write."""

from __future__ import annotations

import contextlib
import copy
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from compress.checkpoint.onnx.sizes import Names
from compress.errors import InputError, ModelError
from compress.graph.quiet import quiet


@dataclass(frozen=True)
class Traced:
    """A program for export.

    Attributes:
        module: A copy of the module on the CPU, in eval mode; what the artifact is compared with.
        program: As ``torch.export`` gives it, without paths of the machine it was made on.
        inputs: The examples that it was traced with.
        dynamic_batch: Whether it takes any batch size.
        reason: Why not, "" if it does.
        open_sizes: Whether it also takes any of the other sizes that were asked for.
    """

    module: nn.Module
    program: ExportedProgram
    inputs: tuple[Tensor, ...]
    dynamic_batch: bool
    reason: str
    open_sizes: bool = False


def traced(module: nn.Module, inputs: Sequence[Tensor], sizes: Names = (), *, frozen: bool = False) -> Traced:
    """Trace `module` with a free batch size, or with that of `inputs` where it is built for one size.

    Args:
        module: Left as it is.
        inputs: Examples, batch first.
        sizes: By input and dim behind the batch the name of a size that shall be free where the module allows it.
        frozen: No parameter wants gradients. Where the mask of an attention wants some, other kernels with other
            strides are taken for it, and the ONNX exporter fails over that.

    Raises:
        ModelError: The module cannot be traced; the message says where.
    """
    network = copy.deepcopy(module).cpu().eval()
    if frozen:
        network.requires_grad_(False)
    given = tuple(each.detach().cpu() for each in inputs)
    # A batch of one is taken for a constant
    pairs = tuple(torch.cat([each, each]) if each.dim() and each.shape[0] == 1 else each for each in given)
    reason = ""
    for names in dict.fromkeys((sizes, ())):
        free = tuple(_free(each, i, names) for i, each in enumerate(pairs))
        try:
            copies = tuple(each.clone() for each in pairs)  # torch.export marks the free dims on the tensors
            return Traced(network, _export(network, copies, free), pairs, True, "", any(map(any, names)))
        except Exception as error:  # torch.export raises many kinds
            reason = first_line(error)
    try:
        return Traced(network, _export(network, given, None), given, False, reason)
    except Exception as error:  # as above
        raise ModelError(
            f"the model cannot be traced for export: {first_line(error)}",
            "run it once on the same input to see that it works",
        ) from error


def _free(example: Tensor, index: int, names: Names) -> dict[int, Any] | None:
    """By dim of an input what ``torch.export`` shall leave free."""
    open_ = names[index] if index < len(names) else ()
    dims = [0, *(dim for dim, name in enumerate(open_, 1) if name)]
    return dict.fromkeys(dims, torch.export.Dim.DYNAMIC) if example.dim() else None


def _export(network: nn.Module, inputs: tuple[Tensor, ...], shapes: Any) -> ExportedProgram:
    with quiet(), torch.no_grad():
        program = torch.export.export(network, inputs, dynamic_shapes=shapes, strict=False)
        network(*inputs)
    for graph in program.graph_module.modules():
        if isinstance(graph, fx.GraphModule):
            for node in graph.graph.nodes:
                node.meta.pop("stack_trace", None)
    return program


def first_line(error: BaseException) -> str:
    """The kind of an error and the first line of its message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def batch_of(inputs: Sequence[Tensor], size: int, seed: int = 0) -> tuple[Tensor, ...]:
    """Random inputs like the examples: normal where they are floats, else rows of the examples.

    Args:
        inputs: The examples, batch first.
        size: Samples.
        seed: Of the random numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    made = []
    for each in inputs:
        if not each.dim():
            made.append(each)
        elif each.is_floating_point():
            made.append(torch.randn((size, *each.shape[1:]), generator=generator).to(each.dtype))
        else:
            made.append(each[torch.randint(each.shape[0], (size,), generator=generator)])
    return tuple(made)


def random_batches(inputs: Sequence[Tensor], dynamic: bool) -> list[tuple[Tensor, ...]]:
    """Random inputs like the examples in batches of 1, 2 and 3, or of the one size that a file takes."""
    return [batch_of(inputs, size) for size in ((1, 2, 3) if dynamic else (inputs[0].shape[0],))]


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path of the same name in a temporary directory; what lies there moves to `path` if all goes well.

    Raises:
        InputError: `path` cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            yield Path(folder, path.name)
            # What it refers to goes first
            for file in sorted(Path(folder).iterdir(), key=lambda each: each.name == path.name):
                os.replace(file, path.parent / file.name)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error}", "choose another place") from error
