"""What the pages say runs: Python in them, commands in them, links between them."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from compress.cli import application
from compress.testing import check_plugin

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[list[str]]:
    """The words of every compress command in a console block."""
    lines = [line.removeprefix("$ ") for block in blocks(page, "console") for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("compress ")]


def run(source: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a block defines, as a module: dataclasses look theirs up."""
    file.write_text(source)
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, file.stem, module)
    spec.loader.exec_module(module)
    return vars(module)


def test_the_plugin_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = next(block for block in blocks(ROOT / "README.md", "python") if "class Spread" in block)
    spread = run(source, tmp_path / "compress_spread.py", monkeypatch)["Spread"]
    check_plugin(spread())
    check_plugin(spread(absolute=True))


def test_extending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("\n".join(blocks(ROOT / "docs" / "extending.md", "python")), tmp_path / "extending.py", monkeypatch)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), target


def anchors(page: Path) -> set[str]:
    """Of every heading, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_anchors_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https://)([^)#]*)#([^)]+)\)", page.read_text("utf-8")):
        assert anchor in anchors(page.parent / target if target else page), (target, anchor)


@pytest.mark.parametrize(
    ("page", "folder"), [("docs/architecture.md", "compress"), ("compress/graph/README.md", "compress/graph")]
)
def test_tables_of_files_are_complete(page: str, folder: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    known = {name.removeprefix(f"{folder}/") for name in re.findall(r"`([\w/]+(?:\.py|/))`", text)}
    files = {path.name for path in (ROOT / folder).glob("*.py") if not path.name.startswith("__")}
    folders = {f"{path.parent.name}/" for path in (ROOT / folder).glob("*/__init__.py")}
    assert files | folders <= known, sorted((files | folders) - known)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page: Path) -> None:
    known = {command.name for command in application().registered_commands}
    for words in commands(page):
        assert words[0] in known, words
