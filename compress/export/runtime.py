"""ONNX files run: in this process as a module, and in a new one that knows ONNX Runtime alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn

from compress.checkpoint.reload import apart, largest_error
from compress.errors import CompressError, ModelError
from compress.export.program import first_line

_ALONE = """
import sys
path, given, made, *libraries = sys.argv[1:]
sys.path[:0] = [path for path in libraries if path not in sys.path]
import onnxruntime
from safetensors.numpy import load_file, save_file
options = onnxruntime.SessionOptions()
options.log_severity_level = 4
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
inputs = [value for _, value in sorted(load_file(given).items())]
outputs = session.run(None, {each.name: value for each, value in zip(session.get_inputs(), inputs, strict=True)})
save_file({f"{index:06d}": value for index, value in enumerate(outputs)}, made)
"""


class OnnxModule(nn.Module):
    """An ONNX file in ONNX Runtime on the CPU; takes and gives tensors, of any batch even where the file fixes one.

    Raises:
        ModelError: ONNX Runtime cannot load or run it.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime has no common base for its errors
            raise ModelError(f"the exported ONNX file does not run: {first_line(error)}") from error
        given = self.session.get_inputs()
        self.names = [each.name for each in given]
        sizes = [each.shape[0] for each in given if each.shape]
        self.batch = next((size for size in sizes if isinstance(size, int)), None)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs in order, batch first."""
        size = inputs[0].shape[0] if inputs[0].dim() else 1
        if self.batch is None or size == self.batch:
            return self._run(inputs)
        pieces = []
        for start in range(0, size, self.batch):
            rows = torch.arange(start, start + self.batch).clamp(max=size - 1)  # the last batch is filled up
            pieces.append(self._run([x[rows] if x.dim() else x for x in inputs]))
        return tuple(torch.cat(each)[:size] for each in zip(*pieces, strict=True))

    def _run(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        feed = {name: x.detach().contiguous().numpy() for name, x in zip(self.names, inputs, strict=True)}
        try:
            return tuple(torch.as_tensor(each) for each in self.session.run(None, feed))
        except Exception as error:  # as above
            raise ModelError(f"the exported ONNX file does not run: {first_line(error)}") from error


def compared(file: Path, module: nn.Module, batches: Sequence[Sequence[Tensor]]) -> tuple[float, float | None]:
    """How far the outputs of a file are from those of the module; the first batch is run in a new process, too.

    Returns:
        The largest relative difference, and the share of samples with the same largest class: None where the output
        is not (batch, classes).

    Raises:
        ModelError: The file does not run.
    """
    again = OnnxModule(file)
    worst, same, count = 0.0, 0, 0
    for index, batch in enumerate(batches):
        found = again(*batch)
        with torch.no_grad():
            outputs: Any = module(*(x.clone() for x in batch))
        expected = [each for each in pytree.tree_leaves(outputs) if isinstance(each, Tensor)]
        worst = max(worst, largest_error(found, expected))
        if index == 0:
            worst = max(worst, largest_error(_alone(file, batch), expected))
        if expected and expected[0].dim() == 2 and found[0].shape == expected[0].shape:
            same += int((found[0].argmax(1) == expected[0].argmax(1)).sum())
            count += len(expected[0])
    return worst, same / count if count else None


def _alone(file: Path, batch: Sequence[Tensor]) -> list[Tensor]:
    try:
        return apart(_ALONE, (file.resolve(),), list(batch))
    except CompressError as error:
        raise ModelError(f"the exported ONNX file does not run in a new process: {error}") from error
