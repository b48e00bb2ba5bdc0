"""What can be limited, and how a limit is written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from compress import units
from compress.errors import InputError
from compress.registry import did_you_mean

Metric = Literal["bytes", "params", "macs", "accuracy", "latency"]
Kind = Literal["most", "least", "growth", "drop", "ratio"]
Level = Literal["error", "warn", "off"]
Against = Literal["original", "baseline"]


@dataclass(frozen=True)
class Key:
    """One limit that can be set.

    Attributes:
        metric: What is looked at.
        kind: "most" and "least" are absolute. The others compare with another model: "growth" is value over reference
            less one, "drop" is reference less value, "ratio" is value over reference.
        example: How a limit is written.
    """

    metric: Metric
    kind: Kind
    example: str

    @property
    def relative(self) -> bool:
        """Whether it compares with another model."""
        return self.kind not in ("most", "least")


KEYS: Mapping[str, Key] = {
    "max_bytes": Key("bytes", "most", "5MB"),
    "max_params": Key("params", "most", "3M"),
    "max_macs": Key("macs", "most", "2G"),
    "min_accuracy": Key("accuracy", "least", "97 %"),
    "max_latency_p50": Key("latency", "most", "8ms"),
    "max_bytes_growth": Key("bytes", "growth", "2 %"),
    "max_params_growth": Key("params", "growth", "2 %"),
    "max_macs_growth": Key("macs", "growth", "2 %"),
    "max_accuracy_drop": Key("accuracy", "drop", "0.5 %"),
    "max_latency_ratio": Key("latency", "ratio", "0.8"),
}


@dataclass(frozen=True)
class Limit:
    """One limit as it was set.

    Attributes:
        name: One of ``KEYS``.
        allowed: In bytes, parameters, MACs or seconds; accuracies, drops, growths and ratios as fractions.
        level: What happens where it is not met.
        against: What a relative limit compares with; None: the baseline where there is one, else the original.
    """

    name: str
    allowed: float
    level: Level = "error"
    against: Against | None = None

    @property
    def key(self) -> Key:
        """What it limits."""
        return KEYS[self.name]


def limit_of(name: str, value: Any, where: str) -> Limit:
    """A limit from what a file or the command line says of it: the value, or a table with it.

    Args:
        name: The key.
        value: A number, a text such as "5MB", or {limit = ..., level = ..., against = ...}.
        where: The file, for messages.

    Raises:
        InputError: There is no such key, or its value is of no use.
    """
    if name not in KEYS:
        raise InputError(
            f"{where}: no limit is called {name!r}", did_you_mean(name, KEYS) or f"one of {', '.join(KEYS)}"
        )
    key = KEYS[name]
    table = value if isinstance(value, Mapping) else {"limit": value}
    for word in table:
        if word not in ("limit", "level", "against"):
            near = did_you_mean(word, ("limit", "level", "against"))
            raise InputError(f"{where}: {name} has no setting {word!r}", near or "limit, level or against")
    if "limit" not in table:
        raise InputError(f"{where}: {name} has no limit", f'{name} = {{ limit = "{key.example}" }}')
    level = _choice(table.get("level", "error"), get_args(Level), f"{where}: {name}: level")
    against = table.get("against")
    if against is not None:
        against = _choice(against, get_args(Against), f"{where}: {name}: against")
        if not key.relative:
            raise InputError(f"{where}: {name} compares with nothing, so it has no 'against'", "leave it out")
    return Limit(name, _allowed(name, key, table["limit"], where), level, against)


def _allowed(name: str, key: Key, value: Any, where: str) -> float:
    wrong = InputError(f"{where}: {name} = {value!r} is not {_KINDS[key.kind, key.metric == 'latency']}", _hint(name))
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise wrong
    try:
        number = _number(key, str(value))
    except ValueError:
        raise wrong from None
    lowest, highest = _RANGES[key.kind]
    if not lowest <= number < highest:
        raise InputError(f"{where}: {name} = {value!r} is out of range", _hint(name))
    return number


# For each kind of limit the lowest that makes sense, and the first above it that does not
_RANGES = {
    "most": (0.0, math.inf),
    "least": (0.0, math.nextafter(1.0, 2.0)),
    "growth": (-1.0, 1.0),
    "drop": (0.0, 1.0),
    "ratio": (0.0, math.inf),
}
_KINDS = {
    ("most", False): "an amount",
    ("most", True): "a time",
    ("least", False): "an accuracy",
    ("growth", False): "a share",
    ("drop", False): "a share",
    ("ratio", True): "a ratio",
}


def _number(key: Key, text: str) -> float:
    if key.kind != "most":
        return units.share(text)
    if key.metric == "latency":
        return 1e-6 * units.microseconds(text)
    return units.amount(text, of_bytes=key.metric == "bytes")


def _hint(name: str) -> str:
    key = KEYS[name]
    plain = {"most": "", "ratio": ", or 80 %"}.get(key.kind, ", or a fraction below 1: 0.02 is 2 %")
    return f'{name} = "{key.example}"{plain}'


def _choice(value: Any, choices: tuple[Any, ...], what: str) -> Any:
    if value not in choices:
        near = did_you_mean(value, choices) if isinstance(value, str) else ""
        raise InputError(f"{what} {value!r} is unknown", near or " or ".join(choices))
    return value
