"""Source text and imported class must tell the same of a plugin."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from compress import registry
from compress.registry.describe import (
    Option,
    describe_class,
    describe_source,
    find_module,
    readable_default,
    readable_type,
)


@dataclass(frozen=True)
class Example:
    """The summary.

    The rest.
    """

    needed: str
    size: int | None = field(default=None, metadata={"help": "How large."})
    exact: bool = False
    inner: int = field(default=0, init=False)


def test_describe_class() -> None:
    seen = describe_class(Example)
    assert seen.summary == "The summary"
    assert seen.options == (
        Option("needed", "str", "", True, ""),
        Option("size", "int", "none", False, "How large."),
        Option("exact", "flag", "off", False, ""),
    )
    assert seen.options[2].is_flag


def test_a_dataclass_without_docstring_has_no_summary() -> None:
    @dataclass(frozen=True)
    class Silent:
        size: int = 3

    assert describe_class(Silent).summary == ""


@pytest.mark.parametrize("name", [method.name for method in registry.methods()])
def test_both_ways_agree_on_the_built_in_methods(name: str) -> None:
    method = registry.find(name)
    seen = describe_source(method.entry_point)
    assert seen.complete
    assert seen == describe_class(method.load())
    assert seen.summary
    assert all(option.help for option in seen.options)


def test_source_of_every_form_of_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "forms_plugin.py").write_text(
        "from dataclasses import dataclass, field\n"
        "from typing import ClassVar, Literal\n"
        "import option\n"
        "Norm = Literal['l1', 'l2']\n"
        "class Base: ...\n"
        "@dataclass(frozen=True)\n"
        "class Forms:\n"
        "    '''Shows forms.'''\n"
        "    source: ClassVar[str] = 'Somebody, ' 'somewhere'\n"
        "    count: ClassVar[int] = 1\n"
        "    a: Norm = option('l1', 'The norm.')\n"
        "    b: float = option(default=-0.5, help='Half.')\n"
        "    c: bool = field(default=True, metadata={'help': 'On.'})\n"
        "    d: int = 4\n"
        "    e: str\n"
        "class Heir(Base):\n"
        "    '''Has more than is seen.'''\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    seen = describe_source("forms_plugin:Forms")
    assert seen.source == "Somebody, somewhere"
    assert seen.options == (
        Option("a", "l1|l2", "l1", False, "The norm."),
        Option("b", "float", "-0.5", False, "Half."),
        Option("c", "flag", "on", False, "On."),
        Option("d", "int", "4", False, ""),
        Option("e", "str", "", True, ""),
    )
    heir = describe_source("forms_plugin:Heir")
    assert heir.summary == "Has more than is seen"
    assert not heir.complete
    assert not describe_source("forms_plugin:Nobody").complete


def test_modules_are_found_without_their_parents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "loud_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "inner.py").write_text("class A:\n    '''Found.'''\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    assert describe_source("loud_package.inner:A").summary == "Found"
    assert find_module("loud_package.other") is None
    assert find_module("loud_package.inner.deeper") is None
    assert find_module("no_such_package") is None


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        ("int", "int"),
        ("bool", "flag"),
        ("int | None", "int"),
        ("Optional[float]", "float"),
        ("typing.Optional[float]", "float"),
        ("Literal['a', 'b']", "a|b"),
        ("typing.Literal['a']", "a"),
        ("Literal['auto'] | int", "auto|int"),
        ("pathlib.Path", "Path"),
        ("tuple[int, ...]", "tuple[int, ...]"),
        ("not python", "not python"),
    ],
)
def test_readable_type(annotation: str, text: str) -> None:
    assert readable_type(annotation) == text


def test_readable_default() -> None:
    assert [readable_default(value) for value in (None, True, False, 0.5, "a")] == [
        "none",
        "on",
        "off",
        "0.5",
        "a",
    ]
