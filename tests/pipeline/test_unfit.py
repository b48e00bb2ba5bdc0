"""Networks that `compress prune` refuses before any work, and why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

Invoke = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("fast")


@pytest.fixture(autouse=True)
def _site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("method", ["dependency", "magnitude", "tetris", "channel", "dead", "random"])
@pytest.mark.parametrize(("where", "number"), [("0.weight", "nan"), ("0.bias", "inf"), ("1.running_var", "nan")])
def test_weights_that_are_not_finite(method: str, where: str, number: str, invoke: Invoke) -> None:
    # Found by every method alike: some would have removed the unit, and written what is left of a broken network
    net = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).eval()
    net.state_dict()[where].view(-1)[2] = float(number)
    torch.export.save(torch.export.export(net, (torch.rand(2, 8),)), "net.pt2")
    done = invoke("prune", "net.pt2", "--method", method, "-o", "small")
    assert done.code == 2 and f"net.pt2: {where} holds 1 number that is not finite" in done.err
    assert "give an earlier checkpoint" in done.err and not Path("small").exists()


def test_infinity_in_a_mask_is_none_of_that(invoke: Invoke) -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(8, 6), nn.Linear(6, 3)
            self.mask: torch.Tensor
            self.register_buffer("mask", torch.tensor([0.0, -torch.inf, 0.0]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.softmax(self.head(torch.relu(self.body(x))) + self.mask, -1)

    torch.export.save(torch.export.export(Masked().eval(), (torch.rand(2, 8),)), "net.pt2")
    done = invoke("prune", "net.pt2", "--ratio", "0.5", "-o", "small")
    assert done.code == 0, done.err


def test_samples_and_a_program_of_one_batch_size(invoke: Invoke) -> None:
    class Classed(nn.Module):
        """With a class token for as many samples as there were at the export."""

        def __init__(self) -> None:
            super().__init__()
            self.token = nn.Parameter(torch.rand(1, 1, 8))
            self.body, self.head = nn.Linear(8, 12), nn.Linear(12, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.cat([self.token.expand(len(x), -1, -1), x.flatten(1).unflatten(1, (8, 8))], 1)
            return self.head(torch.relu(self.body(x)).mean(1))

    torch.export.save(torch.export.export(Classed().eval(), (torch.rand(2, 1, 8, 8),)), "fixed.pt2")
    for command in ("prune", "sensitivity"):
        done = invoke(command, "fixed.pt2", "--data", "digits", "-o", "small")
        assert done.code == 3 and "takes batches of 2 alone, so the samples of --data" in done.err
        assert "export it with a dynamic batch" in done.err and not Path("small").exists()
    assert invoke("prune", "fixed.pt2", "-o", "small").code == 0
    # Where the batch is fixed and no operation minds, samples are run as ever
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10)).eval()
    torch.export.save(torch.export.export(plain, (torch.rand(2, 1, 8, 8),)), "plain.pt2")
    assert invoke("prune", "plain.pt2", "--data", "digits", "-o", "small").code == 0
