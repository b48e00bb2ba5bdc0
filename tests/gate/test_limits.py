"""How limits are written, and where they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compress.errors import InputError
from compress.gate import KEYS, Gate, Limit, limit_of, read_gate


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("max_bytes", "5MB", 5e6),
        ("max_bytes", "1 MiB", 2**20),
        ("max_bytes", 4096, 4096),
        ("max_params", "3M", 3e6),
        ("max_macs", "2G", 2e9),
        ("max_macs", 1.5e9, 1.5e9),
        ("min_accuracy", "97 %", 0.97),
        ("min_accuracy", 0.97, 0.97),
        ("min_accuracy", "100%", 1.0),
        ("max_latency_p50", "8ms", 0.008),
        ("max_latency_p50", "500us", 0.0005),
        ("max_bytes_growth", "2 %", 0.02),
        ("max_bytes_growth", "-10 %", -0.1),
        ("max_params_growth", 0, 0.0),
        ("max_accuracy_drop", "1.5 %", 0.015),
        ("max_latency_ratio", "80 %", 0.8),
        ("max_latency_ratio", 1.1, 1.1),
    ],
)
def test_values(name: str, value: Any, allowed: float) -> None:
    assert limit_of(name, value, "gate.toml").allowed == pytest.approx(allowed, rel=1e-12)


@pytest.mark.parametrize("name", KEYS)
def test_every_example_is_understood(name: str) -> None:
    assert limit_of(name, KEYS[name].example, "gate.toml").level == "error"


def test_a_table_has_level_and_reference() -> None:
    given = {"limit": "1 %", "level": "warn", "against": "original"}
    assert limit_of("max_accuracy_drop", given, "x") == Limit("max_accuracy_drop", 0.01, "warn", "original")


@pytest.mark.parametrize(
    ("name", "value", "said", "hint"),
    [
        ("max_byte", "5MB", "no limit is called 'max_byte'", "did you mean 'max_bytes'"),
        ("max_bytes", "5 m/s", "max_bytes = '5 m/s' is not an amount", 'max_bytes = "5MB"'),
        ("max_params", "5MB", "is not an amount", ""),
        ("max_bytes", True, "is not an amount", ""),
        ("max_bytes", [1], "is not an amount", ""),
        ("max_bytes", "-5", "is not an amount", ""),
        ("max_bytes", "inf", "is not an amount", ""),
        ("max_latency_p50", 8, "is not a time", 'max_latency_p50 = "8ms"'),
        ("min_accuracy", 97, "is out of range", "a fraction below 1: 0.02 is 2 %"),
        ("max_accuracy_drop", 1.5, "is out of range", '"0.5 %"'),
        ("max_bytes_growth", 2, "is out of range", '"2 %"'),
        ("max_bytes", {"limt": 5}, "no setting 'limt'", "did you mean 'limit'"),
        ("max_bytes", {"level": "warn"}, "max_bytes has no limit", "limit = "),
        ("max_bytes", {"limit": 5, "level": "warning"}, "level 'warning' is unknown", "did you mean 'warn'"),
        ("max_bytes", {"limit": 5, "level": 3}, "level 3 is unknown", "error or warn or off"),
        ("max_bytes", {"limit": 5, "against": "baseline"}, "max_bytes compares with nothing", "leave it out"),
        ("max_bytes_growth", {"limit": 0, "against": "base"}, "against 'base' is unknown", "did you mean 'baseline'"),
    ],
)
def test_what_is_refused(name: str, value: Any, said: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        limit_of(name, value, "gate.toml")
    assert str(caught.value).startswith("gate.toml: ") and said in str(caught.value)
    assert hint in caught.value.hint


def test_a_file_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "gate.toml"
    file.write_text(
        'baseline = "base.json"\naccuracy_rule = "point"\nmin_accuracy = "97 %"\nmax_bytes = "5MB"\n'
        'max_params = { limit = 10, level = "off" }\n'
    )
    gate = read_gate(file)
    assert [limit.name for limit in gate.limits] == ["max_bytes", "min_accuracy"]  # always in one order; off is out
    assert (gate.baseline, gate.accuracy_rule, gate.source) == (tmp_path / "base.json", "point", str(file))


def test_the_nearest_pyproject_that_has_a_table(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text("[tool.compress.check]\nmax_bytes = 7\n")
    (tmp_path / "a" / "pyproject.toml").write_text("[tool.other]\nx = 1\n")
    gate = read_gate(None, folder=inner)
    assert gate.limits == (Limit("max_bytes", 7),) and gate.source == str(tmp_path / "pyproject.toml")
    assert read_gate(tmp_path / "pyproject.toml").limits == gate.limits


def test_the_command_line_counts_first(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.compress.check]\nmax_bytes = 7\nmax_macs = 8\n")
    gate = read_gate(None, ["max_bytes=1kB", "min_accuracy = 99 %"], tmp_path)
    assert [(limit.name, limit.allowed) for limit in gate.limits] == [
        ("max_bytes", 1000), ("max_macs", 8), ("min_accuracy", 0.99)
    ]  # fmt: skip


def test_without_any_config(tmp_path: Path) -> None:
    assert read_gate(None, folder=tmp_path) == Gate()


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("max_bytes = ", "is not TOML", "max_bytes"),
        ("max_bites = 5", "unknown key 'max_bites'", "did you mean 'max_bytes'"),
        ("colour = 5", "unknown key 'colour'", "keys are max_bytes"),
        ("[tool.compress.check]\nmax_bytes = 5", "belongs into a pyproject.toml", "top level"),
        ("baseline = 5", "baseline = 5 is not the name of a file", 'baseline = "baseline.json"'),
        ('accuracy_rule = "points"', "accuracy_rule 'points' is unknown", "interval or point"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, text: str, said: str, hint: str) -> None:
    file = tmp_path / "gate.toml"
    file.write_text(text)
    with pytest.raises(InputError, match=said) as caught:
        read_gate(file)
    assert hint in caught.value.hint


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.toml cannot be read"):
        read_gate(tmp_path / "none.toml")
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    with pytest.raises(InputError, match=r"has no table \[tool\.compress\.check\]"):
        read_gate(tmp_path / "pyproject.toml")
    with pytest.raises(InputError, match="'max_bytes' is not KEY=VALUE"):
        read_gate(None, ["max_bytes"], tmp_path)
