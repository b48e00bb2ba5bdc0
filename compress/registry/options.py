"""Makes a plugin from options that are texts, by the types of its fields."""

from __future__ import annotations

import math
import re
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from compress.errors import InputError, PluginError
from compress.registry.describe import Option, describe_class
from compress.registry.words import did_you_mean

_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")


def make(plugin: type[Any], method: str, options: Mapping[str, str]) -> Any:
    """An instance of `plugin`, a dataclass, from the texts in `options`, by field name.

    Raises InputError for an unknown or missing option, a text that is not of its type, or a value that
    the plugin's `__post_init__` refuses with a ValueError. Raises PluginError where a field has a type
    that no text can give.
    """
    known = {option.name: option for option in describe_class(plugin).options}
    for name in options:
        if name not in known:
            raise unknown_option(name, method, tuple(known.values()))
    for option in known.values():
        if option.required and option.name not in options:
            raise InputError(
                f"method {method!r} needs {option.flag}", hint=f"{option.flag} {option.type}: {option.help}"
            )
    hints = get_type_hints(plugin)
    values = {name: parse(text, hints[name], known[name].flag) for name, text in options.items()}
    try:
        return plugin(**values)
    except ValueError as error:
        raise InputError(
            _name_the_flag(str(error), method, known), hint=f"compress methods {method}"
        ) from error


def unknown_option(name: str, method: str, known: tuple[Option, ...]) -> InputError:
    """The error for an option that the method does not have."""
    flags = [option.flag for option in known]
    near = did_you_mean("--" + name.replace("_", "-"), flags)
    listed = f"its options are {', '.join(flags)}" if flags else "it has no options"
    return InputError(
        f"method {method!r} has no option --{name.replace('_', '-')}", hint=f"{near} {listed}".strip()
    )


def parse(text: str, annotation: Any, flag: str) -> Any:
    """The value of type `annotation` that `text` stands for.

    bool, int, float, str, Literal, and a union of these with None ("none") are understood.
    Raises InputError, which names `flag`, where the text does not fit.
    """
    if get_origin(annotation) in (Union, types.UnionType):
        members = get_args(annotation)
        if type(None) in members and text.lower() == "none":
            return None
        members = tuple(member for member in members if member is not type(None))
        if len(members) == 1:
            return parse(text, members[0], flag)
    elif get_origin(annotation) is Literal:
        return _choice(text, get_args(annotation), flag)
    elif annotation is bool:
        return _flag(text, flag)
    elif annotation is int:
        return _number(text, int, flag, "a whole number")
    elif annotation is float:
        return _number(text, float, flag, "a number")
    elif annotation is str:
        return text
    raise PluginError(
        f"{flag}: no text stands for a value of type {annotation}",
        hint="fields of a plugin are int, float, bool, str, Literal[...] or one of these | None",
    )


def _choice(text: str, choices: tuple[Any, ...], flag: str) -> Any:
    by_text = {str(choice): choice for choice in choices}
    if text not in by_text:
        near = did_you_mean(text, by_text)
        raise InputError(
            f"{flag}: {text!r} is not one of {', '.join(by_text)}",
            hint=near or f"{flag} {next(iter(by_text))}",
        )
    return by_text[text]


def _flag(text: str, flag: str) -> bool:
    if text.lower() not in _TRUE + _FALSE:
        raise InputError(f"{flag}: {text!r} is neither on nor off", hint=f"{flag}, or {flag}=off")
    return text.lower() in _TRUE


def _number(text: str, number: type[int] | type[float], flag: str, what: str) -> int | float:
    try:
        value = number(text)
    except ValueError:
        raise InputError(f"{flag}: {text!r} is not {what}") from None
    if not math.isfinite(value):
        raise InputError(f"{flag}: {text!r} is not a finite number")
    return value


def _name_the_flag(message: str, method: str, known: Mapping[str, Option]) -> str:
    """A plugin speaks of its fields; the user typed flags: "bin must be ..." is "--bin: must be ..."."""
    match = re.match(r"`?(\w+)`?:? (.*)", message, re.DOTALL)
    if match and match[1] in known:
        return f"{known[match[1]].flag}: {match[2]}"
    return f"method {method!r}: {message}"
