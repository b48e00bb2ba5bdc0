"""Numbers with units as people write them: "5MB", "2G", "8ms", "1.5 %"."""

from __future__ import annotations

import re

_FACTORS = {
    "": 1.0,
    **{"k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12},
    **{"ki": 2.0**10, "mi": 2.0**20, "gi": 2.0**30, "ti": 2.0**40},
}
_MICROSECONDS = {"us": 1.0, "µs": 1.0, "ms": 1e3, "s": 1e6}


def split(text: str) -> tuple[float, str]:
    """The number and the unit in lower case, "" where there is none: "5 MB" is (5.0, "mb").

    Raises:
        ValueError: It does not begin with a number.
    """
    match = re.fullmatch(r"([+-]?[0-9.]+(?:e[+-]?[0-9]+)?)\s*([^\s0-9.]*)", text.strip(), re.IGNORECASE)
    if match is None:
        raise ValueError(f"{text!r} is not a number with a unit")
    return float(match[1]), match[2].lower()


def amount(text: str, *, of_bytes: bool = False) -> float:
    """ "2G" is 2e9, "5MB" of bytes 5e6, "1MiB" of bytes 1048576.

    Raises:
        ValueError: It is no number, negative, or has another unit.
    """
    number, unit = split(text)
    factor = _FACTORS.get(unit.removesuffix("b") if of_bytes else unit)
    if factor is None or number < 0:
        raise ValueError(f"{text!r} is not an amount")
    return number * factor


def microseconds(text: str) -> float:
    """ "8ms" is 8000.0.

    Raises:
        ValueError: It is no number, negative, or its unit is none of us, ms and s.
    """
    number, unit = split(text)
    if unit not in _MICROSECONDS or number < 0:
        raise ValueError(f"{text!r} is not a time")
    return number * _MICROSECONDS[unit]


def share(text: str) -> float:
    """ "1.5 %" is 0.015, and so is "0.015".

    Raises:
        ValueError: It is no number, or has another unit.
    """
    number, unit = split(text)
    if unit not in ("", "%"):
        raise ValueError(f"{text!r} is not a share")
    return number / 100 if unit else number
