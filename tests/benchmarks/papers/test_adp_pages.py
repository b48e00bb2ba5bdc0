"""The pages on ADP: a small run of each script, and the parts that they are made of."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compress.data import Split


def script(name: str) -> Any:
    return importlib.import_module(name)


@pytest.fixture
def second(tmp_path: Path) -> str:
    """Two classes of seven features, the second of which alone tells them apart."""
    x = np.random.default_rng(0).normal(5, 3, (120, 7)).astype("float32")
    y = (x[:, 1] > 5).astype("int64")
    np.savez(tmp_path / "two.npz", x_train=x[:80], y_train=y[:80], x_test=x[80:], y_test=y[80:])
    return f"npz:{tmp_path / 'two.npz'}"


PAGES = {
    "adp_annealing": 3,
    "adp_tetris": 2,
    "adp_channel": 1,
    "adp_activations": 14,
    "adp_fsa": 1,
}


@pytest.mark.parametrize("name", PAGES)
def test_a_small_run(
    name: str, second: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every page has its sizes, tables without a hole, an answer to every bound, and all pictures that it shows."""
    sizes = {"--epochs": 2, "--samples": 120, "--test": 60, "--width": 24, "--seeds": 2, "--batch-size": 40}
    words = ["--data", "digits", *(str(word) for pair in sizes.items() for word in pair)]
    words += ["--threads", str(torch.get_num_threads()), "--results", str(tmp_path / "results")]
    if name in ("adp_activations", "adp_fsa"):
        words += ["--second", second]
    words += ["--iterations", "10"] if name == "adp_fsa" else []
    monkeypatch.setattr(sys, "argv", [name, *words])
    script(name).main()
    page = (tmp_path / "results" / f"{name}.md").read_text("utf-8")
    assert page in capsys.readouterr().out
    assert "120 training and 60 test samples, 2 epochs, hidden layers of 24" in page and "**short run**" in page
    shown = re.findall(r"\]\((\S+\.svg)\)", page)
    written = {path.name for path in (tmp_path / "results").glob("*.svg")}
    assert set(shown) == written and len(written) == PAGES[name]
    for table in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1
    assert "nan" not in page and re.search(r"0\.\d{4} ± 0\.\d{4}", page)
    answers = re.findall(r"\| (\w+) \|$", page.split("## Is it reproduced?")[1].split("## A second")[0], re.MULTILINE)
    assert set(answers[1:]) <= {"yes", "no"} and len(answers) >= 3
    if "--second" in words:
        assert "80 training and 40 test samples of 7 features, standardised, in 2 classes" in page


def test_mirrored_bins_by_hand() -> None:
    """Bins of [0, 10]: 5 and 3 weights. The code takes 3 - 1 from the 5 largest and 2 from the 3 smallest."""
    weight = torch.tensor([[0.0, 1.0, 2.0, 3.0], [4.0, 7.0, 8.0, 10.0]])
    found = script("adp_tetris").mirrored(weight, 2)
    assert found.tolist() == [[False, False, True, False], [False, True, True, True]]
    right = script("adp_tetris").Tetris(2, "min").mask(weight + 1)[0]  # without the zero, which does not count
    assert right.tolist() == [[False, False, True, True], [True, False, False, True]]
    assert script("adp_tetris").mirrored(torch.tensor([1.0, 2.0, 9.0]), 3).all()  # an empty bin


def test_a_network_comes_back_as_it_was() -> None:
    tetris = script("adp_tetris")
    torch.manual_seed(0)
    model = script("adp_network").network(6, 8, 3)
    before = [p.clone() for p in model.parameters()]
    split = Split(torch.randn(10, 6), torch.arange(10) % 3)
    data = script("adp_page").Samples(split, split, 3)
    layer = script("adp_network").weights_behind_the_first(model)[-1]
    found = tetris.pruned(model, data, [layer], [torch.zeros_like(layer, dtype=torch.bool)])
    assert found.kept == 0 and found.accuracy == pytest.approx(
        (split.targets == model[-1].bias.argmax()).float().mean()
    )
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize(("activation", "inputs"), [("relu", 24), ("maxout", 8), ("channel-out absmax", 24)])
def test_pools_decide_the_inputs_of_the_next_layer(activation: str, inputs: int) -> None:
    networks = script("adp_network")
    model = networks.network(5, 24, 3, networks.Hidden(activation, 3, "standard", 0.2, norm=True))
    shapes = [tuple(layer.weight.shape) for layer in model if isinstance(layer, torch.nn.Linear)]
    assert shapes == [(24, 5), (24, inputs), (3, inputs)]
    assert [type(layer).__name__ for layer in model][1:4] == [type(model[1]).__name__, "BatchNorm1d", "Dropout"]
    assert model(torch.randn(4, 5)).shape == (4, 3)


def test_what_trains_in_each_way() -> None:
    networks = script("adp_network")
    split = Split(torch.randn(60, 5), torch.arange(60) % 3)
    for way, moved in ((networks.as_coded(1.0, 20), [1, 1, 0, 1, 0, 1]), (networks.right(0.1, 20), [1] * 6)):
        model = networks.network(5, 9, 3)
        before = [p.detach().clone() for p in model.parameters()]
        networks.train(model, way, split, 2)
        after = list(model.parameters())
        assert [not torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [bool(each) for each in moved]
        assert not model.training


def test_bounds() -> None:
    page = script("pages")
    found = [page.within("a", [0.93, 0.96], 0.93, 0.965), page.within("b", [0.97], 0.975)]
    assert [line for line in page.bounds(found)][-2:] == ["| a | 0.9300 to 0.9600 | yes |", "| b | 0.9700 | no |"]
    assert page.cell([0.5]) == "0.5000" and page.cell([1, 3], 1) == "2.0 ± 1.4"
