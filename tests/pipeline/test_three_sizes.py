"""The sizes that a report tells, against a count of the tensors in the two files that uses nothing of the project."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import compress

pytestmark = pytest.mark.usefixtures("fast")

NETWORKS = """
import torch
from torch import nn
from torch.nn import functional


class Words(nn.Module):
    '''Reads with the weights that it answers with.'''

    def __init__(self):
        super().__init__()
        self.words, self.norm, self.answer = nn.Embedding(11, 8), nn.LayerNorm(8), nn.Linear(8, 11, bias=False)
        self.wide, self.narrow = nn.Linear(8, 20), nn.Linear(20, 8)
        self.answer.weight = self.words.weight

    def forward(self, x):
        x = self.words(x)
        return self.answer(self.norm(x + self.narrow(functional.gelu(self.wide(x)))))


class Pictures(nn.Module):
    '''Grouped, depthwise and transposed convolutions, norms, and a residual sum.'''

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.deep, self.wide = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 12, 1)
        self.grouped, self.back = nn.Conv2d(12, 12, 3, padding=1, groups=2), nn.Conv2d(12, 8, 1)
        self.up, self.act, self.head = nn.ConvTranspose2d(8, 6, 2, stride=2), nn.PReLU(6), nn.Linear(6, 4)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        x = x + self.back(torch.relu(self.grouped(torch.relu(self.wide(self.deep(x))))))
        return self.head(self.act(self.up(x)).mean((2, 3)))
"""
INPUTS = {"Words": "6:int64", "Pictures": "1,8,8"}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text(NETWORKS, encoding="utf-8")
    scope: dict[str, Any] = {}
    exec(NETWORKS, scope)
    return scope


def example(name: str) -> Tensor:
    return torch.randint(0, 11, (1, 6)) if name == "Words" else torch.rand(1, 1, 8, 8)


def counted(module: nn.Module, x: Tensor) -> dict[str, int]:
    """Parameters, tied ones once, those of them that are not zero, and multiply-accumulates of one sample."""
    distinct = {id(p): p for p in module.parameters()}.values()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(x)
    return {
        "params": sum(p.numel() for p in distinct),
        "nonzero": sum(int((p != 0).sum()) for p in distinct),
        "macs": counter.get_total_flops() // 2,
    }


@pytest.mark.parametrize("network", ["Words", "Pictures"])
@pytest.mark.parametrize(
    "words",
    [
        ("magnitude", "unit", "--ratio", "0.4"),
        ("magnitude", "weight", "--ratio", "0.6"),
        ("random", "weight", "--params", "0.5"),
        ("tetris", "weight", "--bin", "10"),
        ("channel", "weight", "--pool-size", "3", "--first-layer"),
        ("dead", "weight"),
    ],
    ids=" ".join,
)
def test_a_report_tells_what_the_tensors_hold(
    network: str, words: tuple[str, ...], site: dict[str, Any], invoke: Callable[..., Any]
) -> None:
    original: nn.Module = site[network]().eval()
    with torch.no_grad():
        for p in original.parameters():
            p.add_(0.1 * torch.rand(p.shape) - 0.05)  # no bias is zero by itself
        original.get_parameter("wide.weight")[[1, 4, 6]] = 0  # some zeros are there, and some units dead
    torch.save(original.state_dict(), "net.pt")
    came = ("net.pt", "--arch", f"nets.py:{network}", "--input-shape", INPUTS[network])
    done = invoke("prune", *came, "--method", words[0], "--granularity", *words[1:], "-o", "small")
    assert done.code == 0, done.err
    report, plan = (json.loads(Path("small", f"{n}.json").read_text("utf-8")) for n in ("report", "plan"))
    x = example(network)
    for side, module in (("before", original), ("after", compress.load("small"))):
        assert {key: report[side][key] for key in ("params", "nonzero", "macs")} == counted(module, x)
    assert report["after"]["params"] <= report["before"]["params"]  # what was tied is tied
    masked = {name: original.get_parameter(name) for name in plan["masks"]}
    notes = report["method"]["notes"].values()
    if words[1] == "unit":
        assert not masked and report["after"]["nominal"] is report["before"]["nominal"] is None
        return
    assert len({id(p) for p in masked.values()}) == len(masked) > 2
    assert report["before"]["nominal"] == sum(int((p != 0).sum()) for p in masked.values())
    for name, weight in masked.items():
        with torch.no_grad():
            weight.flatten()[plan["masks"][name]["zero"]] = 0
    assert report["after"]["nominal"] == sum(int((p != 0).sum()) for p in masked.values())
    assert report["after"]["nominal"] == sum(n.get("kept_weights", 0) for n in notes)
    held = int(sum((p != 0).sum() for p in {id(p): p for p in original.parameters()}.values()))
    assert report["after"]["nonzero"] <= held  # the masks, and what is dead of them
    if "--params" in words:
        assert report["before"]["params"] * 0.5 >= held > report["before"]["params"] * 0.5 - 20
    if report["after"]["params"] == report["before"]["params"]:  # nothing was dead
        assert report["after"]["nonzero"] == held
