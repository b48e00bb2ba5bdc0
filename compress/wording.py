"""Numbers as people read them: "11.7 M", "1.60 ms", "-0.28", "1 epoch"."""

from __future__ import annotations


def plural(number: int, noun: str, nouns: str = "") -> str:
    """ "1 epoch", "1,200 epochs"; ``nouns`` where it is not the noun with an s."""
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def signed(value: float, digits: int) -> str:
    """ "+1.25", "-0.28"; what rounds to zero has no sign: "0.00"."""
    text = f"{value:+z.{digits}f}"
    return text if float(text) else text[1:]


def points(before: float, after: float) -> str:
    """The difference of two shares: 0.95 and 0.9472 make "-0.28 points"."""
    return f"{signed(100 * (after - before), 2)} points"


def change(before: float | None, after: float | None) -> str:
    """How much less it is: "-58.0 %"; "-" where one side is missing."""
    if before is None or after is None or not before:
        return "-"
    if after == before:
        return "same"
    return f"{signed(100 * (after - before) / before, 1)} %"


def amount(value: float | None, unit: str = "") -> str:
    """A count with three digits and a decimal prefix: 11689512 is "11.7 M"; "-" for None."""
    if value is None:
        return "-"
    if value >= 1000:
        value = float(f"{value:.3g}")  # first, so that 999999 is 1.00 M
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            digits = 2 if value < 10 * factor else 1 if value < 100 * factor else 0
            return f"{value / factor:.{digits}f} {prefix}{unit}"
    return f"{value:g} {unit}".rstrip()


def milliseconds(seconds: float) -> str:
    """A time with three digits: 0.0016 is "1.60 ms"."""
    value = 1e3 * seconds
    return f"{value:.0f} ms" if value >= 100 else f"{value:#.3g} ms"
