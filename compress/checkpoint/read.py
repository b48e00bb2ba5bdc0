"""Load a trained model from whatever form it was saved in: the one door to everything that follows."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from compress.checkpoint import arch as architectures
from compress.checkpoint.arch import Built
from compress.checkpoint.bundle import is_bundle, load_bundle, read_metadata
from compress.checkpoint.forms import Form, read_safetensors, sniff
from compress.checkpoint.hugging import from_folder, preprocessing, usual_inputs
from compress.checkpoint.onnx.facts import OnnxFacts, facts_of
from compress.checkpoint.pt2 import read_pt2
from compress.checkpoint.shards import read_config, read_shards, weight_files
from compress.checkpoint.statedict import Found, find_state_dict, multiplied, without_masks
from compress.checkpoint.torchfile import read_torch
from compress.checkpoint.torchscript import read_torchscript
from compress.errors import InputError
from compress.inputs import InputType, recorded_type, types_of

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class LoadedModel:
    """A model from a file.

    Attributes:
        module: In eval mode, on the CPU.
        path: The file or directory that was named.
        form: "state dict", "training checkpoint", "safetensors", "pt2", "onnx", "bundle", "module", "TorchScript",
            "sharded" or "Hugging Face folder".
        architecture: As ``--arch`` writes it; "graph" when the file holds its own graph.
        input_shapes: Of each input, without the batch; None if not known.
        sha256: Of the file (of a bundle: its model.safetensors; of several files: one after the other, by name).
        bytes: Its size.
        mean: Per channel, what inputs were normalised with, if the file says so.
        std: Likewise.
        notes: What was found and why, a sentence each.
        input_types: Of each input; empty if the shapes are not known.
        usual_shape: Nobody said the shapes; they are what the architecture usually takes.
        onnx: What the ONNX file says of itself that the network came from, also by way of a bundle.
        packed: How many tensors of a bundle lie in it as a bitmap and the values that are not zero.
    """

    module: nn.Module
    path: Path
    form: str
    architecture: str
    input_shapes: Shapes | None
    sha256: str
    bytes: int
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    notes: tuple[str, ...]
    input_types: tuple[InputType, ...] = ()
    usual_shape: bool = False
    onnx: OnnxFacts | None = None
    packed: int = 0


@dataclass(frozen=True)
class _Content:
    """What a form gives: the module with its architecture, and what the file says beside it."""

    form: str
    built: Built
    beside: Mapping[str, Any]
    shapes: Shapes | None = None
    types: tuple[InputType, ...] = ()
    onnx: OnnxFacts | None = None
    packed: int = 0


def load_model(
    path: str | Path,
    *,
    arch: str | None = None,
    arch_args: Mapping[str, Any] | None = None,
    input_shape: Sequence[int] | Sequence[Sequence[int]] | None = None,
    trust_pickle: bool = False,
    input_types: Sequence[InputType] = (),
    weights: str | None = None,
) -> LoadedModel:
    """The trained model in `path`, ready to run; nothing in the file is executed.

    Args:
        path: A state dict or training checkpoint of ``torch.save``, safetensors, a ``torch.export`` or TorchScript
            archive, an ONNX model, the index of weights in several files or a folder of them, or a bundle. What it is,
            is told by its content.
        arch: ``mlp:64-300-10``, ``torchvision:NAME``, ``timm:NAME``, ``package.module:factory`` or
            ``file.py:factory``. Without it, the file's own word or its names and shapes decide.
        arch_args: Keyword arguments of the factory.
        input_shape: Without the batch; a list of shapes for several inputs.
        trust_pickle: Unpickle a file that holds more than tensors, which runs whatever code it holds.
        input_types: Of each input; without them, the file's own word, or float32.
        weights: Which of several state dicts of a training checkpoint, by its keys: ``ema``, ``model/state_dict``.

    Raises:
        InputError: The file, its form, its architecture or the arguments are wrong; says what to do.
        ModelError: An ONNX model holds what cannot be read.
    """
    path = Path(path)
    form = sniff(path)
    try:
        if form == "onnx":
            content = _onnx(path, arch, input_shape, input_types)
        else:
            content = _read(path, form, arch, arch_args, trust_pickle, weights)
        digest, size = _identity(_files(path, form))
    except OSError as error:
        file = error.filename or path
        raise InputError(f"{file} cannot be read: {error.strerror or error}", "check its permissions") from error
    shapes, shape_notes, usual = _input_shapes(content, input_shape)
    return LoadedModel(
        module=content.built.module.eval(),
        path=path,
        form=content.form,
        architecture=content.built.architecture,
        input_shapes=shapes,
        sha256=digest,
        bytes=size,
        mean=_floats(content.beside.get("mean")),
        std=_floats(content.beside.get("std")),
        notes=(*content.built.notes, *shape_notes),
        input_types=types_of(input_types or content.types, len(shapes or ())),
        usual_shape=usual,
        onnx=content.onnx,
        packed=content.packed,
    )


def _files(path: Path, form: Form) -> tuple[Path, ...]:
    if form in ("folder", "index"):
        return weight_files(path)
    return (path / "model.safetensors" if path.is_dir() else path,)


def _identity(files: Sequence[Path]) -> tuple[str, int]:
    """The sha256 of the files one after the other, and their bytes."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest(), sum(file.stat().st_size for file in files)


