"""Networks in eight bits, by ONNX Runtime's static quantisation."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress.errors import ModelError
from compress.export.onnx import ONE_FILE, save
from compress.export.program import first_line, whole
from compress.export.runtime import OnnxModule, compared
from compress.export.trim import trim
from compress.graph.quiet import quiet

_BATCH = 64


@dataclass(frozen=True)
class Int8Export:
    """An ONNX file with weights and activations of eight bits that was written and run.

    Attributes:
        path: The file; weights of 2 GB and more lie beside it in ``NAME.data``.
        bytes: Its size, with that of the file beside it.
        max_error: Largest relative difference of its outputs from those of the model on the samples that it was
            calibrated on (the first 64), one batch of them in a new process.
        samples: How many it was calibrated on.
    """

    path: Path
    bytes: int
    max_error: float
    samples: int


def export_int8(source: str | Path, samples: Tensor, path: str | Path, *, against: nn.Module) -> Int8Export:
    """Quantise an ONNX file: weights per channel to int8, activations to uint8 by the range that samples have.

    The result holds QuantizeLinear and DequantizeLinear operations around those that a runtime then computes with
    integers (Jacob et al. 2018, arXiv:1712.05877, eq. 1 and 12); batch norms are folded and shapes inferred before.
    Activations are unsigned, as the dot products of x86 are made for that: they are several times as fast there as
    those of signed ones.

    Args:
        source: The file, of one float input.
        samples: (N, ...) inputs that are typical of those to come.
        path: Where; an existing file is replaced.
        against: The network that the result is compared with.

    Raises:
        ModelError: The network cannot be quantised, or the result does not run.
        InputError: `path` cannot be written.
    """
    path, source = Path(path), Path(source)
    with whole(path) as target:
        _quantise(source, samples, target)
        count = min(len(samples), _BATCH)
        batches = [samples[: max(1, count // 2)], samples[:count]]
        error, _ = compared(target, against, [(each,) for each in batches])
        size = sum(each.stat().st_size for each in target.parent.iterdir())
    return Int8Export(path, size, error, len(samples))


class _Samples:
    """Calibration samples in the batches that the file takes, as ONNX Runtime asks for them."""

    def __init__(self, file: Path, samples: Tensor) -> None:
        network = OnnxModule(file)
        size = network.batch or _BATCH
        # A file of one batch size takes no smaller one
        short = len(samples) % size if network.batch and len(samples) >= size else 0
        self.rows = iter(samples[: len(samples) - short].split(size))
        self.name = network.names[0]

    def get_next(self) -> dict[str, Any] | None:
        """The next batch by the name of the input; None after the last."""
        batch = next(self.rows, None)
        return None if batch is None else {self.name: batch.contiguous().numpy()}


def _quantise(source: Path, samples: Tensor, target: Path) -> None:
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    large = _size(source) >= ONE_FILE
    with tempfile.TemporaryDirectory() as folder, _silent():
        ready, raw = Path(folder, "ready.onnx"), Path(folder, "int8.onnx")
        try:
            _prepare(source, ready, large)
            quantize_static(
                ready,
                raw,
                _Samples(source, samples),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                use_external_data_format=large,
            )
            model = onnx.load(raw)
        except Exception as error:  # the library raises many kinds
            raise ModelError(f"the model cannot be quantised: {first_line(error)}", "--quantize fp16") from error
    trim(model)
    save(model, target, _size(source) // 4 if large else 0)


def _prepare(source: Path, ready: Path, large: bool) -> None:
    """Shapes inferred and batch norms folded; symbolic inference does not know all operations."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    failure: Exception | None = None
    for skip in (False, True):
        try:
            return quant_pre_process(
                source, ready, skip_symbolic_shape=skip, save_as_external_data=large, all_tensors_to_one_file=large
            )
        except Exception as error:  # the library raises many kinds
            failure = error
    assert failure is not None
    raise failure


def _size(file: Path) -> int:
    beside = file.with_name(f"{file.name}.data")
    return file.stat().st_size + (beside.stat().st_size if beside.exists() else 0)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """ONNX Runtime writes warnings to the terminal itself."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    try:
        with quiet():
            yield
    finally:
        onnxruntime.set_default_logger_severity(2)


def calibration_samples(inputs: Tensor, count: int, seed: int) -> Tensor:
    """``count`` rows of the inputs (or all), drawn without replacement; the same for the same seed."""
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed))
    return inputs[order[:count]]


__all__: Sequence[str] = ["Int8Export", "calibration_samples", "export_int8"]
