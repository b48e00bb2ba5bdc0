"""ONNX models in older versions of the operators than the exporter writes."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

OLDEST_EXPORT = 18  # of PyTorch's exporter


def older(model: Any, wanted: int) -> Iterator[Any]:
    """The model in versions from ``wanted`` up to the one below its own, as far as the operators allow.

    Each is either what ONNX's converter makes, or the model as it is, declared to be of that version: most operators
    are the same in many versions. What comes is well-formed; whether it computes the same has to be seen by running it.

    Args:
        model: An ONNX model (``ModelProto``); it is not changed.
        wanted: The version that is best.
    """
    own = version_of(model)
    for version in range(wanted, own):
        for candidate in (_declared(model, version), _converted(model, version)):
            if candidate is not None and _well_formed(candidate):
                yield candidate


def version_of(model: Any) -> int:
    """The version of the ONNX operators that a model uses."""
    return max(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))


def _declared(model: Any, version: int) -> Any:
    changed = copy.deepcopy(model)
    for each in changed.opset_import:
        if each.domain in ("", "ai.onnx"):
            each.version = version
    for node in changed.graph.node:
        if node.op_type == "Reshape" and version < 14:  # a size of 0 is what the attribute is about
            kept = [each for each in node.attribute if each.name != "allowzero"]
            del node.attribute[:]
            node.attribute.extend(kept)
    return changed


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
