"""A model that no front end can follow: exit code 3, the line that defeats it, and what can be done."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

UNTRACEABLE = """
import torch
from torch import nn

library = torch.library.Library("untraceable_example", "FRAGMENT")
if not hasattr(torch.ops.untraceable_example, "twice"):
    library.define("twice(Tensor x) -> Tensor")
    library.impl("twice", lambda x: x * 2, "CPU")


class Net(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind, self.layer = kind, nn.Linear(4, 3)

    def forward(self, x):
        if self.kind == "branch" and x.sum() > 0:
            x = -x
        if self.kind == "operator":
            x = torch.ops.untraceable_example.twice(x)
        if self.kind == "numpy":
            x = torch.from_numpy(x.detach().numpy() * 2)
        if self.kind == "rows":
            x = x[torch.where(x[:, 0] > 0)]
        return self.layer(x)
"""


@pytest.mark.parametrize(
    ("kind", "line", "reason", "way_out"),
    [
        ("branch", 'if self.kind == "branch" and x.sum() > 0:', "it needs the values of tensors", "torch.where"),
        ("numpy", "x = torch.from_numpy(x.detach().numpy() * 2)", "it needs the values of tensors", "torch for NumPy"),
        ("rows", "x = x[torch.where(x[:, 0] > 0)]", "it needs the values of tensors", "torch.where"),
        (
            "operator",
            "x = torch.ops.untraceable_example.twice(x)",
            "twice does not say what shape it returns",
            "torch.library.register_fake",
        ),
    ],
)
def test_a_model_that_cannot_be_traced(
    tmp_path: Path, invoke: Callable[..., Any], kind: str, line: str, reason: str, way_out: str
) -> None:
    (tmp_path / "nets.py").write_text(UNTRACEABLE, encoding="utf-8")
    layer = torch.nn.Linear(4, 3)
    torch.save({f"layer.{n}": t for n, t in layer.state_dict().items()}, tmp_path / "m.pt")
    words = ("--arch", f"{tmp_path / 'nets.py'}:Net", "--arch-args", json.dumps({"kind": kind}), "--input-shape", "4")
    done = invoke("prune", str(tmp_path / "m.pt"), *words, "-o", str(tmp_path / "out"))
    said = str(done.err)
    assert done.code == 3, said
    assert not (tmp_path / "out").exists()
    number = next(i for i, text in enumerate(UNTRACEABLE.splitlines(), 1) if text.strip() == line)
    assert f"nets.py:{number} (`{line}`)" in said
    assert reason in said
    assert way_out in said
