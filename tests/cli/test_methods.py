from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from compress import registry
from compress.cli.methods import complete
from compress.registry import Method

Call = Callable[..., Any]


def test_list(run: Call) -> None:
    done = run("methods")
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0].split() == ["method", "kind", "from", "what", "it", "does"]
    assert any(line.startswith("tetris") and "pruner" in line for line in lines)


def test_list_as_json(run: Call) -> None:
    listed = json.loads(run("methods", "--json").out)
    assert listed["schema"] == "compress.methods/1"
    tetris = next(method for method in listed["methods"] if method["name"] == "tetris")
    assert tetris["kind"] == "pruner"
    assert {"flag": "--bin", "type": "int"}.items() <= tetris["options"][0].items()


def test_quiet_list_is_names(run: Call) -> None:
    assert run("methods", "-q").out.split() == [method.name for method in registry.methods()]


def test_one_method(run: Call) -> None:
    done = run("methods", "tetris")
    assert done.code == 0
    assert "--bin" in done.out
    assert "compress prune model.pt --method tetris --bin 500" in done.out
    assert json.loads(run("methods", "tetris", "--json").out)["schema"] == "compress.method/1"


def test_no_such_method(run: Call) -> None:
    done = run("methods", "tetrs")
    assert (done.code, done.out) == (2, "")
    assert "did you mean 'tetris'?" in done.err


def test_clashes_and_missing_modules_are_told(run: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Method("twin", "pruner", "first 1.0", "nowhere.a:A")
    second = Method("twin", "pruner", "second 2.0", "nowhere.b:B")
    monkeypatch.setattr(registry, "methods", lambda: (first, second))
    done = run("methods")
    assert done.code == 2
    assert done.out.count("twin") == 2
    assert "warning: method 'twin' of first 1.0: there is no module nowhere.a" in done.err
    assert "first 1.0 (nowhere.a:A) and by second 2.0 (nowhere.b:B)" in done.err


def test_completion() -> None:
    assert "tetris" in complete("te")
    assert complete("zzz") == []
