from __future__ import annotations

from typing import Any

import torch
from torch import nn

from compress.graph import slice_module, trace
from compress.graph.names import graph_name, graph_tensors


def test_only_names_that_a_graph_cannot_have_are_changed() -> None:
    assert [graph_name(n) for n in ("meta.0.weight", "graph", "m.in.bias", "None.x")] == [
        "meta_.0.weight", "graph_", "m.in_.bias", "None_.x",
    ]  # fmt: skip
    same = ("features.0.weight", "block.meta.weight", "3x3.weight", "self.bias", "in1.weight", "bn_.weight")
    assert [graph_name(n) for n in same] == list(same)


def test_two_names_never_become_one() -> None:
    names = ["meta", "meta_", "meta__", "in.a", "in_.a", "a.in", "a.in_"]
    assert len({graph_name(n) for n in names}) == len(names)


def test_modules_called_like_attributes_of_a_graph_or_like_keywords(lab: Any) -> None:
    parts = {name: nn.Linear(6, 6) for name in ("meta", "graph", "code", "in", "print_readable")}

    def forward(m: Any, x: Any) -> Any:
        for name in parts:
            x = torch.relu(m.get_submodule(name)(x))
        return m.last(x)

    module = lab.network(forward, **parts, last=nn.Linear(6, 2))
    outcome = lab.prune(module, torch.randn(2, 6))
    assert outcome.verification.passed and outcome.coupling.program.dynamic_batch
    found = slice_module(module, outcome.coupling, outcome.alive, outcome.sliced)
    assert found.module is not None, found.problem
    assert {"meta.weight", "in.weight"} <= found.module.state_dict().keys()
    assert {"meta_.weight", "in_.weight"} <= outcome.sliced.state_dict().keys()


def test_a_graph_that_is_traced_again_keeps_its_names(lab: Any) -> None:
    x = torch.randn(2, 3)
    network = trace(lab.network(lambda m, x: m.meta(x), meta=nn.Linear(3, 2)), (x,)).module
    again = trace(network, (x,)).module
    assert list(graph_tensors(network)) == list(again.state_dict()) == ["meta_.weight", "meta_.bias"]
