"""Names, functions and argument values of a graph as JSON, and back; what a file may name is limited here.

Reading a graph ends in generated Python (``torch.fx`` writes a ``forward`` and compiles it), so every name is
checked and every function has to be on a list: a file can compute on tensors and nothing else.
"""

from __future__ import annotations

import dataclasses
import keyword
import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx

from compress.errors import InputError, ModelError

_OPERATOR = """add sub mul truediv floordiv mod pow neg pos abs eq ne lt le gt ge and_ or_ not_ xor invert
lshift rshift getitem"""
_MATH = "trunc ceil floor sqrt"
_SYMBOLIC = "sym_int sym_float sym_not sym_ite sym_max sym_min sym_sum sym_sqrt _sym_sqrt"
_ON_SIZES: dict[str, tuple[Any, list[str]]] = {
    "operator": (operator, _OPERATOR.split()),
    "math": (math, _MATH.split()),
    "torch": (torch, _SYMBOLIC.split()),
}
_NAMES = {
    getattr(module, name): f"{prefix}.{name}"
    for prefix, (module, names) in _ON_SIZES.items()
    for name in names
    if hasattr(module, name)
}
_NAMESPACES = frozenset({"aten", "prim", "prims", "torchvision", "quantized_decomposed"})
_HIGHER_ORDER = frozenset({"wrap_with_set_grad_enabled", "wrap_with_autocast", "cond"})
# Operators of these namespaces that reach outside the graph: files, standard output, the warning filter
_OUTSIDE = frozenset({"from_file", "save", "_print", "warn"})
_PRIM = frozenset({"device"})  # of TorchScript's own namespace nothing else

_SEGMENT = re.compile(r"[A-Za-z0-9_\-+:/@ ]+")
_LAYOUTS = {"strided": torch.strided, "sparse_coo": torch.sparse_coo}
_FORMATS = {
    "contiguous_format": torch.contiguous_format,
    "channels_last": torch.channels_last,
    "channels_last_3d": torch.channels_last_3d,
    "preserve_format": torch.preserve_format,
}
_DTYPES = {str(value).removeprefix("torch."): value for value in vars(torch).values() if isinstance(value, torch.dtype)}


def identifier(name: object) -> str:
    """`name` if it is a plain Python name.

    Raises:
        InputError: It is anything else, so it must not get into generated code.
    """
    if isinstance(name, str) and name.isascii() and name.isidentifier() and not keyword.iskeyword(name):
        return name
    raise InputError(f"the graph names a value {name!r}, which is not a plain name")


def dotted(name: object) -> str:
    """`name` if it may be the path of a tensor or subgraph: parts joined by dots, none starting with "__".

    Raises:
        InputError: It is anything else.
    """
    if isinstance(name, str):
        parts = name.split(".")
        if all(_SEGMENT.fullmatch(part) and not part.startswith("__") for part in parts):
            return name
    raise InputError(f"the graph names a tensor {name!r}, which is not a dotted name")


def function_name(target: Any) -> str:
    """The text that stands for a function of a graph, ``torch.ops.aten.relu.default`` or ``operator.add``.

    Raises:
        ModelError: The function is not on the list of those that are read back.
    """
    if isinstance(target, torch._ops.OpOverload):
        text = f"torch.ops.{target}"
    elif isinstance(target, torch._ops.HigherOrderOperator):
        text = f"torch.ops.higher_order.{target._name}"
    else:
        text = _NAMES.get(target, "")
    if not text or _resolve(text) is not target:
        raise ModelError(
            f"the operation {text or target!r} of the model cannot be stored without code",
            f"operators of {', '.join(sorted(_NAMESPACES))} and arithmetic on sizes can be stored",
        )
    return text


def function(text: object) -> Callable[..., Any]:
    """The function that :func:`function_name` wrote; no other can be reached.

    Raises:
        InputError: `text` names something that is not on the list.
    """
    found = _resolve(text) if isinstance(text, str) else None
    if found is None:
        raise InputError(
            f"the graph calls {text!r}, which is not an operation that is taken from files",
            "load only files that you trust to be models; if this one is, update the package",
        )
    return found


