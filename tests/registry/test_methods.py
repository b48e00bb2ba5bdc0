"""Discovery, with distributions made for the test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from compress import registry
from compress.errors import InputError, PluginError

Install = Callable[..., None]

PLUGIN = '''
"""A module that must not be imported to be listed."""
from dataclasses import dataclass, field

LOUD = print("imported")


@dataclass(frozen=True)
class Halve:
    """Removes every second unit.

    More about it.
    """

    step: int = field(default=2, metadata={"help": "Keep one of so many."})

    def __post_init__(self) -> None:
        if self.step < 1:
            raise ValueError(f"step: must be at least 1, got {self.step}")
'''


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Adds a distribution with one entry point to the path."""

    def add(distribution: str, group: str, entry: str, **modules: str) -> None:
        folder = tmp_path / distribution
        info = folder / f"{distribution}-1.5.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n{entry}\n")
        for name, text in modules.items():
            (folder / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(folder)

    return add


def test_built_in_methods_are_found() -> None:
    found = {method.name: method for method in registry.methods()}
    assert found["tetris"].kind == "pruner"
    assert found["dependency"].kind == "criterion"
    assert found["random"].distribution.startswith("compress-nn ")


def test_a_foreign_method_is_listed_without_an_import(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("halving", "compress.pruners", "halve = halving_plugin:Halve", halving_plugin=PLUGIN)
    method = registry.find("halve")
    assert (method.kind, method.distribution) == ("pruner", "halving 1.5")
    seen = registry.glance(method)
    assert seen.summary == "Removes every second unit"
    assert [(option.flag, option.type, option.default, option.help) for option in seen.options] == [
        ("--step", "int", "2", "Keep one of so many.")
    ]
    assert capsys.readouterr().out == ""
    _, made = registry.create("halve", {"step": "3"})
    assert made.step == 3
    assert capsys.readouterr().out == "imported\n"


def test_what_a_plugin_refuses_is_said_in_flags(install: Install) -> None:
    install("halving2", "compress.pruners", "halve2 = halving2_plugin:Halve", halving2_plugin=PLUGIN)
    with pytest.raises(InputError, match=r"^--step: must be at least 1, got 0$"):
        registry.create("halve2", {"step": "0"})


def test_unknown_methods_get_near_matches() -> None:
    with pytest.raises(InputError, match="no method 'tetriss'") as caught:
        registry.find("tetriss")
    assert "did you mean 'tetris'?" in caught.value.hint
    with pytest.raises(InputError) as caught:
        registry.find("zzz")
    assert caught.value.hint == "`compress methods` lists all"


def test_two_distributions_of_one_name(install: Install) -> None:
    install("first", "compress.pruners", "twin = a:B")
    install("second", "compress.criteria", "twin = c:D")
    with pytest.raises(InputError, match=r"first 1\.5 \(a:B\) and by second 1\.5 \(c:D\)"):
        registry.find("twin")
    assert list(registry.conflicts(registry.methods())) == ["twin"]
    assert registry.find("tetris").name == "tetris"  # the rest works


def test_a_plugin_that_cannot_be_imported(install: Install) -> None:
    install(
        "broken", "compress.pruners", "broken = broken_plugin:Gone", broken_plugin="import nowhere_at_all"
    )
    method = registry.find("broken")
    assert registry.missing(method) == ""  # its module is there
    assert registry.glance(method).summary == ""
    with pytest.raises(PluginError, match=r"'broken' of broken 1\.5 cannot be imported.*nowhere_at_all"):
        method.load()


def test_a_plugin_whose_module_is_gone(install: Install) -> None:
    install("lost", "compress.pruners", "lost = lost_package.inner:Gone")
    method = registry.find("lost")
    assert registry.missing(method) == "method 'lost' of lost 1.5: there is no module lost_package.inner"
    assert not registry.glance(method).complete


def test_a_plugin_that_is_no_dataclass(install: Install) -> None:
    install("plain", "compress.pruners", "plain = plain_plugin:Plain", plain_plugin="class Plain: ...")
    with pytest.raises(PluginError, match="is not a dataclass"):
        registry.find("plain").load()