def _read(
    path: Path,
    form: Form,
    arch: str | None,
    arch_args: Mapping[str, Any] | None,
    trust_pickle: bool,
    weights: str | None,
) -> _Content:
    if weights is not None and form not in ("torch zip", "torch legacy"):
        raise InputError(f"--weights is for training checkpoints of torch.save, {path} is none", "leave it out")
    if form == "pt2":
        archive = read_pt2(path)
        return _Content("pt2", _graph(archive.module, arch), {}, archive.input_shapes, archive.input_types)
    if form == "bundle" or (form == "safetensors" and is_bundle(path)):
        return _bundle(path, arch)
    if form in ("folder", "index"):
        return _several(path, arch, arch_args)
    if form == "torchscript":
        note = "parameters and buffers of a TorchScript archive; its code is not loaded"
        found = Found(read_torchscript(path), {}, (note,), nested=False)
        return _with_architecture("TorchScript", found, arch, arch_args)
    if form == "safetensors":
        state, metadata = read_safetensors(path)
        found = Found(state, {key: _json(value) for key, value in metadata.items()}, (), nested=False)
        return _with_architecture("safetensors", found, arch, arch_args)
    found = find_state_dict(read_torch(path, form, trust_pickle=trust_pickle), path, weights)
    if found.module is not None:
        name = f"{type(found.module).__module__}:{type(found.module).__qualname__}"
        return _Content("module", Built(found.module.cpu(), name, found.notes), found.beside)
    kind = "training checkpoint" if found.nested else "state dict"
    return _with_architecture(kind, found, arch, arch_args)


def _onnx(path: Path, arch: str | None, given: Any, types: Sequence[InputType]) -> _Content:
    from compress.checkpoint.onnx.reading import read_onnx  # ONNX Runtime takes a while to import

    found = read_onnx(path, None if given is None else _shapes(given), types)
    built = _graph(found.module, arch)
    built = Built(built.module, built.architecture, (*found.notes, *built.notes))
    return _Content("onnx", built, {}, found.shapes, found.types, found.facts)


def _several(path: Path, arch: str | None, arch_args: Mapping[str, Any] | None) -> _Content:
    """Weights in several files, or in a folder with a config.json that says of what."""
    config = read_config(path)
    if arch is None and (config.get("architectures") or config.get("model_type")):
        built = from_folder(path if path.is_dir() else path.parent, config)
        usual = usual_inputs(config, tuple(inspect.signature(built.module.forward).parameters))
        shapes, types = tuple(shape for shape, _ in usual) or None, tuple(kind for _, kind in usual)
        beside = preprocessing(read_config(path, "preprocessor_config.json"))
        return _Content("Hugging Face folder", built, beside, shapes, types)
    count = len(weight_files(path))
    notes = (f"weights of {count} files",) if count > 1 else ()
    beside = {"arch": f"timm:{config['architecture']}"} if isinstance(config.get("architecture"), str) else {}
    return _with_architecture("sharded", Found(read_shards(path), beside, notes, nested=False), arch, arch_args)


