"""ONNX Runtime's run of a file, which the imported graph has to agree with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime
import torch
import torch.utils._pytree as pytree
from torch import Tensor

from compress.checkpoint.reload import largest_error
from compress.errors import InputError, ModelError


class Reference:
    """A file in ONNX Runtime; ``batch`` is the one that the file fixes, if it does.

    Raises:
        InputError: ONNX Runtime cannot load it.
    """

    def __init__(self, path: Path, inputs: Sequence[str], batch: int | None) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = torch.get_num_threads()
        self.path, self.inputs, self.batch = path, tuple(inputs), batch
        try:
            self.session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime has no common base for its errors
            raise InputError(f"{path} cannot be loaded by ONNX Runtime: {_line(error)}", "export it again") from error

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The outputs; where the file fixes the batch, of so many rows at a time, put together again.

        Raises:
            ModelError: It does not run.
        """
        rows = int(inputs[0].shape[0]) if inputs[0].dim() else 1
        size = rows if self.batch is None else self.batch
        parts: list[list[Tensor]] = []
        for start in range(0, rows, size):
            feed = {n: x[start : start + size].contiguous().numpy() for n, x in zip(self.inputs, inputs, strict=True)}
            try:
                parts.append([torch.as_tensor(each) for each in self.session.run(None, feed)])
            except Exception as error:  # as above
                raise ModelError(
                    f"{self.path} does not run in ONNX Runtime: {_line(error)}", "check --input-shape"
                ) from error
        if len(parts) == 1:
            return parts[0]
        return [torch.cat(each) if each[0].dim() else each[0] for each in zip(*parts, strict=True)]

    def check(self, found: Any, expected: list[Tensor], tolerance: float) -> None:
        """See that the graph computes the same.

        Raises:
            ModelError: It does not.
        """
        error = largest_error([x for x in pytree.tree_leaves(found) if isinstance(x, Tensor)], expected)
        if not error <= tolerance:
            raise ModelError(
                f"{self.path} computes something else as a graph than in ONNX Runtime: they differ by {error:.1e}",
                "report the file: one of its operators is read in another way than it is meant",
            )


def _line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]