def _resolve(text: str) -> Callable[..., Any] | None:
    parts = text.split(".")
    found: Any = None
    if parts[:3] == ["torch", "ops", "higher_order"]:
        if len(parts) == 4 and parts[3] in _HIGHER_ORDER:
            found = getattr(torch.ops.higher_order, parts[3], None)
    elif parts[:2] == ["torch", "ops"] and len(parts) == 5:
        _, _, namespace, name, overload = parts
        if namespace in _NAMESPACES and name not in _OUTSIDE and (namespace != "prim" or name in _PRIM):
            if namespace == "torchvision":
                import torchvision  # noqa: F401  (registers its operators)
            packet = getattr(getattr(torch.ops, namespace), name, None)
            found = getattr(packet, overload, None)
            found = found if isinstance(found, torch._ops.OpOverload) else None
    elif len(parts) == 2 and parts[0] in _ON_SIZES and parts[1] in _ON_SIZES[parts[0]][1]:
        found = getattr(_ON_SIZES[parts[0]][0], parts[1], None)
    return found


def encode(value: Any) -> Any:
    """A node argument as JSON: scalars and lists stand for themselves, all else is ``{kind: content}``.

    Raises:
        ModelError: The value has no such form (a tensor or an object of a user's class).
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        raise ModelError(f"a size of the graph is the expression {value}, which no node computes")
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, list):
        return [encode(each) for each in value]
    for kind, (types, write) in _WRITERS.items():
        if isinstance(value, types):
            return {kind: write(value)}
    raise ModelError(f"an argument of type {type(value).__name__} cannot be stored: {str(value)[:80]}")


_WRITERS: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "node": (fx.Node, lambda value: value.name),
    "tuple": (tuple, lambda value: [encode(each) for each in value]),
    "dict": (dict, lambda value: [[encode(key), encode(each)] for key, each in value.items()]),
    "slice": (slice, lambda value: [encode(value.start), encode(value.stop), encode(value.step)]),
    "complex": (complex, lambda value: [str(value.real), str(value.imag)]),
    "dtype": (torch.dtype, lambda value: str(value).removeprefix("torch.")),
    "device": (torch.device, str),
    "layout": (torch.layout, lambda value: str(value).removeprefix("torch.")),
    "memory_format": (torch.memory_format, lambda value: str(value).removeprefix("torch.")),
    "ellipsis": (type(...), lambda value: True),
}


def decode(value: Any, nodes: Mapping[str, fx.Node]) -> Any:
    """The argument that :func:`encode` wrote; `nodes` are the earlier nodes of the graph by name.

    Raises:
        InputError, KeyError, TypeError, ValueError: The JSON is not what :func:`encode` writes.
    """
    if isinstance(value, list):
        return [decode(each, nodes) for each in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "node":
        return nodes[content]
    if kind == "tuple":
        return tuple(decode(each, nodes) for each in content)
    if kind == "dict":
        return {decode(key, nodes): decode(each, nodes) for key, each in content}
    if kind == "slice":
        return slice(*(decode(each, nodes) for each in content))
    if kind not in _READERS:
        raise InputError(f"the graph holds an argument of unknown kind {kind!r}")
    return _READERS[kind](content)


_READERS: dict[str, Callable[[Any], Any]] = {
    "float": float,
    "complex": lambda content: complex(float(content[0]), float(content[1])),
    "dtype": lambda content: _DTYPES[content],
    "device": torch.device,
    "layout": lambda content: _LAYOUTS[content],
    "memory_format": lambda content: _FORMATS[content],
    "ellipsis": lambda content: ...,
}


class _Leaf:
    """Marks where a tensor stands in a nested container."""


LEAF = _Leaf()


def encode_nesting(value: Any) -> Any:
    """Nested containers of leaves as JSON; subclasses (named tuples, ...) as what they derive from."""
    if value is LEAF:
        return "*"
    if isinstance(value, dict):
        if all(isinstance(key, (str, int)) for key in value):
            return {"dict": [[key, encode_nesting(each)] for key, each in value.items()]}
    elif isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [encode_nesting(each) for each in value]}
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
        return {"dict": [[key, encode_nesting(each)] for key, each in pairs if each is not None]}
    raise ModelError(
        f"the model takes or returns a {type(value).__name__}, which cannot be stored",
        "wrap it in a module that takes and returns tensors, tuples, lists or dicts",
    )


def decode_nesting(content: Any) -> Any:
    """The containers that :func:`encode_nesting` wrote, with 0 for every leaf."""
    if content == "*":
        return 0
    ((kind, children),) = content.items()
    if kind == "dict":
        if not all(isinstance(key, (str, int)) for key, _ in children):
            raise InputError("a key of the stored inputs or outputs is neither text nor a number")
        return {key: decode_nesting(each) for key, each in children}
    if kind not in ("list", "tuple"):
        raise InputError(f"the stored inputs or outputs hold a container of unknown kind {kind!r}")
    made = [decode_nesting(each) for each in children]
    return made if kind == "list" else tuple(made)
