"""The pages on graphs and wirings of DS: a small run of each script, and the numbers that they know."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch


def script(name: str) -> Any:
    return importlib.import_module(name)


def page_of(name: str, words: list[str], results: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a script writes; its tables have no hole, and all its pictures are there."""
    words = [*words, "--threads", str(torch.get_num_threads()), "--results", str(results)]
    monkeypatch.setattr(sys, "argv", [name, *words])
    script(name).main()
    page = (results / f"{name}.md").read_text("utf-8")
    assert set(re.findall(r"\]\((\S+\.svg)\)", page)) == {path.name for path in results.glob("*.svg")}
    for table in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1
    assert "nan" not in page
    answers = re.findall(r"\| (\w+) \|$", page.split("## Is it reproduced?")[1], re.MULTILINE)
    assert set(answers[1:]) <= {"yes", "no"} and len(answers) >= 5
    return page


def test_graphs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--nodes", "9", "--steps", "80", "--epochs", "5", "--seeds", "2"]
    page = page_of("ds_graph", words, tmp_path / "one", monkeypatch)
    assert "Skipped: `--traffic` was not given." in page and "**another experiment of the same kind**" in page
    speed = np.abs(np.random.default_rng(0).normal(30, 9, (80, 7))) * (np.random.default_rng(1).random((80, 7)) > 0.2)
    np.savez(tmp_path / "roads.npz", speed=speed, adjacency=np.eye(7, k=1))
    words = ["--traffic", str(tmp_path / "roads.npz"), "--nodes", "6", "--steps", "60", "--epochs", "1", "--seeds", "1"]
    page = page_of("ds_graph", words, tmp_path / "two", monkeypatch)
    assert "7 nodes, 19 pairs of neighbours or the same, 80 steps." in page and "Skipped" not in page


def test_wirings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--data", "digits", "--samples", "120", "--test", "40", "--epochs", "2", "--channels", "4", "--seeds", "1"]
    page = page_of("ds_wirings", [*words, "--batch-size", "50"], tmp_path, monkeypatch)
    assert "120 training and 40 test samples, 2 epochs, 4 and 8 channels" in page and "**short run**" in page
    assert all(f"| {row} |" in page for row in ("1 | 103", "2 | 1,244", "3 | 4,976", "4 | 72,990", "5 | 79,626"))


def test_edges_of_the_paper() -> None:
    found = script("ds_wirings").stage_edges(0.225)
    assert [int(each) for each in found] == [103, 1_244, 4_976, 72_990, 79_626] and int(sum(found)) == 158_941


def test_the_missing_do_not_count() -> None:
    runs = script("ds_graph_runs")
    values = torch.cat((torch.full((40, 3), 10.0), torch.zeros(40, 3))).reshape(2, 40, 3).transpose(0, 1).reshape(80, 3)
    series = runs.Series(values, torch.ones(3, 3, dtype=torch.bool))
    train, _, test = runs.divided(series)
    assert train.centre == 10 and len(train.inputs) == 50 and len(test.inputs) == 15

    class Eleven(torch.nn.Module):
        mix = runs.Fixed(torch.eye(3))

        def forward(self, x: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
            return torch.full(x.shape[:2], 11.0)

    plain = runs.Windows(test.inputs, torch.tensor([[10.0, 0.0, 0.0]] * 15), 0.0, 1.0)
    assert plain.error(Eleven()) == pytest.approx(10)


def test_products_that_count() -> None:
    wirings = script("ds_wirings")
    model: Any = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(18, 2)).eval()
    with torch.no_grad():
        model[0].weight[0] = 0
        model[2].weight[:, :9] = 0
    traced = wirings.trace(model, (torch.randn(2, 1, 5, 5),)).module
    assert wirings.mult_adds(traced) == 9 * 9 + 2 * 9
