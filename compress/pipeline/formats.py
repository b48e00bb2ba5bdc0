"""One function for every format that a network is written in; each runs what it has written."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from compress.checkpoint.bundle import load_bundle
from compress.checkpoint.pt2 import read_pt2
from compress.errors import InputError
from compress.evaluate import evaluate
from compress.export.opset import opset_of
from compress.export.precision import lowered
from compress.export.pt2 import export_pt2
from compress.export.quantize import calibration_samples, export_int8
from compress.export.runtime import OnnxModule
from compress.graph import trace
from compress.pipeline.bundle import export_weights
from compress.pipeline.opening import Opened
from compress.pipeline.sliced_onnx import export_as
from compress.progress import Progress
from compress.request import Precision
from compress.result import Artifact

TYPES: dict[Precision, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16}
CALIBRATION = 512  # samples that show how large activations get
PER_CHANNEL = 13  # the opset from which on DequantizeLinear has an axis


def onnx(opened: Opened, target: Path, precision: Precision | None = None, opset: int | None = None) -> Artifact:
    """An ONNX file, computing in half of the precision where that is asked for."""
    network, inputs = opened.loaded.module, opened.examples(2)
    made = network if precision is None else lowered(network, inputs, TYPES[precision])
    done = export_as(made, opened, len(inputs[0]), target, opset=opset, against=network)
    return Artifact(done.path, "onnx", done.bytes, done.max_error, precision or "fp32")


def int8(opened: Opened, source: Path, target: Path, seed: int, progress: Progress) -> Artifact:
    """An ONNX file in eight bits, from one in float32 and training samples.

    One of an older opset than 13 is written anew for it, with the same names, as older ones have no scales per channel.

    Raises:
        InputError: There are no training samples.
    """
    if opened.data is None or opened.data.train is None:
        name = "--data" if opened.data is None else f"--data {opened.data.name}"
        raise InputError(
            f"{name}: it has no training samples, and int8 learns from some how large activations get",
            "name data with a training part, or --quantize fp16",
        )
    samples = calibration_samples(opened.data.train.inputs, CALIBRATION, seed)
    with tempfile.TemporaryDirectory() as folder:
        if opset_of(source) < PER_CHANNEL:
            progress.step(f"{target} has opset {PER_CHANNEL} or later: int8 has a scale for each channel from there on")
            network, source = opened.loaded.module, Path(folder, "model.onnx")
            export_as(network, opened, 2, source, opset=PER_CHANNEL, exact=False)
        done = export_int8(source, samples, target, against=opened.loaded.module)
    return Artifact(done.path, "onnx", done.bytes, done.max_error, "int8")


def pt2(opened: Opened, target: Path, precision: Precision | None = None) -> Artifact:
    """An exported program, computing in half of the precision where that is asked for."""
    network, inputs = opened.loaded.module, opened.examples(2)
    made = network if precision is None else lowered(network, inputs, TYPES[precision])
    done = export_pt2(made, inputs, target, against=network)
    return Artifact(done.path, "pt2", done.bytes, done.max_error, precision or "fp32")


def safetensors(opened: Opened, target: Path, precision: Precision | None = None, pack: bool = True) -> Artifact:
    """Weights and graph in one file; in lower precision they are stored, not computed with."""
    program = trace(opened.loaded.module, opened.examples(2))
    dtype = None if precision is None else TYPES[precision]
    error = export_weights(program, opened, target, pack=pack, precision=dtype)
    return Artifact(target, "safetensors", target.stat().st_size, error, precision or "fp32")


def judged(artifact: Artifact, opened: Opened, progress: Progress) -> Artifact:
    """With the accuracy of the file itself on the test samples: of an ONNX file in ONNX Runtime."""
    if opened.data is None or opened.unjudged is not None:
        return artifact
    accuracy = evaluate(_read(artifact), opened.data.test, progress=progress)
    return replace(artifact, accuracy=accuracy)


def _read(artifact: Artifact) -> nn.Module:
    if artifact.format == "onnx":
        return OnnxModule(artifact.path)
    return read_pt2(artifact.path).module if artifact.format == "pt2" else load_bundle(artifact.path)
