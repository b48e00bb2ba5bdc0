"""From an ONNX file to a graph of operations on named parameters, compared with ONNX Runtime's run of the file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, fx, nn

from compress.checkpoint.onnx.facts import OnnxFacts
from compress.checkpoint.onnx.file import OnnxFile, Port, open_onnx
from compress.checkpoint.onnx.fuse import fuse
from compress.checkpoint.onnx.gates import split_recurrent
from compress.checkpoint.onnx.network import Network, Place
from compress.checkpoint.onnx.prepare import Graph, graph_of
from compress.checkpoint.onnx.runtime import Reference
from compress.checkpoint.onnx.sizes import Names, open_sizes, with_other_sizes
from compress.errors import InputError, ModelError
from compress.graph import Program, trace
from compress.inputs import InputType, types_of
from compress.wording import plural

TOLERANCE = 1e-4
Shapes = tuple[tuple[int, ...], ...]
Kinds = tuple[InputType, ...]


@dataclass(frozen=True)
class Imported:
    """An ONNX model as a graph.

    Attributes:
        module: The graph, in eval mode.
        shapes: Of each input, without the batch.
        types: Of each input.
        facts: What the file says.
        notes: What was found, a sentence each.
    """

    module: fx.GraphModule
    shapes: Shapes
    types: tuple[InputType, ...]
    facts: OnnxFacts
    notes: tuple[str, ...]


def read_onnx(path: Path, shapes: Shapes | None = None, types: Sequence[InputType] = ()) -> Imported:
    """The network of an ONNX file.

    Args:
        path: The file; weights that lie beside it are read, too.
        shapes: Of each input, without the batch; None: as the file says.
        types: Of each input; none: as the file says.

    Raises:
        InputError: It cannot be read, or the shapes do not fit it or are needed.
        ModelError: It holds what cannot be pruned, or computes something else as a graph than in ONNX Runtime.
    """
    file = open_onnx(path)
    graph = graph_of(file)
    split_recurrent(graph)
    turned = fuse(graph)
    found = tuple(_shape(file, port, i, shapes) for i, port in enumerate(file.inputs))
    kinds = types_of(types, len(found)) if types else tuple(_type(port, graph) for port in file.inputs)
    batch = next((port.batch for port in file.inputs if port.batch is not None), None)
    names = tuple(port.name for port in file.inputs)
    network = Network(graph, names, Place(str(path), file.opset), batch).eval()
    reference = Reference(path, names, batch)
    module, note = _graph(network, file, reference, found, kinds, batch)
    sizes = open_sizes(file.inputs)
    valid = network.names
    facts = OnnxFacts(
        file.opset,
        file.producer,
        names,
        file.outputs,
        {valid[name]: name for name in valid if valid[name] != name},
        tuple(valid[name] for name in turned if name in valid),
        len(file.model.graph.initializer),
        file.model.ir_version,
        next((port.sizes[0] for port in file.inputs if port.sizes and isinstance(port.sizes[0], str)), ""),
        {each.key: each.value for each in file.model.metadata_props},
        sizes,
        _takes_others(module, reference, _examples(found, kinds, batch or 1), sizes),
    )
    return Imported(module, found, kinds, facts, (*_told(file, facts), *note))


def _graph(
    network: Network, file: OnnxFile, reference: Reference, shapes: Shapes, kinds: Kinds, batch: int | None
) -> tuple[fx.GraphModule, tuple[str, ...]]:
    """The traced network: for any batch where that can be, else for that of the file."""
    each = batch or 1
    failure: ModelError | None = None
    try:
        program = _compared(network, reference, shapes, kinds, 2 * each)
        if program.dynamic_batch:
            _agree(program.module, reference, _examples(shapes, kinds, 3 * each))
            freed = () if batch is None else (f"the file fixes the batch at {batch}, and the network takes any",)
            return program.module, freed
    except ModelError as error:
        failure = error
    if each > 2:
        _agree(network, reference, _examples(shapes, kinds, each))  # else what it cannot read is the reason
        raise ModelError(f"{file.path} takes batches of {each} alone", "export it with a dynamic batch") from failure
    for size in dict.fromkeys((each, 2)):
        network.only = tuple((size, *shape) for shape in shapes)
        try:
            module = _compared(network, reference, shapes, kinds, size).module
        except ModelError as error:
            failure = failure or error
        else:
            return module, (f"the network takes batches of {size} alone" + (f": {failure}" if failure else ""),)
    raise failure or ModelError(f"{file.path} takes no batches of 1 or 2", "export it with a dynamic batch")


def _compared(network: Network, reference: Reference, shapes: Shapes, kinds: Kinds, batch: int) -> Program:
    """The traced network, which agrees with the file on random inputs.

    Raises:
        ModelError: It does not, or an operation cannot be read.
    """
    inputs = _examples(shapes, kinds, batch)
    _agree(network, reference, inputs)
    program = trace(network, inputs)
    _agree(program.module, reference, inputs)
    return program


def _takes_others(module: nn.Module, reference: Reference, inputs: tuple[Tensor, ...], sizes: Names) -> bool:
    """Whether the network computes what the file does for other sizes, too, where that leaves any open."""
    seen = 0
    for each in with_other_sizes(inputs, sizes) if any(map(any, sizes)) else ():
        try:
            expected = reference.run(each)
        except ModelError:  # not every size will do
            continue
        try:
            with torch.no_grad():
                reference.check(module(*each), expected, TOLERANCE)
        except (ModelError, RuntimeError, ValueError, IndexError):  # built for one size
            return False
        seen += 1
    return seen > 0


def _agree(module: nn.Module, reference: Reference, inputs: tuple[Tensor, ...]) -> None:
    with torch.no_grad():
        found = module(*inputs)
    reference.check(found, reference.run(inputs), TOLERANCE)


def _examples(shapes: Shapes, kinds: Kinds, batch: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(kind.draw((batch, *shape), generator) for shape, kind in zip(shapes, kinds, strict=True))


def _shape(file: OnnxFile, port: Port, index: int, given: Shapes | None) -> tuple[int, ...]:
    """The sizes of an input behind the batch.

    Raises:
        InputError: They are free and nobody says them, or what is said contradicts the file.
    """
    if given is not None and len(given) != len(file.inputs):
        raise InputError(
            f"{file.path} has {plural(len(file.inputs), 'input')} and {plural(len(given), 'shape')} given",
            "an --input-shape for each of " + ", ".join(str(p) for p in file.inputs),
        )
    said = None if given is None else given[index]
    if port.sizes is not None and not port.sizes:
        raise ModelError(f"{file.path}: its input {port.name!r} is a single number, without a batch")
    own = None if port.sizes is None else port.sizes[1:]
    if said is None:
        if own is None or not all(isinstance(n, int) for n in own):
            raise InputError(
                f"{file.path} leaves sizes of its input {port} open",
                "say them, without the batch, such as " + " ".join(f"--input-shape {_such_as(p)}" for p in file.inputs),
            )
        return tuple(n for n in own if isinstance(n, int))
    fits = own is None or (
        len(own) == len(said) and all(not isinstance(n, int) or n == m for n, m in zip(own, said, strict=True))
    )
    if not fits:
        raise InputError(
            f"{file.path}: its input is {port}, --input-shape says {'x'.join(map(str, said))}",
            "leave out --input-shape, or give the sizes behind the batch",
        )
    return said


def _such_as(port: Port) -> str:
    """Sizes as they might be, with those that the file says."""
    if port.sizes is None:
        return "3,224,224"
    usual = "224" if len(port.sizes) == 4 else "16"  # images, or sequences
    return ",".join(str(n) if isinstance(n, int) else usual for n in port.sizes[1:])


def _type(port: Port, graph: Graph) -> InputType:
    """With the size of the table that integers look up as their bound."""
    if port.dtype not in ("int64", "int32"):
        return InputType(port.dtype)
    names, bounds = {port.name}, []
    for node in graph.nodes:
        if node.kind in ("Cast", "Identity") and node.inputs[0] in names:
            names.add(node.outputs[0])
        if node.kind == "Gather" and node.inputs[1] in names and node.inputs[0] in graph.constants:
            bounds.append(graph.constants[node.inputs[0]].shape[node.get("axis", 0)])
    return InputType(port.dtype, min(bounds) if bounds else None)


def _told(file: OnnxFile, facts: OnnxFacts) -> tuple[str, ...]:
    notes = list(file.notes)
    if facts.names:
        valid, own = next(iter(facts.names.items()))
        notes.append(
            f"weights whose names were changed, as modules allow fewer letters: {len(facts.names)}; {own} is {valid}"
        )
    if facts.transposed:
        notes.append(f"matrices that the file holds as (in, out) and the model as (out, in): {len(facts.transposed)}")
    return tuple(notes)
