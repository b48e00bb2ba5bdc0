"""Rules of another distribution: its operator is pinned without them, and sliced exactly with them."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compress.graph import analyse, load_rules, slice_verified, trace
from compress.graph.rules import RULES

OPERATOR = """\
import torch
from torch import Tensor


@torch.library.custom_op("striped::gain", mutates_args=())
def gain(x: Tensor, by: Tensor) -> Tensor:
    return x * by[:, None, None]


@gain.register_fake
def _(x: Tensor, by: Tensor) -> Tensor:
    return torch.empty_like(x)
"""
RULE = """\
from compress.graph.labels import Value, join
from compress.graph.rules import Call, rule
from compress.graph.rules.norm import per_channel


@rule("striped::gain")
def gain(call: Call) -> Value:
    return join(call.relations, call["x"], per_channel(call["x"], call["by"]))
"""
NETWORK = """\
import torch
from torch import nn

import striped


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 4, 1)
        self.by = nn.Parameter(torch.rand(16) + 0.5)

    def forward(self, x):
        return self.last(torch.relu(torch.ops.striped.gain(self.first(x), self.by)))


build = Net
"""


def install(site: Path, name: str, entry: str) -> None:
    """What an installer leaves behind, besides the modules."""
    info = site / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[compress.rules]\nstriped = {entry}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The operator and its rules where Python finds them; nothing says yet that there are rules."""
    place = tmp_path / "site"
    place.mkdir()
    for name, source in {"striped": OPERATOR, "striped_rules": RULE, "nets": NETWORK}.items():
        (place / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.setattr("compress.graph.rules.installed._met", set())  # as in a fresh process
    monkeypatch.chdir(tmp_path)
    yield place
    RULES.pop("striped::gain", None)
    for name in ("striped_rules", "nets"):  # the operator itself stays registered
        sys.modules.pop(name, None)


def network() -> nn.Module:
    made: nn.Module = importlib.import_module("nets").build().eval()
    return made


def test_without_the_rule_it_is_pinned_and_named(site: Path) -> None:
    coupling = analyse(trace(network(), (torch.randn(2, 3, 8, 8),)))
    assert not coupling.groups
    assert coupling.flow.unruled == {"striped::gain": ("",)}
    assert any(f.reason == "striped::gain has no label rule" for f in coupling.frozen)


def test_with_the_package_installed_it_is_sliced_exactly(site: Path) -> None:
    install(site, "striped-rules", "striped_rules")
    coupling = analyse(trace(network(), (torch.randn(2, 3, 8, 8),)))
    assert coupling.flow.unruled == {}
    found = slice_verified(coupling, {"first": np.array([0, 3, 5])})
    assert not found.rolled_back
    assert found.verification.error < 1e-12
    assert found.module.by.shape == (13,)


def test_on_the_command_line_in_a_fresh_process(site: Path) -> None:
    torch.save(network().state_dict(), "net.pt")
    install(site, "striped-rules", "striped_rules")
    words = ["inspect", "net.pt", "--arch", "nets:build", "--input-shape", "3,8,8", "--json"]
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "compress", *words],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    (group,) = json.loads(done.stdout)["groups"]
    assert (group["name"], group["size"]) == ("first", 16)
    assert set(group["tensors"]) == {"first.weight", "first.bias", "by", "last.weight"}


def test_one_that_cannot_be_imported_is_a_warning(site: Path, invoke: Callable[..., Any]) -> None:
    torch.save(network().state_dict(), "net.pt")
    install(site, "broken-rules", "broken_rules")
    (site / "broken_rules.py").write_text("import a_library_that_is_not_there\n")
    install(site, "striped-rules", "striped_rules")
    done = invoke("inspect", "net.pt", "--arch", "nets:build", "--input-shape", "3,8,8", "--json")
    assert done.code == 0, done.err
    assert "warning: the rules of broken-rules 1.0 cannot be imported from broken_rules" in done.err
    assert "a_library_that_is_not_there" in done.err
    assert [g["name"] for g in json.loads(done.out)["groups"]] == ["first"]  # the rest works
    assert load_rules() == []  # said once


def test_it_is_a_warning_from_python_as_well(site: Path) -> None:
    install(site, "lost-rules", "lost_rules:register")
    with pytest.warns(RuntimeWarning, match="rules of lost-rules 1.0 cannot be imported from lost_rules:register"):
        analyse(trace(nn.Linear(2, 3).eval(), (torch.randn(2, 2),)))
