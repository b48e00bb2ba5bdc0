"""A method from another distribution: one file and one project file, found without a change to the package."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from compress.testing import check_plugin

MLP = Path(__file__).resolve().parents[1] / "sample_models" / "digits_mlp.pt"

SOURCE = '''\
from dataclasses import dataclass

import torch
from compress.plugin import Context, Group, option


@dataclass(frozen=True)
class Loudest:
    """Keeps the units whose largest weight is largest."""

    power: float = option(1.0, "exponent of every magnitude")
    quiet_first: bool = option(False, "keep the quietest instead")

    def score(self, group: Group, context: Context) -> torch.Tensor:
        peaks = torch.stack([w.abs().amax(1) for w in context.unit_weights(group)]).amax(0).pow(self.power)
        return -peaks if self.quiet_first else peaks
'''

PROJECT = """\
[project]
name = "loud-pruning"
version = "1.2"

[project.entry-points."compress.criteria"]
loudest = "loud_pruning:Loudest"
"""


def install(site: Path, project: str = PROJECT) -> None:
    """What an installer leaves behind: the module, and the metadata of the project file."""
    told: dict[str, Any] = tomllib.loads(project)["project"]
    site.mkdir(parents=True, exist_ok=True)
    (site / "loud_pruning.py").write_text(SOURCE)
    info = site / f"{told['name'].replace('-', '_')}-{told['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {told['name']}\nVersion: {told['version']}\n")
    lines = []
    for group, entries in told["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The plugin's place; the working directory is another one."""
    site, work = tmp_path / "site", tmp_path / "work"
    work.mkdir()
    install(site)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.chdir(work)
    yield site
    sys.modules.pop("loud_pruning", None)


def test_the_plugin_is_as_short_as_promised() -> None:
    assert len([line for line in SOURCE.splitlines() if line.strip()]) <= 15
    assert len([line for line in PROJECT.splitlines() if line.strip()]) <= 6


def test_it_is_listed_with_its_distribution_in_a_fresh_process(installed: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "compress", "methods"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("loudest"))
    for text in ("criterion", "loud-pruning 1.2", "Keeps the units whose largest weight is largest"):
        assert text in line
    assert "dependency" in done.stdout


def test_its_options_are_explained(installed: Path, invoke: Callable[..., Any]) -> None:
    done = invoke("methods", "loudest")
    assert done.code == 0
    for text in ("--power", "exponent of every magnitude", "--quiet-first", "keep the quietest instead"):
        assert text in done.out


def test_it_prunes(installed: Path, invoke: Callable[..., Any]) -> None:
    done = invoke("prune", str(MLP), "--method", "loudest", "--power", "2", "--quiet-first", "--json", "-o", "small")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert report["method"]["name"] == "loudest"
    assert report["method"]["options"] == {"power": 2.0, "quiet_first": True}
    assert report["method"]["budget"] == {
        "kind": "ratio", "value": 0.3, "target": 0.3, "reached": 0.3, "limited": False, "counted": "units",
    }  # fmt: skip
    assert report["after"]["params"] < report["before"]["params"]
    assert json.loads(Path("small", "report.json").read_text()) == report


def test_a_mistyped_option_is_refused_with_a_near_match(installed: Path, invoke: Callable[..., Any]) -> None:
    done = invoke("prune", str(MLP), "--method", "loudest", "--powre", "2")
    assert done.code == 2
    assert "no option --powre, neither of this command nor of method 'loudest'" in done.err
    assert "did you mean '--power'" in done.err


def test_it_passes_the_conformance_suite(installed: Path) -> None:
    check_plugin(importlib.import_module("loud_pruning").Loudest())


def test_two_distributions_cannot_share_a_name(installed: Path, invoke: Callable[..., Any]) -> None:
    install(installed.parent / "site", PROJECT.replace("loud-pruning", "louder-pruning"))
    importlib.invalidate_caches()
    done = invoke("prune", str(MLP), "--method", "loudest")
    assert done.code == 2
    for name in ("loud-pruning 1.2", "louder-pruning 1.2"):
        assert name in done.err


def test_one_that_cannot_be_imported_leaves_the_others_alone(installed: Path, invoke: Callable[..., Any]) -> None:
    (installed / "loud_pruning.py").write_text("import a_library_that_is_not_there\n" + SOURCE)
    done = invoke("prune", str(MLP), "--method", "loudest")
    assert done.code == 4
    assert "'loudest' of loud-pruning 1.2 cannot be imported" in done.err
    assert "a_library_that_is_not_there" in done.err
    listed = invoke("methods")
    assert listed.code == 0
    assert "tetris" in listed.out


def test_one_that_fails_on_the_way_is_named(installed: Path, invoke: Callable[..., Any]) -> None:
    (installed / "loud_pruning.py").write_text(SOURCE.replace("return -peaks if", "return peaks[:1] if"))
    done = invoke("prune", str(MLP), "--method", "loudest", "--quiet-first")
    assert done.code == 4
    assert "scores of" in done.err
    assert done.err.count("error: ") == 1
    sys.modules.pop("loud_pruning")
    (installed / "loud_pruning.py").write_text(SOURCE.replace("peaks = ", "peaks = undefined + "))
    done = invoke("prune", str(MLP), "--method", "loudest")
    assert "Loudest failed: NameError: name 'undefined' is not defined" in done.err
    assert not Path("compressed").exists()
