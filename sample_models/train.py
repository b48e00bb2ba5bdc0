"""Train the sample models on scikit-learn's digits and save each in its own file form.

    python sample_models/train.py [--only NAME] [--out DIR] [--validate]

The schedule is fixed and the last epoch is what gets saved: the held-out images serve only to print the
accuracy at the end. To try another schedule or width, `--validate` sets a fifth of the *training* images
aside, reports on those, and saves nothing.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import architectures
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save as safetensors_bytes
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

SEED = 0
BATCH = 64
LABEL_SMOOTHING = 0.1
WARMUP = 0.1  # share of all steps in which the learning rate rises to its peak
MLP_SIZES = (64, 300, 100, 10)


@dataclass(frozen=True)
class Split:
    """Images of shape (N, 1, 8, 8), float32 in [0, 1], and their digits, int64 of shape (N,)."""

    images: Tensor
    digits: Tensor


@dataclass(frozen=True)
class Sample:
    """One model to train: its file, how to build it, how to turn it into bytes, and its schedule."""

    file: str
    build: Callable[[], nn.Module]
    encode: Callable[[nn.Module, int], bytes]
    epochs: int
    rate: float
    decay: float


def load_split() -> tuple[Split, Split]:
    """The 1,437 training and 360 held-out images: stratified, and the same at every call."""
    data = load_digits()
    images = torch.from_numpy((data.images / 16.0).astype(np.float32))[:, None]
    digits = torch.from_numpy(data.target.astype(np.int64))
    train, test = train_test_split(
        np.arange(len(data.target)), test_size=360, random_state=0, stratify=data.target
    )
    return Split(images[train], digits[train]), Split(images[test], digits[test])


def validation_split(training: Split) -> tuple[Split, Split]:
    """The training images alone, stratified into four fifths to fit and one fifth to choose by."""
    fit, validation = train_test_split(
        np.arange(len(training.digits)), test_size=0.2, random_state=0, stratify=training.digits.numpy()
    )
    return Split(training.images[fit], training.digits[fit]), Split(
        training.images[validation], training.digits[validation]
    )


def mlp() -> nn.Module:
    """The ReLU network that the architecture string "mlp:64-300-100-10" stands for."""
    layers: list[nn.Module] = [nn.Flatten()]
    for index, (inputs, outputs) in enumerate(pairwise(MLP_SIZES)):
        layers += [nn.ReLU()] if index else []
        layers.append(nn.Linear(inputs, outputs))
    return nn.Sequential(*layers)


def _torch_bytes(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def encode_checkpoint(model: nn.Module, epochs: int) -> bytes:
    """A training checkpoint: the state dict under a key, beside the epoch and what the model is."""
    return _torch_bytes(
        {
            "state_dict": dict(model.state_dict()),
            "epoch": epochs,
            "arch": "mlp:" + "-".join(map(str, MLP_SIZES)),
            "input_shape": [64],
            "data": "digits",
        }
    )


def encode_safetensors(model: nn.Module, epochs: int) -> bytes:
    """Safetensors whose metadata names the factory, the input shape and the data."""
    metadata = {
        "arch": "sample_models/architectures.py:residual_cnn",
        "input_shape": json.dumps([1, 8, 8]),
        "data": "digits",
    }
    content = safetensors_bytes(model.state_dict(), metadata)
    # The library writes the metadata in an order that changes from run to run. The header is the length
    # (8 bytes, little endian), then JSON padded with spaces; sorted metadata makes equal runs equal bytes.
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    return len(encoded).to_bytes(8, "little") + encoded + content[end:]


def encode_state_dict(model: nn.Module, epochs: int) -> bytes:
    """Nothing but the state dict."""
    return _torch_bytes(dict(model.state_dict()))


def encode_exported(model: nn.Module, epochs: int) -> bytes:
    """An exported program with a dynamic batch; it needs no class to run."""
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(
        model.eval(), (torch.zeros(2, 1, 8, 8),), strict=False, dynamic_shapes=shapes
    )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # would carry the paths of the machine that trained the model
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


SAMPLES = {
    "mlp": Sample("digits_mlp.pt", mlp, encode_checkpoint, epochs=100, rate=2e-3, decay=0.02),
    "resnet": Sample(
        "digits_resnet.safetensors", architectures.residual_cnn, encode_safetensors, 20, rate=4e-3, decay=0.05
    ),
    "mobile": Sample(
        "digits_mobile.pt", architectures.mobile_cnn, encode_state_dict, 30, rate=4e-3, decay=0.05
    ),
    "vit": Sample("digits_vit.pt2", architectures.vit, encode_exported, 80, rate=3e-3, decay=0.05),
}


def shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """Move each image of (N, 1, 8, 8) by up to one pixel along both axes; what comes in is zero."""
    count, _, height, width = images.shape
    padded = F.pad(images, (1, 1, 1, 1))[:, 0]
    rows = torch.randint(3, (count, 1), generator=generator) + torch.arange(height)
    columns = torch.randint(3, (count, 1), generator=generator) + torch.arange(width)
    return padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]][:, None]


def parameter_groups(model: nn.Module, decay: float) -> list[dict[str, object]]:
    """Weight decay for matrices and kernels alone, not for biases and norms."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def train(sample: Sample, data: Split) -> nn.Module:
    """Train a new model on `data` with AdamW, warm-up and a cosine schedule; returns it in eval mode."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    model = sample.build().train()
    optimizer = torch.optim.AdamW(parameter_groups(model, sample.decay), lr=sample.rate)
    # The last, smaller batch of an epoch is left out; another permutation leaves out other images.
    batches = len(data.digits) // BATCH
    steps = sample.epochs * batches

    def factor(step: int) -> float:
        cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
        return cosine * min(1.0, (step + 1) / (WARMUP * steps))

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    for _ in range(sample.epochs):
        order = torch.randperm(len(data.digits), generator=generator)
        for batch in order[: batches * BATCH].split(BATCH):
            logits = model(shift(data.images[batch], generator))
            loss = F.cross_entropy(logits, data.digits[batch], label_smoothing=LABEL_SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
    return model.eval()


@torch.no_grad()
def correct(model: nn.Module, data: Split) -> int:
    """How many images of `data` the model gets right."""
    return int((model(data.images).argmax(1) == data.digits).sum())


def write(path: Path, content: bytes) -> None:
    """Write under a temporary name, then rename: an interrupted run leaves the old file whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def run(sample: Sample, training: Split, test: Split, out: Path | None) -> None:
    """Train one model, write its file into `out` (None: nowhere) and print what it reaches on `test`."""
    start = time.perf_counter()
    model = train(sample, training)
    seconds = time.perf_counter() - start
    content = sample.encode(model, sample.epochs)
    if out is not None:
        write(out / sample.file, content)
    right, count = correct(model, test), len(test.digits)
    parameters = sum(p.numel() for p in model.parameters())
    print(
        f"{sample.file}: {right} of {count} {'validation' if out is None else 'held-out'} images right "
        f"({100 * right / count:.2f} %), {parameters:,} parameters, {len(content):,} bytes, "
        f"{sample.epochs} epochs in {seconds:.0f} s",
        flush=True,
    )


def main() -> None:
    """Read the command line and train what it asks for."""
    parser = argparse.ArgumentParser(description="Train the sample models on scikit-learn's digits.")
    parser.add_argument("--only", choices=sorted(SAMPLES), help="train this one alone (default: all four)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder for the files")
    parser.add_argument("--validate", action="store_true", help="report on training images set aside")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    training, test = load_split()
    out: Path | None = options.out
    if options.validate:
        training, test = validation_split(training)
        out = None
    else:
        options.out.mkdir(parents=True, exist_ok=True)
    for name in [options.only] if options.only else list(SAMPLES):
        run(SAMPLES[name], training, test, out)


if __name__ == "__main__":
    main()
