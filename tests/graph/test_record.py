from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.graph.arguments import flatten
from compress.graph.propagate import op_name
from compress.graph.record import record
from compress.graph.trace import owner, trace


def ops(module: nn.Module, *inputs: Tensor, how: Any = "meta") -> list[str]:
    arguments, tensors = flatten(inputs)
    graph = record(module, arguments, tensors, how).graph
    return [op_name(n.target).removeprefix("aten::") for n in graph.nodes if n.op == "call_function"]


class Branchy(nn.Module):
    """Code that asks where tensors lie, reads constants, keeps a cache and calls a layer twice."""

    table: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("table", torch.arange(3))
        self.cache: dict[str, Tensor] = {}
        self.last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        assert x.device == self.layer.weight.device or x.device.type == "meta"
        count = int(self.table.sum().item()) + len(torch.tensor([1, 2]).tolist())  # 3 + 2
        for _ in range(count - 3):
            x = self.layer(x)
        self.cache["x"] = self.last = x
        return x + torch.arange(4, device=x.device, dtype=x.dtype)


@pytest.mark.parametrize("how", ["meta", "fake", "real"])
def test_layers_stay_whole_and_the_graph_computes_the_same(how: Any) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LayerNorm(16), nn.Linear(16, 2))
    x = torch.randn(2, 3, 4, 4)
    assert ops(module.eval(), x, how=how) == ["conv2d", "batch_norm", "flatten", "layer_norm", "linear"]
    arguments, tensors = flatten((x,))
    assert torch.equal(record(module, arguments, tensors, how).module()(x), module(x))


@pytest.mark.parametrize("how", ["meta", "real"])
def test_constants_are_computed_and_the_module_is_left_as_it_was(how: Any) -> None:
    module, x = Branchy().eval(), torch.randn(2, 4)
    arguments, tensors = flatten((x,))
    recording = record(module, arguments, tensors, how)
    assert module.cache == {}
    assert module.last is None
    assert torch.equal(recording.module()(x), module(x))
    assert module.layer.weight.device.type == "cpu"


@pytest.mark.parametrize("how", ["meta", "fake", "real"])
def test_buffers_changed_in_place_are_not_changed_while_recording(how: Any) -> None:
    class Counts(nn.Module):
        seen: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(3))

        def forward(self, x: Tensor) -> Tensor:
            self.seen[:1] = 5
            self.seen.add_(1)
            return x * self.seen

    module, x = Counts(), torch.ones(2, 3)
    arguments, tensors = flatten((x,))
    recording = record(module, arguments, tensors, how)
    assert module.seen.tolist() == [0, 0, 0]
    assert recording.module()(x).tolist() == [[6, 1, 1]] * 2


def test_inputs_are_left_as_they_were() -> None:
    x = torch.zeros(2, 3)
    arguments, tensors = flatten((x,))
    record(nn.ReLU(inplace=True), arguments, (tensors[0].sub_(1),), "real")
    assert x.tolist() == [[-1] * 3] * 2


def test_values_of_the_data_cannot_be_read_without_data(lab: Any) -> None:
    module = lab.network(lambda m, x: m.i(x) if x.sum() > 0 else x, i=nn.Linear(3, 3))
    arguments, tensors = flatten((torch.ones(2, 3),))
    for how in ("meta", "fake"):
        with pytest.raises(Exception, match=r"meta|_local_scalar_dense"):
            record(module, arguments, tensors, how)
    assert "linear" in ops(module, torch.ones(2, 3), how="real")


def test_numbers_written_into_the_code_are_kept(lab: Any) -> None:
    module = lab.network(lambda m, x: m.i(x)[:, [2, 0]] + torch.tensor([1.0, 2.0], device=x.device), i=nn.Linear(3, 4))
    x = torch.randn(2, 3)
    arguments, tensors = flatten((x,))
    with pytest.raises(LookupError):
        record(module, arguments, tensors, "meta")
    assert torch.equal(trace(module, (x,)).module(x), module(x))


def test_attention_modules_show_the_layers_inside() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    found = ops(layer, torch.randn(2, 5, 8))
    assert found.count("linear") == 4
    assert "scaled_dot_product_attention" in found
    assert torch.backends.mha.get_fastpath_enabled()


def test_owners_are_the_innermost_modules(lab: Any) -> None:
    shared = nn.Linear(4, 4)
    module = lab.network(lambda m, x: F.relu(m.block(m.again(x))), again=shared, block=nn.Sequential(shared, nn.GELU()))
    program = trace(module, (torch.randn(2, 4),))
    calls = [(op_name(n.target), owner(n)) for n in program.module.graph.nodes if n.op == "call_function"]
    assert calls == [
        ("aten::linear", "again"),
        ("aten::linear", "again"),
        ("aten::gelu", "block.1"),
        ("aten::relu", ""),
    ]


def test_a_graph_is_recorded_with_the_owners_it_knows() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU()).eval()
    first = trace(module, (torch.randn(2, 3),)).module
    second = trace(first, (torch.randn(2, 3),))
    assert second.dynamic_batch
    assert [owner(n) for n in second.module.graph.nodes if n.op == "call_function"] == ["0", "1"]


def test_nested_arguments_and_results(lab: Any) -> None:
    def forward(m: Any, pair: Any, *, scale: Tensor, power: int) -> Any:
        return {"a": [m.i(pair[0]) * scale], "b": (pair[1]["x"] ** power, None, 3)}

    module = lab.network(forward, i=nn.Linear(3, 2))
    pair = (torch.randn(2, 3), {"x": torch.randn(2, 5)})
    module.forward = lambda *args, **kwargs: forward(module, *args, **kwargs)
    program = trace(module, (pair,), {"scale": torch.tensor(2.0), "power": 2})
    got = program.module(*program.inputs)
    expected = program.call(module, program.inputs)
    assert torch.equal(got["a"][0], expected["a"][0])
    assert torch.equal(got["b"][0], expected["b"][0])
    assert got["b"][1:] == (None, 3)
    assert math.prod(got["a"][0].shape) == 4


@pytest.mark.parametrize("how", ["meta", "fake", "real"])
def test_tensors_are_made_where_the_inputs_lie(how: Any, lab: Any) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        start = torch.zeros(x.shape[0], 4, device=x.device, dtype=x.dtype)
        places = torch.arange(4, device=m.i.weight.device).to(x)
        y: Tensor = m.i(x) + start + places.to(x.device)
        return y

    module = lab.network(forward, i=nn.Linear(3, 4))
    arguments, tensors = flatten((torch.randn(2, 3),))
    graph = record(module, arguments, tensors, how).module()
    assert torch.equal(graph(*tensors), module(*tensors))
    assert graph.to("meta")(tensors[0].to("meta")).device.type == "meta"
