"""Values of the command line that typer does not know: shapes, numbers with units, options of methods."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any, Literal

from compress import units
from compress.errors import InputError
from compress.inputs import InputType, parse_type
from compress.registry import Option, did_you_mean, glance, methods
from compress.request import BudgetKind, BudgetTarget


def shape(text: str) -> tuple[int, ...]:
    """ "3,224,224" or "3x224x224" -> (3, 224, 224). Raises InputError."""
    sizes = re.split(r"[,x]", text.strip())
    if not all(size.strip().isdigit() and int(size) > 0 for size in sizes):
        raise InputError(f"--input-shape: {text!r} is not a shape", hint="--input-shape 3,224,224, without the batch")
    return tuple(int(size) for size in sizes)


def inputs(texts: Sequence[str]) -> tuple[tuple[tuple[int, ...], ...] | None, tuple[InputType, ...]]:
    """["16:int64<1000", "3,8,8"] -> shapes and types; no shapes where there are none, no types where all are usual.

    Raises InputError.
    """
    parts = [text.partition(":") for text in texts]
    shapes = tuple(shape(sizes) for sizes, _, _ in parts)
    types = tuple(_type(name) if colon else InputType() for _, colon, name in parts)
    return shapes or None, types if any(":" in text for text in texts) else ()


def _type(name: str) -> InputType:
    try:
        return parse_type(name)
    except InputError as error:
        raise InputError(f"--input-shape: {error}", error.hint) from None


def numbers(text: str | None, flag: str) -> tuple[float, ...] | None:
    """ ".485,.456,.406" -> (0.485, 0.456, 0.406); None stays None. Raises InputError."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{flag}: {text!r} is not a list of numbers", hint=f"{flag} .5,.5,.5") from None


def json_object(text: str | None, flag: str) -> dict[str, Any]:
    """'{"num_classes": 10}' -> {"num_classes": 10}; None -> {}. Raises InputError."""
    if text is None:
        return {}
    example = f"""{flag} '{{"num_classes": 10}}'"""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{flag}: {text!r} is not JSON: {error}", hint=example) from None
    if not isinstance(value, dict):
        raise InputError(f"{flag}: {text!r} is not a JSON object", hint=example)
    return value


def budget(
    ratio: float | None, macs: str | None, params: str | None, size: str | None, latency: str | None = None
) -> BudgetTarget | None:
    """The one budget that was given, None where none was. Raises InputError for two, or for nonsense."""
    given: list[tuple[BudgetKind, str]] = []
    texts: tuple[tuple[BudgetKind, str | None], ...] = (("macs", macs), ("params", params), ("bytes", size))
    for kind, text in texts:
        if text is not None:
            given.append((kind, text))
    names = ["--ratio"] * (ratio is not None) + [f"--{kind}" for kind, _ in given]
    names += ["--latency"] * (latency is not None)
    if len(names) > 1:
        raise InputError(f"{' and '.join(names)} are budgets and only one can be met", hint="leave one")
    if ratio is not None:
        return BudgetTarget("ratio", ratio)
    if latency is not None:
        return BudgetTarget("latency", duration(latency))
    return _target(*given[0]) if given else None


def _target(kind: BudgetKind, text: str) -> BudgetTarget:
    """Half of what there is where the text is "0.5"; an amount where it is "2G", "5MB" or "1000000"."""
    try:
        return BudgetTarget(kind, units.amount(text, of_bytes=kind == "bytes"))
    except ValueError:
        example = {"macs": "2G", "params": "3M", "bytes": "5MB"}[kind]
        raise InputError(
            f"--{kind}: {text!r} is not an amount",
            hint=f"a fraction to keep, as in --{kind} 0.5, or an amount, as in --{kind} {example}",
        ) from None


def fraction_of(text: str) -> tuple[str, float]:
    """ "layer1.*=0.5" -> ("layer1.*", 0.5). Raises InputError."""
    glob, _, fraction = text.rpartition("=")
    try:
        value = float(fraction)
    except ValueError:
        value = math.nan
    if not glob or math.isnan(value):
        raise InputError(f"--ratio-of: {text!r} is not GLOB=FRACTION", hint="--ratio-of 'layer1.*=0.5'")
    return glob, value


def round_to(text: str) -> int | Literal["auto"]:
    """ "16" -> 16, "none" -> 1, "auto" stays. Raises InputError."""
    word = text.strip().lower()
    if word == "auto":
        return "auto"
    if word == "none":
        return 1
    if not word.isdigit():
        raise InputError(f"--round-to: {text!r} is not a number", hint="--round-to 16, auto or none")
    return int(word)


def duration(text: str, flag: str = "--latency") -> float:
    """ "8ms" -> 8000.0, microseconds; "0.5" -> 0.5, the fraction that may stay. Raises InputError.

    As of every budget, what is below 1 is a fraction and what is not an amount; so times below 1 us are refused.
    """
    hint = f"a fraction to keep, as in {flag} 0.5, or a time, as in {flag} 8ms or {flag} 500us"
    try:
        value, unit = units.split(text)
        microseconds = units.microseconds(text) if unit else 0.0
    except ValueError:
        raise InputError(f"{flag}: {text!r} is not a time", hint) from None
    if not unit:
        if not 0 < value < 1:
            raise InputError(f"{flag}: {text!r} has no unit and is no fraction between 0 and 1", hint)
        return value
    if not 1 <= microseconds < math.inf:
        raise InputError(f"{flag}: {text!r} is not between 1us and any time that can be measured", hint)
    return microseconds


def method_options(
    words: Sequence[str], method: str, options: Sequence[Option], flags: Sequence[str]
) -> tuple[list[str], dict[str, str]]:
    """Sorts the words that typer left over into plain arguments and options of the method.

    Args:
        words: In the order they were typed.
        method: Name of the method, for messages.
        options: What the method understands.
        flags: What the command itself understands, for near matches.

    Returns the plain arguments and the options as texts, by field name. Raises InputError for an option
    that neither has, one without its value, and one given twice.
    """
    by_flag = {option.flag: option for option in options}
    negated = {f"--no-{option.flag[2:]}": option for option in options if option.is_flag}
    plain: list[str] = []
    values: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        flag, equals, value = word.partition("=")
        if not re.match(r"--?[A-Za-z]", word):
            plain.append(word)
            continue
        option = by_flag.get(flag) or negated.get(flag)
        if option is None:
            raise _no_such_option(flag, method, [*by_flag, *flags])
        if option.name in values:
            raise InputError(f"{option.flag} is given twice")
        if option.is_flag and not equals:
            value = "off" if flag in negated else "on"
        elif not equals:
            if not rest or rest[0].startswith("--"):
                raise InputError(f"{flag} needs a value", hint=f"{flag} {option.type.upper()}: {option.help}")
            value = rest.pop(0)
        values[option.name] = value
    return plain, values


def _no_such_option(flag: str, method: str, known: Sequence[str]) -> InputError:
    others = {each.name for each in methods() if flag in (option.flag for option in glance(each).options)}
    near = f"{flag} belongs to {' and '.join(sorted(others))}." if others else did_you_mean(flag, known)
    return InputError(
        f"no option {flag}, neither of this command nor of method {method!r}",
        hint=f"{near} `compress methods {method}` lists the method's".strip(),
    )
