"""What the profiler says: which nodes run, and which of them count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compress.latency.cpu import OnnxRuntimeTimer
from compress.latency.cuda import call_of
from compress.latency.layers import Layer
from compress.latency.sessions import exported, kernels, open_session, random
from compress.latency.single import IDLE, single
from compress.latency.timer import typical

CONV = (("strides", (2, 1)), ("dilations", (1, 1)), ("groups", 2), ("pads", (1, 0, 2, 1)))
TRANSPOSED = (("strides", (2,)), ("dilations", (1,)), ("groups", 2), ("pads", (1, 1)), ("output_padding", (1,)))
# Each layer, the nodes that it is, and the shape of its result by torch
CASES: list[tuple[Layer, list[str], tuple[int, ...]]] = [
    (Layer("conv", ((1, 4, 9, 9), (6, 2, 3, 3)), CONV), ["Conv"], (1, 6, 5, 8)),
    (Layer("conv_transpose", ((1, 4, 9), (4, 3, 3)), TRANSPOSED), ["ConvTranspose"], (1, 6, 18)),
    (Layer("linear", ((2, 4), (3, 4))), ["Gemm"], (2, 3)),
    (Layer("linear", ((2, 5, 4), (3, 4))), ["MatMul"], (2, 5, 3)),
    (Layer("matmul", ((2, 5, 4), (4, 3)), (("constant", True),)), ["MatMul"], (2, 5, 3)),
    (Layer("matmul", ((2, 5, 4), (2, 4, 3)), (("constant", False),)), ["MatMul"], (2, 5, 3)),
    (Layer("einsum", ((2, 5, 4), (3, 4)), (("equation", "bti,oi->bto"),)), ["Einsum"], (2, 5, 3)),
    (Layer("attention", ((1, 2, 5, 4), (1, 2, 6, 4), (1, 2, 6, 3))), ["MatMul", "MatMul", "Softmax"], (1, 2, 5, 3)),
    (Layer("lstm", ((5, 2, 4), (2, 3))), ["LSTM"], (5, 2, 6)),
    (Layer("gru", ((5, 2, 4), (1, 3))), ["GRU"], (5, 2, 3)),
    (Layer("rnn_relu", ((5, 2, 4), (1, 3))), ["RNN"], (5, 2, 3)),
]


@pytest.mark.parametrize(("layer", "nodes", "shape"), CASES, ids=lambda each: getattr(each, "op", None))
def test_one_layer(layer: Layer, nodes: list[str], shape: tuple[int, ...]) -> None:
    found = kernels(single(layer), 1, runs=3, seconds=0.0, between=lambda: None)
    assert sorted(op for op, _ in found if op != IDLE and not op.startswith("Reorder")) == nodes
    assert all(len(times) >= 1 for _, times in found) and len({len(times) for _, times in found}) == 1
    session = open_session(single(layer), 1)
    result = session.run(None, {each.name: random(each.shape) for each in session.get_inputs()})[-1]
    assert result.size == torch.Size(shape).numel()
    made: Any = call_of(layer, torch.device("cpu"))()  # the same in torch, as it is timed on a GPU
    assert tuple((made[0] if isinstance(made, tuple) else made).shape) == shape


@pytest.mark.parametrize(("disturbed", "counted"), [((), 4), ((2, 4), 4), (range(99), 3)])
def test_runs_that_others_disturbed_do_not_count(monkeypatch: pytest.MonkeyPatch, disturbed: Any, counted: int) -> None:
    runs: list[int] = []

    def alone(call: Callable[[], object]) -> bool:
        call()
        runs.append(len(runs))
        return runs[-1] not in disturbed

    monkeypatch.setattr("compress.latency.sessions._alone", alone)
    monkeypatch.setattr("compress.latency.sessions._BUSY", 0.0 if len(disturbed) > 9 else 99.0)
    found = kernels(single(CASES[2][0]), 1, runs=counted, seconds=0.0, between=lambda: None)
    assert {len(times) for _, times in found} == {counted}
    assert len(runs) == 2 + counted + (len(disturbed) if counted == 4 else 0)


def test_changes_of_the_layout_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    times = [("ReorderInput", [5.0]), (IDLE, [1.0]), ("Conv", [3.0]), ("Softmax", [0.5]), ("ReorderOutput", [7.0])]
    seen: dict[str, Any] = {}

    def fake(model: bytes, threads: int, **options: Any) -> Any:
        seen.update(options, threads=threads)
        return times

    monkeypatch.setattr("compress.latency.cpu.kernels", fake)
    assert OnnxRuntimeTimer(3).layer(CASES[0][0], 4000) == 2.0  # 3 - 1, and a node that is faster than nothing
    assert seen["threads"] == 3 and seen["between"]() == 1000.0  # reads 1,000 numbers


class Twice(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(torch.relu(x))


def test_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    timer, runs = OnnxRuntimeTimer(1), []

    def counted(run: Callable[[], object]) -> float:
        runs.append(run())
        return 1e-3 * len(runs)

    monkeypatch.setattr(timer, "_seconds", counted)
    found = timer.network(Twice(), (torch.zeros(2, 3),))
    assert (found.seconds, found.nodes) == (1e-3, 2)
    assert found.node == pytest.approx(1e-3 / 64) and found.start == pytest.approx(2e-3 - 1e-3 / 64)
    assert OnnxRuntimeTimer(1)._seconds(lambda: sum(range(2000))) > 0


def test_an_exported_network_lies_there_for_a_while() -> None:
    with exported(Twice(), (torch.full((2, 3), -1.0),)) as made:
        result: Any = made.runner(1)()
        assert result[0].tolist() == [[0.0] * 3] * 2
        assert made.file.exists() and list(made.feed) == ["input"]
    assert not made.file.exists()


def test_typical() -> None:
    assert typical([2.0, 2.0, 2.2, 9.0]) == pytest.approx(2.0666667)
    assert typical([5e-6, 6e-6, 40e-6, 40e-6]) == pytest.approx(5.5e-6)
