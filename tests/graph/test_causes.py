from __future__ import annotations

from typing import Any

import torch
from torch import nn

from compress.graph.causes import causes
from compress.graph.freedom import freedom


def why(coupling: Any, tensor: str, dim: int) -> set[tuple[str, str, str]]:
    """Operation, module and reason for the pinned indices of one dim."""
    known = causes(coupling)
    slot = next(s for s in coupling.flow.slots if (s.tensor, s.dim) == (tensor, dim))
    pins = [known[c] for c in coupling.classes.of_label[slot.labels].tolist() if coupling.classes.pinned[c]]
    return {(pin.op, pin.where, pin.reason) for pin in pins}


def test_what_a_gate_lost_is_blamed_on_the_gate(lab: Any) -> None:
    def forward(m: Any, x: Any) -> Any:
        h = m.stem(x)
        gate = m.gate(h.mean((2, 3))[:, None]).sigmoid()[:, 0]  # a convolution along the channels
        return m.head((h * gate[:, :, None, None]).mean((2, 3)))

    module = lab.network(forward, stem=nn.Conv2d(3, 6, 3), gate=nn.Conv1d(1, 1, 3, padding=1), head=nn.Linear(6, 2))
    coupling = lab.analyse(module, torch.randn(2, 3, 8, 8))
    reason = ("aten::conv1d", "gate", "spatial dimension of a convolution")
    assert why(coupling, "stem.weight", 0) == {reason}
    assert why(coupling, "head.weight", 1) == {reason}
    assert [h.indices for h in freedom(coupling).held] == [12]


def test_the_input_of_the_stem_is_not_blamed_for_what_comes_after(lab: Any) -> None:
    def forward(m: Any, x: Any) -> Any:
        return m.head(m.mix(m.stem(x).transpose(1, 2)).mean(2))

    module = lab.network(forward, stem=nn.Linear(3, 4), mix=nn.Linear(5, 6), head=nn.Linear(4, 2))
    coupling = lab.analyse(module, torch.randn(2, 5, 3))
    assert why(coupling, "mix.weight", 1) == {
        ("aten::linear", "mix", "meets a tensor, whose size is given along this dimension")
    }


def test_consequences_name_what_they_follow_from(lab: Any) -> None:
    def forward(m: Any, x: Any) -> Any:
        heads = m.a(x).view(-1, 3, 2) * m.scale
        return heads.flatten(1).sort(1).values

    module = lab.network(forward, a=nn.Linear(2, 6), scale=nn.Parameter(torch.randn(3, 2)))
    coupling = lab.analyse(module, torch.randn(4, 2))
    # The sort met heads and features; that the six rows of a stay follows from it.
    rows = next(s for s in coupling.flow.slots if (s.tensor, s.dim) == ("a.weight", 0))
    assert not set(coupling.classes.of_label[rows.labels].tolist()) & set(coupling.classes.pin_of)
    assert {op for op, _, _ in why(coupling, "a.weight", 0)} == {"aten::sort"}
