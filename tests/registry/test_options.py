from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Optional

import pytest

from compress.errors import InputError, PluginError
from compress.registry.options import make, parse


@dataclass(frozen=True)
class Method:
    pool_size: int
    rate: float = 0.5
    exact: bool = False
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.pool_size < 1:
            raise ValueError(f"pool_size must be at least 1, got {self.pool_size}")
        if self.rate > self.pool_size:
            raise ValueError("the rate is above the pool size")


def test_make() -> None:
    made = make(Method, "m", {"pool_size": "3", "rate": "1e-1", "exact": "on", "limit": "7"})
    assert made == Method(3, 0.1, True, 7)
    assert make(Method, "m", {"pool_size": "3", "limit": "none"}).limit is None


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({}, "method 'm' needs --pool-size", "--pool-size int"),
        (
            {"pool_sice": "3"},
            "method 'm' has no option --pool-sice",
            "did you mean '--pool-size'? its options are",
        ),
        ({"pool_size": "0"}, "--pool-size: must be at least 1, got 0", "compress methods m"),
        (
            {"pool_size": "1", "rate": "2"},
            "method 'm': the rate is above the pool size",
            "compress methods m",
        ),
        ({"pool_size": "3.5"}, "--pool-size: '3.5' is not a whole number", ""),
        ({"pool_size": "1", "rate": "nan"}, "--rate: 'nan' is not a finite number", ""),
        ({"pool_size": "1", "rate": "fast"}, "--rate: 'fast' is not a number", ""),
        ({"pool_size": "1", "exact": "maybe"}, "--exact: 'maybe' is neither on nor off", "--exact, or"),
    ],
)
def test_make_refuses(options: dict[str, str], message: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        make(Method, "m", options)
    assert str(caught.value) == message
    assert caught.value.hint.startswith(hint)


def test_a_method_without_options_says_so() -> None:
    @dataclass(frozen=True)
    class Bare:
        pass

    with pytest.raises(InputError) as caught:
        make(Bare, "bare", {"any": "1"})
    assert caught.value.hint == "it has no options"


@pytest.mark.parametrize(
    ("text", "annotation", "value"),
    [
        ("a b", str, "a b"),
        ("l2", Literal["l1", "l2"], "l2"),
        ("4", Literal[2, 4], 4),
        ("-3", int, -3),
        ("off", bool, False),
        ("YES", bool, True),
        ("None", Optional[str], None),  # noqa: UP045
        ("3", Optional[int], 3),  # noqa: UP045
    ],
)
def test_parse(text: str, annotation: Any, value: Any) -> None:
    assert parse(text, annotation, "--x") == value


def test_parse_names_the_choices() -> None:
    with pytest.raises(InputError, match="--x: 'gropu' is not one of unit, group") as caught:
        parse("gropu", Literal["unit", "group"], "--x")
    assert caught.value.hint == "did you mean 'group'?"
    with pytest.raises(InputError) as caught:
        parse("zzz", Literal["unit", "group"], "--x")
    assert caught.value.hint == "--x unit"


@pytest.mark.parametrize("annotation", [list, int | str, tuple[int, ...]])
def test_types_that_no_text_can_give(annotation: Any) -> None:
    with pytest.raises(PluginError, match="no text stands for"):
        parse("1", annotation, "--x")
