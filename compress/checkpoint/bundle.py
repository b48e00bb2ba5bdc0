"""Load a bundle: the network of ``model.safetensors`` from its own graph, without pickle or source code."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import safetensors
from safetensors import safe_open
from torch import nn

from compress.checkpoint.packing import restored
from compress.errors import InputError
from compress.graph.serial import graph_from_json

SCHEMA = "compress.bundle/1"
PACKED_SCHEMA = "compress.bundle/2"  # with tensors that are not stored as they are, which "compress.stored" tells
WEIGHTS = "model.safetensors"
_PREFIX = "compress."


_PACKED = "zlib:"
_LARGEST = 1 << 30  # of unpacked metadata, in bytes: a damaged or hostile file must not fill the memory


def packed(text: str) -> str:
    """Metadata as it is stored: long texts as ``zlib:`` and base64, so that small networks stay small files."""
    if len(text) < 1024:
        return text
    return _PACKED + base64.b64encode(zlib.compress(text.encode(), 9)).decode("ascii")


def _unpacked(text: str) -> str:
    if not text.startswith(_PACKED):
        return text
    reader = zlib.decompressobj()
    content = reader.decompress(base64.b64decode(text.removeprefix(_PACKED), validate=True), _LARGEST)
    if not reader.eof:
        raise ValueError("it is cut off or too large")
    return content.decode()


def weights_of(path: str | Path) -> Path:
    """The weights file of a bundle that is named by its directory or by that file.

    Raises:
        InputError: There is none.
    """
    path = Path(path)
    file = path / WEIGHTS if path.is_dir() else path
    if file.is_file():
        return file
    if path.is_dir():
        raise InputError(f"{path} is not a bundle: it has no {WEIGHTS}", "give a directory that was written")
    raise InputError(f"{path} does not exist", "give the directory of a bundle or its model.safetensors")


def is_bundle(path: str | Path) -> bool:
    """Whether there is a bundle of any version."""
    try:
        with _open(weights_of(path)) as opened:
            return f"{_PREFIX}schema" in (opened.metadata() or {})
    except InputError:
        return False


def read_metadata(path: str | Path) -> dict[str, Any]:
    """What a bundle says about itself, JSON values read and the prefix ``compress.`` taken off the keys.

    Returns:
        "schema", "graph", "inputs" (a list of {"shape": sizes without the batch, "dtype": name} and,
        for integers with a bound, "below"),
        "provenance", "plan" (None if nothing was removed), "stored" (by name what a tensor that is not stored as it is
        has to become, see :mod:`compress.checkpoint.packing`), and whatever else was written beside them.

    Raises:
        InputError: Not a bundle, a newer one than this version reads, or damaged metadata.
    """
    file = weights_of(path)
    with _open(file) as opened:
        return _metadata(file, opened.metadata())


def load_bundle(path: str | Path) -> nn.Module:
    """The network of a bundle, in eval mode on the CPU, with the parameter names of the original model.

    Args:
        path: The directory, or the ``model.safetensors`` in it.

    Raises:
        InputError: As :func:`read_metadata`; or the graph is damaged or names what is not an operation.
    """
    file = weights_of(path)
    with _open(file) as opened:
        metadata = _metadata(file, opened.metadata())
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  (not a dict)
    try:
        return graph_from_json(metadata["graph"], restored(tensors, metadata["stored"]))
    except InputError as error:
        raise InputError(f"{file}: {error}", error.hint) from error


def _open(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt", device="cpu")
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{file} is truncated or no safetensors file: {error}", "write it again") from error


def _metadata(file: Path, stored: dict[str, str] | None) -> dict[str, Any]:
    schema = (stored or {}).get(f"{_PREFIX}schema")
    if stored is None or schema is None:
        raise InputError(
            f"{file} holds tensors but no network, so it is not a bundle",
            "name its architecture with --arch, or give the directory of a bundle",
        )
    if schema not in (SCHEMA, PACKED_SCHEMA):
        raise InputError(
            f"{file} has the schema {schema!r}, this version reads {SCHEMA!r} and {PACKED_SCHEMA!r}",
            "update the package to load it",
        )
    made: dict[str, Any] = {"plan": None, "stored": {}}
    for key, text in stored.items():
        if not key.startswith(_PREFIX):
            continue
        name = key.removeprefix(_PREFIX)
        try:
            made[name] = text if name == "schema" else json.loads(_unpacked(text))
        except (ValueError, RecursionError, zlib.error) as error:
            raise InputError(f"{file}: its metadata {key!r} is damaged: {error}", "write it again") from error
    for name in ("graph", "inputs", "provenance"):
        if name not in made:
            raise InputError(f"{file}: its metadata lacks {_PREFIX + name!r}", "write the bundle again")
    if not isinstance(made["stored"], dict):
        raise InputError(f"{file}: its metadata {_PREFIX + 'stored'!r} is damaged", "write the bundle again")
    inputs = made["inputs"]
    if not (isinstance(inputs, list) and all(isinstance(i, dict) and isinstance(i.get("shape"), list) for i in inputs)):
        raise InputError(f"{file}: its metadata {_PREFIX + 'inputs'!r} is damaged", "write the bundle again")
    return made
