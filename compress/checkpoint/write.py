"""Write a bundle: the compressed network with its graph, plan, reports and recipe in one directory."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, fx

from compress.checkpoint.bundle import PACKED_SCHEMA, SCHEMA, WEIGHTS, is_bundle, load_bundle, packed, read_metadata
from compress.checkpoint.folder import check_place, write_folder
from compress.checkpoint.packing import Record, stored
from compress.checkpoint.reload import reload_error
from compress.errors import InputError, ModelError
from compress.graph.serial import graph_tensors, graph_to_json

__all__ = [
    "SCHEMA",
    "bundle_bytes",
    "bundle_size",
    "check_output",
    "load_bundle",
    "read_metadata",
    "reload_error",
    "write_bundle",
]

_OURS = (
    *(WEIGHTS, "module.safetensors", "plan.json", "recipe.toml", "report.*"),
    *("model.onnx*", "model.pt2", "model.*.onnx*", "model.*.pt2", "model.*.safetensors", "figures/*.svg"),
    *("search.json", "search.md", "pareto.svg"),
)


def write_bundle(
    directory: str | Path,
    *,
    program_module: fx.GraphModule,
    inputs: Sequence[Mapping[str, Any]],
    plan_json: Mapping[str, Any] | None,
    report: Mapping[str, Any],
    recipe_toml: str,
    report_md: str,
    provenance: Mapping[str, Any],
    force: bool = False,
    metadata: Mapping[str, Any] | None = None,
    files: Mapping[str, bytes | Path] | None = None,
) -> Path:
    """Write the bundle whole or not at all; an older bundle in its place goes, files of others in it stay.

    Args:
        directory: Where; made with its parents if needed.
        program_module: The network, as :func:`compress.graph.serial.graph_to_json` takes it.
        inputs: Per input {"shape": sizes without the batch, "dtype": "float32"}.
        plan_json: What was kept of the original; None if nothing was removed.
        report: Content of report.json.
        recipe_toml: Content of recipe.toml.
        report_md: Content of report.md.
        provenance: Where the network came from: input, hash, versions, command.
        force: Write into a directory that holds other files.
        metadata: More JSON values for the metadata of the weights, such as "mean" and "std".
        files: More files by name (report.html, figures/NAME.svg): their content, or a path to copy.

    Returns:
        The directory.

    Raises:
        InputError: The directory cannot be used, see :func:`check_output`.
        ModelError: The network cannot be written without code; the message names what it holds.
    """
    target = Path(directory).resolve()
    check_output(target, force)
    content: dict[str, bytes | Path] = {
        WEIGHTS: bundle_bytes(program_module, inputs, plan_json, provenance, metadata),
        "report.json": _pretty(report),
        "report.md": report_md.encode(),
        "recipe.toml": recipe_toml.encode(),
        **(files or {}),
    }
    if plan_json is not None:
        content["plan.json"] = _compact(plan_json).encode() + b"\n"
    write_folder(target, content, ours=_OURS, last=WEIGHTS)
    return Path(directory)


def check_output(directory: str | Path, force: bool = False) -> None:
    """See before any work that a bundle may be written there: a new, empty or bundle directory, or `force`.

    Raises:
        InputError: `directory` is a file, or holds something else than a bundle and `force` is not given.
    """
    path = Path(directory)
    check_place(path)
    if path.exists() and not force and any(path.iterdir()) and not is_bundle(path):
        raise InputError(
            f"{path} is not empty and not a bundle, so it is left alone",
            "choose another directory, or --force to write into it",
        )


def bundle_bytes(
    program_module: fx.GraphModule,
    inputs: Sequence[Mapping[str, Any]],
    plan_json: Mapping[str, Any] | None,
    provenance: Mapping[str, Any],
    metadata: Mapping[str, Any] | None = None,
    *,
    pack: bool = True,
    precision: torch.dtype | None = None,
) -> bytes:
    """``model.safetensors`` with everything needed to load it; the same arguments give the same bytes.

    The plan is there without its masks, which can be as large as the weights: they are in plan.json.

    Args:
        program_module, inputs, plan_json, provenance, metadata: As :func:`write_bundle` takes them.
        pack: Store tensors of many zeros as a bitmap and values, see :func:`compress.checkpoint.packing.stored`.
        precision: Type of 16 bits in which floats are stored; they are loaded in their own.

    Raises:
        ModelError: The network cannot be written without code; the message names what it holds. Or a value is too
            large for the precision.
    """
    tensors = {name: _storable(name, tensor) for name, tensor in graph_tensors(program_module).items()}
    tensors, record = stored(tensors, pack=pack, precision=precision)
    texts = _texts(program_module, inputs, plan_json, provenance, metadata, record)
    return _with_metadata(safetensors.torch.save(tensors), texts)


def bundle_size(
    program_module: fx.GraphModule,
    inputs: Sequence[Mapping[str, Any]],
    plan_json: Mapping[str, Any] | None,
    provenance: Mapping[str, Any],
    metadata: Mapping[str, Any] | None = None,
) -> int:
    """The length of what :func:`bundle_bytes` gives for the same arguments, or more where it packs tensors of many
    zeros; tensors may be on the meta device.

    Raises:
        ModelError: The network cannot be written without code; the message names what it holds.
    """
    tensors = graph_tensors(program_module)
    # The library's own header of tensors without values: the order of the names, and how it calls the types
    empty = safetensors.torch.save({name: torch.empty(0, dtype=tensor.dtype) for name, tensor in tensors.items()})
    header, end = _header(empty), 0
    for name, entry in header.items():
        start, end = end, end + tensors[name].numel() * tensors[name].element_size()
        entry |= {"shape": list(tensors[name].shape), "data_offsets": [start, end]}
    text = _header_text(header, _texts(program_module, inputs, plan_json, provenance, metadata))
    return 8 + len(text) + end


def _texts(
    program_module: fx.GraphModule,
    inputs: Sequence[Mapping[str, Any]],
    plan_json: Mapping[str, Any] | None,
    provenance: Mapping[str, Any],
    metadata: Mapping[str, Any] | None,
    record: Record | None = None,
) -> dict[str, str]:
    """The metadata of the weights."""
    plan = None if plan_json is None else {k: v for k, v in plan_json.items() if k != "masks"}
    values: dict[str, Any] = {
        **(metadata or {}),
        "graph": graph_to_json(program_module),
        "inputs": [dict(each) for each in inputs],
        "plan": plan,
        "provenance": dict(provenance),
        **({"stored": record} if record else {}),
    }
    texts = {f"compress.{key}": packed(_compact(value)) for key, value in values.items()}
    return {"format": "pt", "compress.schema": PACKED_SCHEMA if record else SCHEMA, **texts}


def _storable(name: str, tensor: Tensor) -> Tensor:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type == "meta":
        raise ModelError(f"the tensor {name!r} is {tensor.layout} on {tensor.device}, which cannot be stored")
    if tensor.dtype == torch.complex128:
        raise ModelError(f"the tensor {name!r} is complex128, which safetensors cannot store")
    # A copy: tensors that overlap in memory are refused
    return tensor.detach().cpu().contiguous().clone()


def _with_metadata(plain: bytes, metadata: Mapping[str, str]) -> bytes:
    """Add metadata to safetensors bytes in sorted order; the library writes them in a random one.

    The format: 8 bytes with the length of the header (little endian), the header in JSON, the tensors.
    """
    length = int.from_bytes(plain[:8], "little")
    text = _header_text(_header(plain), metadata)
    return len(text).to_bytes(8, "little") + text + plain[8 + length :]


def _header(plain: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(plain[8 : 8 + int.from_bytes(plain[:8], "little")])
    return found


def _header_text(header: Mapping[str, Any], metadata: Mapping[str, str]) -> bytes:
    text = _compact({"__metadata__": dict(sorted(metadata.items())), **header}).encode()
    return text + b" " * (-len(text) % 8)  # tensors stay aligned


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _pretty(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2) + "\n").encode()
