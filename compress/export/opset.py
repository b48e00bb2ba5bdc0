"""ONNX models in older versions of the operators than the exporter writes."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from compress.errors import InputError

OLDEST = 7  # that ONNX Runtime runs
OLDEST_EXPORT = 18  # of PyTorch's exporter
_TO_THE_END = 2**63 - 1
_LARGEST = 1_000_000_000  # bytes; above, copies for every version would take too much memory
# Inputs that were attributes before a version, by their position
_ATTRIBUTES = {
    "Squeeze": (13, {1: "axes"}), "Unsqueeze": (13, {1: "axes"}), "Split": (13, {1: "split"}),
    "ReduceSum": (13, {1: "axes"}), "Clip": (11, {1: "min", 2: "max"}), "Pad": (11, {1: "pads", 2: "value"}),
    "Slice": (10, {1: "starts", 2: "ends", 3: "axes"}),
    **{f"Reduce{kind}": (18, {1: "axes"}) for kind in ("Mean", "Max", "Min", "L1", "L2", "SumSquare", "Prod")},
}  # fmt: skip
_PARTS_OF_SHAPES = 15  # the version since which Shape may give some of the sizes alone
_OPTIONAL_SCALES = 13  # since which Resize may leave out inputs that it does not need; before, they are empty


def older(model: Any, wanted: int) -> Iterator[Any]:
    """The model in versions from ``wanted`` up to the one below its own, as far as the operators allow.

    Each is the model itself, declared to be of that version, with constant inputs as the attributes that they were
    then; or what ONNX's converter makes. What comes is well-formed; whether it computes the same has to be seen by
    running it.

    Args:
        model: An ONNX model (``ModelProto``); it is not changed.
        wanted: The version that is best.
    """
    if model.ByteSize() > _LARGEST:
        return
    for version in range(wanted, version_of(model)):
        for make in (declared, _converted):
            candidate = make(model, version)
            if candidate is not None and _well_formed(candidate):
                yield candidate


def version_of(model: Any) -> int:
    """The version of the ONNX operators that a model uses."""
    return max(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))


def check_opset(wanted: int) -> None:
    """See before any work that there is such a version.

    Raises:
        InputError: It is older than what runs, or newer than the newest.
    """
    from onnx import defs

    newest = defs.onnx_opset_version()
    if not OLDEST <= wanted <= newest:
        raise InputError(f"--opset {wanted}: there is no such version to write", f"{OLDEST} to {newest}")


def opset_of(file: Path) -> int:
    """The same of a file, whose weights are left where they are."""
    import onnx

    return version_of(onnx.load(file, load_external_data=False))


def declared(model: Any, version: int) -> Any | None:
    """The model with the same operators, said to be of another version; None where one of them did not exist then."""
    from onnx import defs, numpy_helper

    changed = copy.deepcopy(model)
    for each in changed.opset_import:
        if each.domain in ("", "ai.onnx"):
            each.version = version
    if version < _PARTS_OF_SHAPES:
        _slice_shapes(changed.graph)
    if version < _OPTIONAL_SCALES:
        _fill_resizes(changed.graph)
    constants = {each.name: numpy_helper.to_array(each) for each in changed.graph.initializer}
    for node in changed.graph.node:
        if not defs.has(node.op_type, version, node.domain):
            return None
        since, inputs = _ATTRIBUTES.get(node.op_type, (0, {}))
        if version < since and not _as_attributes(node, inputs, constants):
            return None
        _drop_defaults(node, version)
    _drop_unread(changed.graph)
    return changed


def _slice_shapes(graph: Any) -> None:
    """Write every part of a shape as a slice of the whole one."""
    import numpy as np
    from onnx import helper, numpy_helper

    nodes = []
    for node in graph.node:
        bounds = {each.name: each.i for each in node.attribute}
        nodes.append(node)
        if node.op_type != "Shape" or not bounds:
            continue
        part = node.output[0]
        names = [f"{part}_whole", f"{part}_start", f"{part}_end"]
        for name, value in zip(names[1:], (bounds.get("start", 0), bounds.get("end", _TO_THE_END)), strict=True):
            graph.initializer.append(numpy_helper.from_array(np.array([value], np.int64), name))
        del node.attribute[:]
        node.output[0] = names[0]
        nodes.append(helper.make_node("Slice", names, [part], f"{node.name}_part" if node.name else ""))
    del graph.node[:]
    graph.node.extend(nodes)


def _fill_resizes(graph: Any) -> None:
    """Give every Resize an empty tensor for the region and for the scales that it is not told."""
    import numpy as np
    from onnx import numpy_helper

    name = "none_of_resize"
    resizes = [node for node in graph.node if node.op_type == "Resize"]
    if not resizes:
        return
    graph.initializer.append(numpy_helper.from_array(np.zeros(0, np.float32), name))
    for node in resizes:
        node.input[:] = [each or name for each in node.input]


def _as_attributes(node: Any, inputs: dict[int, str], constants: dict[str, Any]) -> bool:
    """Whether all inputs that become attributes are constants, in which case they are that now."""
    from onnx import helper

    for position, name in inputs.items():
        if position < len(node.input) and node.input[position]:
            value = constants.get(node.input[position])
            if value is None:
                return False
            plain = value.reshape(-1).tolist()
            node.attribute.append(helper.make_attribute(name, plain if value.ndim else plain[0]))
    del node.input[min(inputs) :]
    return True


def _drop_defaults(node: Any, version: int) -> None:
    """Without attributes that the version does not know and that say what is the case without them."""
    from onnx import defs, helper

    known = defs.get_schema(node.op_type, version, node.domain).attributes
    newest = defs.get_schema(node.op_type, node.domain).attributes
    kept = []
    for each in node.attribute:
        default = newest[each.name].default_value if each.name in newest else None
        value = helper.get_attribute_value(each)
        usual = each.name == "dilations" and set(value) == {1}
        usual = usual or (default is not None and default.type and helper.get_attribute_value(default) == value)
        if each.name in known or not (usual or each.name == "allowzero"):
            kept.append(each)
    del node.attribute[:]
    node.attribute.extend(kept)


def _drop_unread(graph: Any) -> None:
    read = {name for node in graph.node for name in node.input} | {each.name for each in graph.output}
    kept = [each for each in graph.initializer if each.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _converted(model: Any, version: int) -> Any | None:
    import onnx
    from onnx import version_converter

    try:
        return version_converter.convert_version(model, version)
    except (RuntimeError, ValueError, onnx.checker.ValidationError):  # an operator has no such version
        return None


def _well_formed(model: Any) -> bool:
    import onnx

    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError):
        return False
    return True
