"""Tetris against the definition written out bin by bin, and against numbers by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compress.graph import analyse, trace
from compress.plugin import Context, make_plan
from compress.testing import check_plugin
from compress_plugins.tetris import Tetris


def reference(weights: np.ndarray, bins: int, measure: int) -> np.ndarray:
    """Which weights stay: in every bin of P all but the min(measure, P) - 1 smallest by magnitude."""
    keep = weights != 0
    alive = np.flatnonzero(keep)
    if len(alive) == 0:
        return keep
    low, high = weights[alive].min(), weights[alive].max()
    width = (high - low) / bins
    for b in range(bins):
        inside = [i for i in alive if min(int((weights[i] - low) / width) if width > 0 else 0, bins - 1) == b]
        inside.sort(key=lambda i: abs(weights[i]))
        for i in inside[: max(min(measure, len(inside)) - 1, 0)]:
            keep[i] = False
    return keep


def gaussian(count: int = 5000) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(0)).double()


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    st.lists(st.integers(-64, 64), min_size=1, max_size=60),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from(["min", "ignore-empty", "quantile", "auto"]),
)
def test_agrees_with_the_definition(numbers: list[int], bins: int, rule: Any) -> None:
    """Distinct magnitudes, so that only one answer is right; whole numbers over powers of two bin exactly."""
    values = list({abs(n): n for n in numbers}.values())
    weight = torch.tensor(values, dtype=torch.float64)
    mask, note = Tetris(bins, rule).mask(weight)
    assert mask.tolist() == reference(weight.numpy(), bins, note["p_min"]).tolist()
    assert note["weights"] == sum(v != 0 for v in values)
    assert note["kept_weights"] == int(mask.sum())


def test_uniform_weights_keep_m_minus_b_times_pmin_minus_one() -> None:
    """1000 evenly spread weights in 10 bins of 100: one of each bin would stay."""
    weight = torch.linspace(1, 2, 1000, dtype=torch.float64)
    mask, note = Tetris(10).mask(weight)
    assert (note["rule"], note["p_min"], note["empty_bins"]) == ("min", 100, 0)
    assert int(mask.sum()) == 1000 - 10 * 99 == note["kept_weights"]


def test_the_largest_of_each_bin_stay() -> None:
    mask, note = Tetris(2).mask(torch.tensor([1.0, 2.0, 3.0, 7.0, 8.0]))
    assert note["p_min"] == 2
    assert mask.tolist() == [False, True, True, False, True]


def test_negative_weights_lose_those_nearest_to_zero() -> None:
    mask, _ = Tetris(1).mask(torch.tensor([-3.0, -1.0, 2.0]))
    assert mask.tolist() == [True, False, False]


def test_gaussian_weights_need_another_rule() -> None:
    """Bins in the tails are nearly empty: the smallest spares nothing, and auto takes the median bin."""
    weight = gaussian()
    mask, note = Tetris(500, "min").mask(weight)
    assert note["p_min"] <= 1
    assert bool(mask.all())
    assert note["warning"].startswith(f"nothing pruned, as P_min is {note['p_min']} by the rule min")
    mask, note = Tetris(500).mask(weight)
    assert note["rule"] == "quantile 0.5"
    assert "warning" not in note
    counts = np.histogram(weight.numpy(), bins=500)[0]
    assert note["p_min"] == int(np.quantile(counts[counts > 0], 0.5))
    assert 0 < int(mask.sum()) < 5000
    _, note = Tetris(500, "ignore-empty").mask(weight)
    assert note["p_min"] == counts[counts > 0].min()


def test_quantiles_prune_more_and_more() -> None:
    kept = [int(Tetris(50, "quantile", q).mask(gaussian())[0].sum()) for q in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert kept == sorted(kept, reverse=True)
    assert kept[-1] == 50 - Tetris(50).mask(gaussian())[1]["empty_bins"]  # one in every bin


def test_one_bin_keeps_the_single_largest() -> None:
    mask, note = Tetris(1).mask(gaussian(100))
    assert int(mask.sum()) == 1
    assert gaussian(100)[mask].abs().item() == gaussian(100).abs().max().item()
    assert note["p_min"] == 100


def test_zeros_are_neither_counted_nor_kept() -> None:
    mask, note = Tetris(2).mask(torch.tensor([0.0, 1.0, 0.0, 2.0, 3.0, 4.0]))
    assert mask.tolist() == [False, False, False, True, False, True]
    assert (note["weights"], note["kept_weights"]) == (4, 2)


@pytest.mark.parametrize("weight", [torch.zeros(4), torch.zeros(0), torch.zeros(2, 0)])
def test_no_weights_at_all(weight: Tensor) -> None:
    mask, note = Tetris().mask(weight)
    assert mask.shape == weight.shape
    assert not mask.any()
    assert (note["rule"], note["weights"]) == ("no weights", 0)
    assert Tetris().mask(weight)[1]["warning"] == "nothing to prune: all its weights are zero"


def test_weights_that_are_all_the_same() -> None:
    mask, note = Tetris(4, "ignore-empty").mask(torch.full((2, 3), 0.5))
    assert mask.shape == (2, 3)
    assert note["p_min"] == 6
    assert int(mask.sum()) == 1


def test_trimmed_ends_stay_whole() -> None:
    weight = torch.arange(1.0, 101.0)
    mask, note = Tetris(1, trim=0.1).mask(weight)
    assert bool(mask[:10].all())
    assert bool(mask[90:].all())
    assert int(mask[10:90].sum()) == 1
    assert note["p_min"] == 80


@pytest.mark.parametrize("options", [{"bin": 0}, {"bin": 10**9}, {"q": 1.5}, {"trim": 0.5}, {"trim": -0.1}])
def test_options_out_of_range(options: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Tetris(**options)


def test_plan_covers_every_layer_that_may_shrink() -> None:
    layers = [nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 2)]
    context = Context(analyse(trace(nn.Sequential(*layers).eval(), (torch.randn(2, 8),))))
    plan = make_plan(Tetris(8), context)
    assert set(plan.notes) == {"0.weight", "2.weight", "4.weight"}
    assert set(plan.removed) <= {"0", "2"}
    single = make_plan(Tetris(8), dataclasses.replace(context, granularity="weight"))
    assert {n: int(m.sum()) for n, m in single.masks.items()} == {
        n: round(note["weights"] * note["share of weights"]) for n, note in plan.notes.items()
    }


# Bins, weights that stay by the paper's table, and their standard deviation over layers drawn uniformly.
TABLE = [(10, 410, 175), (100, 2300, 421), (250, 4250, 570), (500, 7000, 669), (1000, 10000, 789)]


@pytest.mark.parametrize(("bins", "printed", "deviation"), TABLE)
def test_the_table_of_the_paper(bins: int, printed: int, deviation: float) -> None:
    """A layer of 10 x 1200 weights as it is initialised, uniform within 1 / sqrt(1200)."""
    kept = []
    for seed in range(12):
        drawn = torch.rand(10, 1200, generator=torch.Generator().manual_seed(seed))
        mask, note = Tetris(bins, "min").mask((2 * drawn - 1) / 1200**0.5)
        assert int(mask.sum()) == 12_000 - bins * (note["p_min"] - 1)
        kept.append(int(mask.sum()))
    assert abs(printed - sum(kept) / len(kept)) < 3 * deviation


def test_histograms_before_and_after() -> None:
    """Bins [1, 4.5) and [4.5, 8]: the first loses the smallest of three, the second the smaller of two."""
    weight = torch.tensor([1.0, 2.0, 3.0, 7.0, 8.0, 0.0])
    mask, note = Tetris(2).mask(weight)
    figure = Tetris(2).histogram("a.weight", weight, mask, note)
    assert figure is not None
    before, after = figure.series
    assert (figure.name, note["thinned_bins"]) == ("tetris-a-weight", 2)
    assert (list(before.x), list(before.y), list(after.y)) == ([1.0, 4.5, 8.0], [3, 2], [2, 1])
    assert "3 of 5 weights stay (rule min)" in figure.title
    assert Tetris().histogram("a", torch.zeros(3), torch.zeros(3, dtype=torch.bool), {}) is None


def test_a_plan_has_a_picture_of_every_layer() -> None:
    module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2)).eval()
    plan = make_plan(Tetris(8), Context(analyse(trace(module, (torch.randn(2, 8),)))))
    assert [f.name for f in plan.figures] == ["tetris-0-weight", "tetris-2-weight"]


def test_conformance() -> None:
    check_plugin(Tetris(8))
