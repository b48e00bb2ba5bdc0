"""The coverage benchmark itself: its lists, its rows, its page."""

from __future__ import annotations

import importlib
from collections import Counter
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn


@pytest.fixture(scope="module")
def models() -> Any:
    for name in ("measure", "table"):
        importlib.import_module(f"coverage_models.{name}")
    return importlib.import_module("coverage_models")


class Odd(nn.Module):
    """Eight features in between; it may look at its numbers, or refuse to run."""

    def __init__(self, looks: bool = False, runs: bool = True) -> None:
        super().__init__()
        self.a, self.b, self.looks, self.runs = nn.Linear(3, 8), nn.Linear(8, 2), looks, runs

    def forward(self, x: Tensor) -> Tensor:
        if not self.runs:
            raise ValueError("it does not run")
        h = torch.relu(self.a(x))
        y: Tensor = self.b(h if not self.looks or h.sum() > 0 else -h)
        return y


def row(models: Any, build: Any) -> Any:
    case = models.case.Case("samples", "odd", "odd", build, lambda: ((torch.randn(2, 3),), {}))
    return models.measure.Row(**models.measure.measure(case, [0.25, 0.5]))


def test_names_are_unique_and_torchvision_is_complete(models: Any) -> None:
    names = {suite: [case.name for case in cases()] for suite, cases in models.suites().items()}
    assert not [(s, n) for s, found in names.items() for n, times in Counter(found).items() if times > 1]
    assert set(names["torchvision"]) == set(torchvision.models.list_models())
    assert len(names["timm"]) >= 65
    assert len(names["transformers"]) >= 30


def test_a_row_says_what_was_cut(models: Any) -> None:
    found = row(models, Odd)
    assert (found.status, found.share, found.groups, found.in_place) == ("exact", 1.0, 1, "")
    assert found.parameters == (3 * 8 + 8 + 8 * 2 + 2, 3 * 4 + 4 + 4 * 2 + 2)
    assert found.macs == (3 * 8 + 8 * 2, 3 * 4 + 4 * 2)
    assert 0 <= found.error < 1e-12


def test_a_network_that_looks_at_its_numbers_is_cut_in_place(models: Any) -> None:
    found = row(models, lambda: Odd(looks=True))
    assert (found.status, found.share, found.in_place) == ("exact", 1.0, "")
    assert found.parameters == (3 * 8 + 8 + 8 * 2 + 2, 3 * 4 + 4 + 4 * 2 + 2)


def test_what_goes_wrong_is_a_row(models: Any) -> None:
    def broken() -> nn.Module:
        raise OSError("no such file")

    assert (row(models, broken).status, row(models, broken).problem) == ("BAD", "OSError: no such file")
    found = row(models, lambda: Odd(runs=False))
    assert found.status == "not traced"
    assert "it does not run" in found.problem


def test_the_page_counts_and_names(models: Any) -> None:
    rows = [row(models, Odd), row(models, lambda: Odd(runs=False))]
    page = models.table.markdown(rows, [0.25, 0.5])
    assert "| samples | 2 | 1 |" in page
    assert "25 % and 50 %" in page
    assert "`odd` not traced: " in page
