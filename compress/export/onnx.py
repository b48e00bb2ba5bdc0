"""ONNX files: exported, checked, run in ONNX Runtime and compared with the model before being handed over."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn

from compress.checkpoint.onnx.sizes import Names
from compress.errors import ModelError
from compress.export.names import apart, name_ports, placeholders, rename
from compress.export.opset import OLDEST_EXPORT, older, version_of
from compress.export.program import Traced, first_line, random_batches, traced, whole
from compress.export.runtime import compared
from compress.export.sizes import samples_of_other_sizes, with_open_sizes
from compress.graph.quiet import quiet

# A protocol buffer cannot exceed 2 GiB; above this the weights go to a file of their own beside it
ONE_FILE = 1_900_000_000
_WEIGHTS_APART = 4  # the version of the file format since which weights need not be inputs as well
_SAME = 1e-4  # relative; an older version of an operator either computes the same or something else


@dataclass(frozen=True)
class OnnxExport:
    """An ONNX file that was written and run.

    Attributes:
        path: The file; weights of 2 GB and more lie beside it in ``NAME.data``.
        bytes: Its size, with that of the file beside it.
        opset: Version of the ONNX operators.
        max_error: Largest relative difference of its outputs in ONNX Runtime from those of the model,
            max |a - b| / max(1, max |b|), on random inputs in batches of 1, 2 and 3, one of them in a new process.
        agreement: Of these samples, the fraction with the same largest class; None where the output is not
            (batch, classes).
        dynamic_batch: Whether it takes any batch size.
        reason: Why not, "" if it does.
        open_sizes: Whether it takes any of the sizes that were asked for.
    """

    path: Path
    bytes: int
    opset: int
    max_error: float
    agreement: float | None
    dynamic_batch: bool
    reason: str
    open_sizes: bool = False


@dataclass(frozen=True)
class Ports:
    """What a file shall have in common with the ONNX model that it comes from.

    Attributes:
        inputs: Names, in order.
        outputs: Names, in order.
        weights: What those are called that are called otherwise in the module.
        batch: The name of the free size of the batch.
        ir: Version of the file format, or the oldest that can hold the model where that is newer; 0 for the exporter's.
        metadata: Notes of its users.
        sizes: By input and dim behind the batch the name of a size that may be any; "" or nothing for the others.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: Mapping[str, str] = field(default_factory=dict)
    batch: str = ""
    ir: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)
    sizes: Names = ()


def export_onnx(
    module: nn.Module,
    inputs: Sequence[Tensor],
    path: str | Path,
    *,
    opset: int | None = None,
    exact: bool = False,
    ports: Ports | None = None,
    against: nn.Module | None = None,
) -> OnnxExport:
    """Write `module` as ONNX; inputs are named ``input``, outputs ``output`` (``input_0``... if several).

    Args:
        module: Any module; it is not changed.
        inputs: Examples, batch first.
        path: Where; an existing file is replaced.
        opset: Version of the ONNX operators; one that is too old for an operator gives the oldest that is not. None
            for the exporter's default.
        exact: Another version than that is an error.
        ports: Names.
        against: What the file is compared with; None for `module`.

    Raises:
        ModelError: The module cannot be traced, holds an operator that ONNX lacks (it is named), or the file
            does not run.
        InputError: `path` cannot be written.
    """
    path = Path(path)
    start = traced(apart(module), inputs, () if ports is None else ports.sizes, frozen=True)
    asked = _Asked(opset, exact, ports, start.module if against is None else against)
    with whole(path) as target:
        found = None
        while found is None:
            try:
                found = _write(start, target, asked)
            except ModelError as error:  # built for one size in a way that only shows now
                start = _less_free(start, error)
        found = replace(found, bytes=sum(each.stat().st_size for each in target.parent.iterdir()))
    return replace(found, path=path, reason=start.reason)


def _less_free(start: Traced, error: ModelError) -> Traced:
    """With a free batch alone, or with none; raises the error where there is none already."""
    if start.open_sizes:
        return traced(start.module, start.inputs)
    if not start.dynamic_batch:
        raise error
    with quiet(), torch.no_grad():
        program = torch.export.export(start.module, start.inputs, strict=False)
    return Traced(start.module, program, start.inputs, False, str(error))


@dataclass(frozen=True)
class _Asked:
    """The arguments of `export_onnx`."""

    opset: int | None
    exact: bool
    ports: Ports | None
    against: nn.Module


def _write(start: Traced, target: Path, asked: _Asked) -> OnnxExport:
    opset = asked.opset
    low = opset is not None and opset < OLDEST_EXPORT
    model = _convert(start, OLDEST_EXPORT if low else opset, asked.ports)
    if opset is not None and _weight_bytes(start.module) < ONE_FILE:
        for candidate in older(model, opset):
            if asked.exact and version_of(candidate) != opset:
                break
            _date(candidate, asked.ports)
            found = _tried(start, target, candidate, asked.against)
            if found is not None:
                return _opened(start, target, candidate, asked, found)
    version = version_of(model)
    if asked.exact and opset not in (None, version):
        raise ModelError(f"opset {opset} cannot express this model", f"--opset {version}")
    _date(model, asked.ports)
    return _opened(start, target, model, asked, _saved(start, target, model, asked.against))


