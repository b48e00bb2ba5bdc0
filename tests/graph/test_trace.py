from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from compress.errors import ModelError
from compress.graph import trace
from compress.graph.trace import concrete, owner, plain, shape_of


def test_parameters_keep_their_names_and_any_batch_runs() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    program = trace(module, (torch.randn(2, 3),))
    assert dict(program.module.named_parameters()).keys() == dict(module.named_parameters()).keys()
    assert program.dynamic_batch
    x = torch.randn(7, 3)
    assert torch.equal(program.module(x), module(x))


def test_signature_with_any_number_of_inputs(lab: Any) -> None:
    module = lab.network(lambda m, *xs: m.i(xs[0] + xs[1]), i=nn.Linear(3, 2))
    assert trace(module, (torch.randn(2, 3), torch.randn(2, 3))).dynamic_batch


def test_fixed_batch_after_the_dynamic_one_failed(lab: Any) -> None:
    x = torch.randn(2, 3)
    program = trace(lab.network(lambda m, x: m.i(x.view(2, 3)), i=nn.Linear(3, 2)), (x,))
    assert not program.dynamic_batch
    assert program.inputs[0] is x


def test_what_nothing_reads_is_left_out(lab: Any) -> None:
    module = lab.network(lambda m, x: (m.b(x), m.a(x))[1], a=nn.Linear(3, 2), b=nn.Linear(3, 4), c=nn.Linear(3, 5))
    program = trace(module, (torch.randn(2, 3),))
    assert set(dict(program.module.named_parameters())) == {"a.weight", "a.bias"}
    assert sum(n.op == "call_function" for n in program.module.graph.nodes) == 1


def test_control_flow_on_values_is_an_error_with_a_hint(lab: Any) -> None:
    module = lab.network(lambda m, x: m.i(x) if x.sum() > 0 else x, i=nn.Linear(3, 3))
    with pytest.raises(ModelError, match="cannot be traced") as raised:
        trace(module, (torch.randn(2, 3),))
    assert "torch.where" in raised.value.hint


def test_owner_and_shapes() -> None:
    program = trace(nn.Sequential(nn.Linear(3, 4)), (torch.randn(2, 3),))
    call = next(n for n in program.module.graph.nodes if n.op == "call_function")
    assert owner(call) == "0"
    assert shape_of(call.meta["val"]) == (2, 4)
    assert concrete(5) == 5


def test_plain_wants_a_graph() -> None:
    with pytest.raises(TypeError, match="Linear"):
        plain(nn.Linear(2, 2))


def test_an_operator_without_a_fake_implementation_is_named() -> None:
    @torch.library.custom_op("nofake::double", mutates_args=())
    def double(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    library = torch.library.Library("nofake", "FRAGMENT")
    library.define("triple(Tensor x) -> Tensor")
    library.impl("triple", lambda x: x * 3, "CPU")

    class Own(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.layer, self.name = nn.Linear(3, 4), name

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = getattr(torch.ops.nofake, self.name)(self.layer(x))
            return made

    for name in ("double", "triple"):
        where = rf"test_trace.py:\d+ \(`made: .*`\): the operator nofake::{name} does not say what shape it returns"
        with pytest.raises(ModelError, match=where) as raised:
            trace(Own(name), (torch.randn(2, 3),))
        assert "torch.library.register_fake" in raised.value.hint