def _with_architecture(form: str, found: Found, arch: str | None, arch_args: Mapping[str, Any] | None) -> _Content:
    try:
        built = _built(found, arch, arch_args)
    except InputError:
        masked = multiplied(found.state)
        if not masked:
            raise
        weights = f"{masked[0]} and {len(masked) - 1} more" if len(masked) > 1 else masked[0]
        note = f"masks of torch.nn.utils.prune are multiplied into their weights: {weights}"
        found = replace(found, state=without_masks(found.state), notes=(*found.notes, note))
        built = _built(found, arch, arch_args)
    return _Content(form, Built(built.module, built.architecture, (*found.notes, *built.notes)), found.beside)


def _built(found: Found, arch: str | None, arch_args: Mapping[str, Any] | None) -> Built:
    said = found.beside.get("arch")
    if arch is not None:
        return architectures.build(arch, arch_args, found.state)
    if isinstance(said, str) and said:
        return architectures.from_file(said, found.beside, found.state)
    return architectures.find(found.state)


def _bundle(path: Path, arch: str | None) -> _Content:
    metadata = read_metadata(path)
    shapes = _shapes([each["shape"] for each in metadata["inputs"]])
    types = tuple(recorded_type(each) for each in metadata["inputs"])
    built = _graph(load_bundle(path), arch)
    record = metadata["stored"]
    sparse = sum("shape" in entry for entry in record.values())
    notes = [f"tensors of many zeros that are packed as a bitmap and values: {sparse}"] if sparse else []
    notes += ["weights are stored in fewer bits than they are computed with"] if len(record) > sparse else []
    built = Built(built.module, built.architecture, (*notes, *built.notes))
    return _Content("bundle", built, metadata, shapes, types, facts_of(metadata.get("onnx")), sparse)


def _graph(module: nn.Module, arch: str | None) -> Built:
    ignored = (f"--arch {arch} was not needed: the file holds its own graph",) if arch else ()
    return Built(module, "graph", ignored)


def _input_shapes(content: _Content, given: Any) -> tuple[Shapes | None, tuple[str, ...], bool]:
    """The input shapes, a note on where they come from (the user, the file, the architecture), and whether they are
    no more than what is usual for the architecture."""
    if given is not None:
        shapes = _shapes(given)
        if shapes is None:
            raise InputError(f"input shape {given!r} is not understood", "write for example 3,224,224")
        return shapes, (), False
    if content.shapes is not None:
        return content.shapes, (), False
    for key in ("input_shape", "input_size", "input_shapes"):
        if shapes := _shapes(_json(content.beside.get(key))):
            return shapes, (f"input shape {_written(shapes)}, as the checkpoint says",), False
    if shape := architectures.default_input_shape(content.built):
        note = f"input shape {_written((shape,))}, the usual one of {content.built.architecture}"
        return (shape,), (note,), not content.built.architecture.startswith("mlp:")
    return None, (), False


def _written(shapes: Shapes) -> str:
    return " and ".join("x".join(map(str, shape)) for shape in shapes)


def _shapes(value: Any) -> Shapes | None:
    """One shape or a list of shapes, as tuples; None when it is neither."""
    if not isinstance(value, (list, tuple)) or not value:
        return None
    rows = value if all(isinstance(each, (list, tuple)) for each in value) else [value]
    if not all(type(size) is int and size > 0 for row in rows for size in row):
        return None
    return tuple(tuple(row) for row in rows)


def _floats(value: Any) -> tuple[float, ...] | None:
    values = value if isinstance(value, (list, tuple)) else []
    usable = all(isinstance(each, (int, float)) and math.isfinite(each) for each in values)
    return tuple(float(each) for each in values) if values and usable else None


def _json(value: Any) -> Any:
    """Metadata values are strings; those that are JSON are read."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value
