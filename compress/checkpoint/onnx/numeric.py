"""Numbers that are known while tracing: shapes and what is computed from them, by ONNX's own implementation."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto
from onnx.reference import ReferenceEvaluator
from onnx.reference.ops import load_op

from compress.checkpoint.onnx.registry import Array, Node, Untranslatable, find

SHAPES = ("Shape", "Size")  # they read the sizes of their input and none of its numbers


def evaluate(proto: NodeProto, opset: int, inputs: Sequence[Array | None]) -> tuple[Array, ...]:
    """The outputs of one operation on arrays.

    Raises:
        Untranslatable: The reference implementation has no such operator, or fails.
    """
    settings = {"log": _silent, "opsets": {proto.domain: opset}, "verbose": 0, "new_ops": None}
    settings |= {"existing_functions": {}, "evaluator_cls": ReferenceEvaluator}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run = load_op(proto.domain, proto.op_type, opset)(proto, settings)
            found = run.run(*(each for each in inputs))
    except Exception as error:  # the reference implementation raises whatever NumPy does
        raise Untranslatable(f"its constants cannot be computed: {type(error).__name__}: {error}") from error
    return tuple(np.asarray(each) for each in found)


def _silent(*_: Any) -> None:
    """The evaluator asks for somewhere to log."""


def demanded(nodes: Iterable[Node], by: Node | None = None) -> frozenset[str]:
    """Names of values whose numbers decide about the graph, and of all that these are computed from.

    Args:
        nodes: Of the graph.
        by: The node for which they have to be known; None: any.
    """
    made: dict[str, Node] = {}
    waiting: list[str] = []
    for node in nodes:
        made |= dict.fromkeys(node.outputs, node)
        operator = find(node)
        numbers = operator.numbers if operator is not None and (by is None or by is node) else ()
        waiting += [node.inputs[i] for i in numbers if i < len(node.inputs) and node.inputs[i]]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        source = made.get(name)
        if source is not None and source.kind not in SHAPES:
            waiting += [each for each in source.inputs if each]
    return frozenset(found)