def _opened(start: Traced, target: Path, model: Any, asked: _Asked, found: OnnxExport) -> OnnxExport:
    """The file with open sizes where it computes the same as the model for others; else as it is."""
    sizes = () if asked.ports is None else asked.ports.sizes
    if not start.open_sizes or _weight_bytes(start.module) >= ONE_FILE:
        return found
    samples = samples_of_other_sizes(asked.against, start.inputs, sizes)
    opened = with_open_sizes(model, sizes)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder, target.name)
        try:
            save(opened, trial, 0)
            error, _ = compared(trial, asked.against, samples)
        except ModelError:  # built for one size
            return found
    if not samples or error > _SAME:
        return found
    save(opened, target, 0)
    return replace(found, max_error=max(found.max_error, error), open_sizes=True)


def _tried(start: Traced, target: Path, model: Any, against: nn.Module) -> OnnxExport | None:
    """The model in an older version; None where that does not run, or not as the module does."""
    try:
        found = _saved(start, target, model, against)
    except ModelError:
        return None
    return found if found.max_error <= _SAME else None


def _saved(start: Traced, target: Path, model: Any, against: nn.Module) -> OnnxExport:
    save(model, target, _weight_bytes(start.module))
    worst, agreement = compared(target, against, random_batches(start.inputs, start.dynamic_batch))
    return OnnxExport(target, 0, version_of(model), worst, agreement, start.dynamic_batch, start.reason)


def save(model: Any, target: Path, weight_bytes: int) -> None:
    """Write an ONNX model and check it; large weights go to ``NAME.data`` beside it.

    Raises:
        ModelError: It is not valid.
    """
    import onnx

    if weight_bytes < ONE_FILE:
        onnx.save_model(model, target)
    else:
        onnx.save_model(model, target, save_as_external_data=True, location=f"{target.name}.data", size_threshold=1024)
    try:
        onnx.checker.check_model(str(target), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"the exported ONNX file is not valid: {first_line(error)}") from error


def _convert(start: Traced, opset: int | None, ports: Ports | None = None) -> Any:
    with torch.no_grad():
        outputs = sum(isinstance(each, Tensor) for each in pytree.tree_leaves(start.module(*start.inputs)))
    if ports is None:
        ports = Ports(_names("input", len(start.inputs)), _names("output", outputs))
    try:
        with quiet():
            made = torch.onnx.export(
                start.program,
                (),
                dynamo=True,
                external_data=False,
                verbose=False,
                opset_version=opset,
                input_names=placeholders("input", len(ports.inputs)),
                output_names=placeholders("output", len(ports.outputs)),
            )
        if made is None:
            raise ModelError("the ONNX exporter gave nothing")
        model = made.model_proto
    except (RuntimeError, TypeError, ValueError, NotImplementedError, AssertionError) as error:
        raise _explained(error) from error
    _strip(model, ports.batch or "batch")
    name_ports(model, ports.inputs, ports.outputs)
    rename(model, ports.weights)
    for key, value in ports.metadata.items():
        model.metadata_props.add(key=key, value=value)
    return model


def _names(kind: str, count: int) -> tuple[str, ...]:
    return (kind,) if count == 1 else tuple(f"{kind}_{index}" for index in range(count))


def _explained(error: BaseException) -> ModelError:
    """The one thing that matters of a long report: which operator ONNX lacks."""
    causes = list(_causes(error))
    for cause in reversed(causes):
        found = re.search(r"OpOverload\(op='([^']+)', overload='([^']+)'\)", str(cause))
        if found:
            return ModelError(
                f"the operator {found[1]}.{found[2]} cannot be exported to ONNX",
                "replace it in the model, or export to .pt2",
            )
    return ModelError(f"the model cannot be exported to ONNX: {first_line(causes[-1])}", "try to export to .pt2")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _date(model: Any, ports: Ports | None) -> None:
    """Write the version of the file format that the original has; runtimes of its time refuse newer ones."""
    from onnx import helper

    if ports is not None and ports.ir:
        needed = helper.find_min_ir_version_for(model.opset_import, ignore_unknown=True)
        model.ir_version = max(ports.ir, needed, _WEIGHTS_APART)


def _strip(model: Any, batch: str) -> None:
    """Drop what the exporter notes for its developers (source lines with paths, as large as small weights),
    and give the free size of the batch its name."""
    graph = model.graph
    graph.name = "network"
    del model.metadata_props[:]
    del graph.metadata_props[:]
    for each in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del each.metadata_props[:]
        each.doc_string = ""
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                for each in inner.node:
                    del each.metadata_props[:]
    shapes = [each.type.tensor_type.shape.dim for each in (*graph.input, *graph.output, *graph.value_info)]
    free = [dims[0].dim_param for dims in shapes[: len(graph.input)] if len(dims) and dims[0].dim_param]
    for symbol in dict.fromkeys(free):
        for dim in (dim for dims in shapes for dim in dims if dim.dim_param):
            dim.dim_param = re.sub(rf"\b{re.escape(symbol)}\b", lambda _: batch, dim.dim_param)


def _weight_bytes(module: nn.Module) -> int:
    distinct = {id(each): each for each in (*module.parameters(), *module.buffers())}
    return sum(each.numel() * each.element_size() for each in distinct.values())
