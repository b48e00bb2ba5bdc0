"""The smaller network as an ONNX file, where the network came from one."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import fx, nn

from compress.errors import ModelError
from compress.export.onnx import OnnxExport, Ports, export_onnx
from compress.graph import Program
from compress.pipeline.opening import Opened
from compress.progress import Progress

NAME = "model.onnx"
TOLERANCE = 1e-3  # relative; float32 in ONNX Runtime stays far below


@dataclass(frozen=True)
class SlicedOnnx:
    """What was written: files of the bundle by name, the error in ONNX Runtime, and what the user should know."""

    files: Mapping[str, Path] = field(default_factory=dict)
    error: float | None = None
    warnings: tuple[str, ...] = ()

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes, those of weights that lie beside the file included."""
        return {NAME: sum(each.stat().st_size for each in self.files.values())} if self.files else {}


@contextlib.contextmanager
def sliced_onnx(module: fx.GraphModule, opened: Opened, program: Program, progress: Progress) -> Iterator[SlicedOnnx]:
    """The file in a temporary folder, with the names and, if its operators allow, the opset of the original.

    Args:
        module: The smaller network.
        opened: The original; where it is no ONNX model, nothing is written.
        program: What it was cut from; its batch is that of the smaller one.
        progress: Told.
    """
    if opened.loaded.form != "onnx":
        yield SlicedOnnx()
        return
    progress.step(f"Writing {NAME}")
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = export_as(module, opened, _batch(program), Path(folder, NAME))
        except ModelError as error:
            warnings: tuple[str, ...] = (f"{NAME} was not written: {error}",)
            files: dict[str, Path] = {}
            worst = None
        else:
            files = {each.name: each for each in Path(folder).iterdir()}
            worst, warnings = done.max_error, tuple(_odd(done, opened, program))
        for warning in warnings:
            progress.warn(warning)
        yield SlicedOnnx(files, worst, warnings)


def export_as(
    module: nn.Module,
    opened: Opened,
    batch: int,
    target: Path,
    *,
    opset: int | None = None,
    exact: bool = True,
    against: nn.Module | None = None,
) -> OnnxExport:
    """The network in ONNX, as the ONNX model that it came from names its ports and its opset; else by default.

    Args:
        module: What is written.
        opened: Where it comes from.
        batch: Of the examples.
        target: The file.
        opset: This version of the operators.
        exact: Another one than `opset` is an error; else the oldest that can express the network will do.
        against: What the file is compared with; None for `module`.

    Raises:
        ModelError: It cannot be expressed.
    """
    facts, examples = opened.loaded.onnx, opened.examples(batch)
    ports = None
    if facts is not None:
        sizes = facts.sizes if facts.free else ()
        ports = Ports(facts.inputs, facts.outputs, facts.names, facts.batch, facts.ir, facts.metadata, sizes)
    exact = exact and opset is not None
    if opset is None and facts is not None:
        opset = facts.opset
    return export_onnx(module, examples, target, opset=opset, exact=exact, ports=ports, against=against)


def _batch(program: Program) -> int:
    """Of the examples."""
    return 2 if program.dynamic_batch else int(program.inputs[0].shape[0])


def _odd(done: OnnxExport, opened: Opened, program: Program) -> Iterator[str]:
    facts = opened.loaded.onnx
    asked = 0 if facts is None else facts.opset
    if facts is not None and any(map(any, facts.sizes)) and not done.open_sizes:
        names = ", ".join(dict.fromkeys(name for each in facts.sizes for name in each if name))
        yield f"{NAME} takes inputs of --input-shape alone, where the original leaves sizes open: {names}"
    if done.opset != asked:
        yield f"{NAME} has opset {done.opset} and the original {asked}: its operators cannot be written in that"
    if done.max_error > TOLERANCE:
        yield f"what {NAME} computes differs from the model by {done.max_error:.1e}"
    if not done.dynamic_batch:
        reason = done.reason if program.dynamic_batch else "the network is built for it, see the notes of the report"
        yield f"{NAME} takes batches of {_batch(program)} alone: {reason}"
