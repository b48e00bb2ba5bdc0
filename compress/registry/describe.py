"""What a plugin says about itself: summary, options, source. Read from its source text or its class."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any, get_type_hints


@dataclass(frozen=True)
class Option:
    """One option of a method: a field of the plugin's dataclass."""

    name: str  # of the field: "pool_size"
    type: str  # "int", "float", "flag", "a|b", "int, optional"
    default: str  # "" where the option is required
    required: bool
    help: str

    @property
    def flag(self) -> str:
        """As it is written on the command line: "--pool-size"."""
        return "--" + self.name.replace("_", "-")

    @property
    def is_flag(self) -> bool:
        """Whether the flag alone says all, without a value."""
        return self.type == "flag"


@dataclass(frozen=True)
class Description:
    """What can be said of a method before it runs."""

    summary: str
    options: tuple[Option, ...]
    source: str
    complete: bool = True  # False where the class may have options that its source text does not show


UNKNOWN = Description("", (), "", complete=False)


def describe_class(plugin: type[Any]) -> Description:
    """The description of an imported plugin, a dataclass."""
    options = []
    hints = get_type_hints(plugin)
    for field in dataclasses.fields(plugin):
        if not field.init:
            continue
        default: Any = field.default
        factory: Any = field.default_factory
        if default is dataclasses.MISSING and factory is not dataclasses.MISSING:
            default = factory()
        required = default is dataclasses.MISSING
        hint = hints[field.name]
        annotation = inspect.formatannotation(hint) if isinstance(hint, type) else str(hint)
        options.append(
            Option(
                field.name,
                readable_type(annotation),
                "" if required else readable_default(default),
                required,
                str(field.metadata.get("help", "")),
            )
        )
    # A dataclass without a docstring gets its signature for one; that is no summary.
    own = plugin.__doc__ or ""
    summary = "" if own.startswith(f"{plugin.__name__}(") else first_line(own)
    return Description(summary, tuple(options), str(getattr(plugin, "source", "")))


def describe_source(entry_point: str) -> Description:
    """The description of the plugin at "package.module:Class" from its source, without importing it.

    `UNKNOWN` where the source cannot be had; not `complete` where the class inherits.
    """
    module, _, name = entry_point.partition(":")
    spec = find_module(module)
    get_source = getattr(spec.loader, "get_source", None) if spec else None
    try:
        tree = ast.parse((get_source(module) if get_source else None) or "")
    except (ImportError, OSError, SyntaxError, ValueError):
        return UNKNOWN
    aliases = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return _describe_node(node, aliases)
    return UNKNOWN


def find_module(module: str) -> ModuleSpec | None:
    """Where a module lies, found without importing it or its parents; None where there is none."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
        name = top
        for part in rest:
            if spec is None or spec.submodule_search_locations is None:
                return None
            name = f"{name}.{part}"
            spec = PathFinder.find_spec(name, list(spec.submodule_search_locations))
        return spec
    except (ImportError, ValueError):
        return None


def _describe_node(node: ast.ClassDef, aliases: Mapping[str, ast.expr]) -> Description:
    options, source = [], ""
    for item in node.body:
        if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
            continue
        if "ClassVar" in ast.unparse(item.annotation):
            if item.target.id == "source" and item.value is not None:
                source = str(_literal(item.value))
            continue
        default, text = _default_and_help(item.value)
        required = default is None
        options.append(
            Option(
                item.target.id,
                "|".join(_parts(item.annotation, aliases)),
                "" if default is None else readable_default(_literal(default)),
                required,
                text,
            )
        )
    summary = first_line(ast.get_docstring(node) or "")
    return Description(summary, tuple(options), source, complete=not node.bases)


def _default_and_help(value: ast.expr | None) -> tuple[ast.expr | None, str]:
    """The default and the help line of a field: `3`, `option(3, "Help.")` or `field(default=3, ...)`."""
    if not isinstance(value, ast.Call):
        return value, ""
    keywords = {keyword.arg: keyword.value for keyword in value.keywords}
    default = value.args[0] if value.args else keywords.get("default", keywords.get("default_factory"))
    text = value.args[1] if len(value.args) > 1 else keywords.get("help")
    if text is None and "metadata" in keywords:
        metadata = _literal(keywords["metadata"])
        return default, str(metadata.get("help", "")) if isinstance(metadata, dict) else ""
    return default, str(_literal(text)) if text is not None else ""


def _literal(node: ast.expr) -> Any:
    """The value of a literal, else its source text."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)


def first_line(docstring: str) -> str:
    """The summary of a docstring, without its full stop."""
    return docstring.strip().partition("\n")[0].strip().removesuffix(".")


def readable_default(value: Any) -> str:
    """A default as it would be typed: "none" for None, "off" for False."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def readable_type(annotation: str) -> str:
    """An annotation for people: "Literal['l1', 'l2']" is "l1|l2", "int | None" is "int"."""
    try:
        return "|".join(_parts(ast.parse(annotation, mode="eval").body, {}))
    except SyntaxError:
        return annotation


def _parts(node: ast.expr, aliases: Mapping[str, ast.expr]) -> list[str]:
    """The alternatives of a type; names that the module gives to types are looked up in `aliases`."""
    match node:
        case ast.Name(id=name) if name in aliases:
            return _parts(aliases[name], {})
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _parts(left, aliases) + _parts(right, aliases)
        case ast.Constant(value=None):
            return []
        case ast.Subscript(value=value, slice=inner) if ast.unparse(value).endswith("Literal"):
            items = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            return [str(_literal(item)) for item in items]
        case ast.Subscript(value=value, slice=inner) if ast.unparse(value).endswith("Optional"):
            return _parts(inner, aliases)
        case ast.Name(id="bool"):
            return ["flag"]
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return [name]
        case _:
            return [ast.unparse(node)]
