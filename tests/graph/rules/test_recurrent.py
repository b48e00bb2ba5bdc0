"""Hidden units of recurrent layers: found, balanced, sliced exactly."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compress.graph import analyse, macs, slice_module, trace


class Net(nn.Module):
    """Linear, a recurrent layer, linear; what of the recurrent layer's results is read is said by ``read``."""

    def __init__(self, kind: str, read: str = "last", **options: Any) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 6)
        self.r = getattr(nn, kind)(6, 8, batch_first=True, **options)
        width = self.r.proj_size or 8
        dirs = 2 if self.r.bidirectional else 1
        self.head = nn.Linear({"last": dirs, "final": 1, "finals": dirs * self.r.num_layers}[read] * width, 3)
        self.read = read

    def forward(self, x: Tensor) -> Tensor:
        out, state = self.r(self.embed(x))
        state = state[0] if isinstance(state, tuple) else state
        if self.read == "last":
            out = out[:, -1]
        else:
            out = state[-1] if self.read == "final" else state.transpose(0, 1).flatten(1)
        answer: Tensor = self.head(out)
        return answer


CASES: list[tuple[str, str, dict[str, Any], int]] = [
    ("LSTM", "last", {}, 1),
    ("LSTM", "last", {"num_layers": 2}, 2),
    ("LSTM", "last", {"bidirectional": True}, 2),
    ("LSTM", "last", {"num_layers": 2, "bidirectional": True, "dropout": 0.2}, 4),
    ("LSTM", "last", {"bias": False}, 1),
    ("LSTM", "final", {"num_layers": 2}, 2),
    ("LSTM", "finals", {"num_layers": 2, "bidirectional": True}, 4),
    ("GRU", "last", {"num_layers": 2, "bidirectional": True}, 4),
    ("GRU", "final", {}, 1),
    ("RNN", "last", {"num_layers": 2}, 2),
    ("RNN", "finals", {"nonlinearity": "relu", "bidirectional": True}, 2),
]


@pytest.mark.parametrize(("kind", "read", "options", "rows"), CASES)
def test_every_layer_and_direction(lab: Any, kind: str, read: str, options: dict[str, Any], rows: int) -> None:
    module = lab.randomised(Net(kind, read, **options).eval())
    coupling = lab.check(module, torch.randn(2, 7, 5), groups={"embed": 6, "r.weight_ih_l0": 8})
    sizes = lab.sizes(coupling)
    assert len(sizes) == rows + 1
    assert sorted(sizes.values()) == [6] + [8] * rows
    outcome = lab.cut(module, coupling, 0.5)
    kept = [i for n, i in ((n, d[0]) for n, d in coupling.kept(outcome.alive).items() if n.startswith("r.weight_ih"))]
    assert {len(i) for i in kept} == {outcome.sliced.r.weight_hh_l0.shape[0]}
    assert len({tuple(i.tolist()) for i in kept}) == rows  # as many in each, but not the same ones


@pytest.mark.parametrize(("kind", "read", "options", "rows"), CASES)
def test_in_place(lab: Any, kind: str, read: str, options: dict[str, Any], rows: int) -> None:
    module = lab.randomised(Net(kind, read, **options).eval())
    x = torch.randn(2, 7, 5)
    outcome = lab.cut(module, lab.analyse(module, x), 0.5)
    found: Any = slice_module(module, outcome.coupling, outcome.alive, outcome.sliced)
    assert found.module is not None, found.problem
    assert (found.module.r.input_size, found.module.r.hidden_size) == (3, 4)
    assert module.r.hidden_size == 8
    assert torch.allclose(found.module(x), outcome.sliced(x), atol=1e-6)
    again: Any = Net(kind, read, **options).eval()  # as its class builds it, with the smaller sizes
    again.embed, again.head = found.module.embed, found.module.head
    again.r = getattr(nn, kind)(3, 4, batch_first=True, **options).eval()
    again.load_state_dict(found.module.state_dict())
    assert torch.allclose(again(x), found.module(x), atol=1e-6)


def test_sizes_of_a_layer_do_not_follow_those_of_another_dim(lab: Any) -> None:
    """The input has as many features as there are hidden units, and keeps them."""
    module = lab.network(
        lambda self, x: self.head(self.r(x)[0]), r=nn.LSTM(8, 8, batch_first=True), head=nn.Linear(8, 3)
    )
    outcome = lab.cut(module, lab.analyse(module, torch.randn(2, 4, 8)), 0.5)
    found: Any = slice_module(module, outcome.coupling, outcome.alive, outcome.sliced)
    assert found.module is not None, found.problem
    assert (found.module.r.input_size, found.module.r.hidden_size) == (8, 4)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_projections(lab: Any) -> None:
    module = lab.randomised(Net("LSTM", num_layers=2, bidirectional=True, proj_size=5).eval())
    coupling = lab.check(module, torch.randn(2, 7, 5), groups={"r.weight_ih_l0": 8, "r.weight_hr_l0": 5})
    outcome = lab.cut(module, coupling, 0.4)
    found: Any = slice_module(module, coupling, outcome.alive, outcome.sliced)
    assert found.module is not None, found.problem
    assert (found.module.r.hidden_size, found.module.r.proj_size) == (5, 3)


def test_time_first(lab: Any) -> None:
    parts = {"a": nn.Linear(5, 6), "r": nn.LSTM(6, 8, bidirectional=True), "b": nn.Linear(16, 3)}
    module = lab.network(lambda self, x: self.b(self.r(self.a(x))[0]), **parts)
    lab.check(module, torch.randn(2, 7, 5), groups={"a": 6, "r.weight_ih_l0": 8, "r.weight_ih_l0_reverse": 8})


def test_after_an_embedding(lab: Any) -> None:
    parts = {"e": nn.Embedding(11, 6), "r": nn.GRU(6, 8, batch_first=True), "b": nn.Linear(8, 3)}
    module = lab.network(lambda self, x: self.b(self.r(self.e(x))[0]), **parts)
    lab.check(module, torch.randint(0, 11, (2, 7)), groups={"e": 6, "r.weight_ih_l0": 8})


def test_after_a_convolution(lab: Any) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        y = torch.relu(self.c(x)).flatten(1, 2).transpose(1, 2)  # channels and rows are the features
        out: Tensor = self.b(self.r(y)[0].mean(1))
        return out

    parts = {"c": nn.Conv2d(1, 4, 3), "r": nn.LSTM(24, 8, batch_first=True), "b": nn.Linear(8, 3)}
    coupling = lab.check(lab.network(forward, **parts), torch.randn(2, 1, 8, 9), groups={"c": 4, "r.weight_ih_l0": 8})
    member = next(m for m in coupling.group("c").members if m.tensor == "r.weight_ih_l0")
    assert member.index.shape == (4, 6)


def test_residual_around_it(lab: Any) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        y = self.a(x)
        out: Tensor = self.b(y + self.r(y)[0])
        return out

    parts = {"a": nn.Linear(5, 8), "r": nn.LSTM(8, 8, batch_first=True), "b": nn.Linear(8, 3)}
    coupling = lab.check(lab.network(forward, **parts), torch.randn(2, 7, 5), groups={"a": 8})
    assert len(coupling.groups) == 1  # hidden unit and input feature of one index are one unit


def test_an_initial_state_of_the_network_ties_its_layers(lab: Any) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        start = self.h.expand(-1, x.shape[0], -1).contiguous()
        out: Tensor = self.b(self.r(x, start)[0])
        return out

    parts = {"r": nn.GRU(5, 8, 2, batch_first=True), "b": nn.Linear(8, 3), "h": nn.Parameter(torch.randn(2, 1, 8))}
    module = lab.network(forward, **parts)
    coupling = lab.check(module, torch.randn(2, 7, 5), groups={"r.weight_ih_l0": 8})
    assert {m.tensor for m in coupling.groups[0].members} >= {"h", "r.weight_ih_l0", "r.weight_ih_l1"}


def test_a_decoder_takes_its_state_from_an_encoder(lab: Any) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        _, state = self.encoder(x)
        out: Tensor = self.b(self.decoder(x, state)[0])
        return out

    lstm = {n: nn.LSTM(5, 8, 2, batch_first=True) for n in ("encoder", "decoder")}
    module = lab.network(forward, **lstm, b=nn.Linear(8, 3))
    coupling = lab.check(module, torch.randn(2, 7, 5), groups={"encoder.weight_ih_l0": 8, "encoder.weight_ih_l1": 8})
    assert len(coupling.groups) == 2  # layer by layer


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_state_that_is_written_to_is_no_state_of_zeros(lab: Any, value: float) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        start = torch.zeros(2, x.shape[0], 8, dtype=x.dtype)
        start.add_(value)
        out: Tensor = self.b(self.r(x, start)[0])
        return out

    module = lab.network(forward, r=nn.GRU(5, 8, 2, batch_first=True), b=nn.Linear(8, 3))
    coupling = lab.check(module, torch.randn(2, 7, 5), groups={"r.weight_ih_l0": 8})
    assert len(coupling.groups) == 1  # the layers lose the same positions


def test_a_state_that_is_given_keeps_the_size(lab: Any) -> None:
    module = lab.network(lambda self, x, h: self.b(self.r(x, h)[0]), r=nn.GRU(5, 8), b=nn.Linear(8, 3))
    coupling = lab.analyse(module, torch.randn(4, 2, 5), torch.randn(1, 2, 8))
    assert not coupling.groups
    assert any(f.tensor == "r.weight_hh_l0" and "network's input" in f.reason for f in coupling.frozen)


@pytest.mark.parametrize("kind", ["LSTMCell", "GRUCell", "RNNCell"])
@pytest.mark.parametrize("bias", [True, False])
def test_cells(lab: Any, kind: str, bias: bool) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        state = None
        for step in range(x.shape[1]):
            state = self.r(self.a(x[:, step]), state)
        out: Tensor = self.b(state[0] if isinstance(state, tuple) else state)
        return out

    parts = {"a": nn.Linear(5, 6), "r": getattr(nn, kind)(6, 8, bias=bias), "b": nn.Linear(8, 3)}
    module, x = lab.network(forward, **parts), torch.randn(2, 4, 5)
    coupling = lab.check(module, x, groups={"a": 6, "r.weight_ih": 8})
    outcome = lab.cut(module, coupling, 0.5)
    found: Any = slice_module(module, coupling, outcome.alive, outcome.sliced)
    assert found.module is not None, found.problem
    assert (found.module.r.input_size, found.module.r.hidden_size) == (3, 4)
    gates = {"LSTMCell": 4, "GRUCell": 3, "RNNCell": 1}[kind]
    assert macs(coupling) == 4 * (5 * 6 + gates * 8 * (6 + 8)) + 8 * 3


def test_packed_sequences(lab: Any) -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.r, self.b = nn.Linear(5, 6), nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 3)

        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            packed = nn.utils.rnn.pack_padded_sequence(self.a(x), lengths, batch_first=True)
            out, _ = nn.utils.rnn.pad_packed_sequence(self.r(packed)[0], batch_first=True)
            answer: Tensor = self.b(out)
            return answer

    module = lab.randomised(Packed().eval())
    inputs = (torch.randn(2, 7, 5), torch.tensor([7, 4]))
    coupling = analyse(trace(module, inputs, follow_data=True))
    assert lab.sizes(coupling) == {"a": 6, "r.weight_ih_l0": 8}
    outcome = lab.cut(module, coupling, 0.5)
    assert outcome.verification.passed, outcome.verification
    found: Any = slice_module(module, coupling, outcome.alive, outcome.sliced)
    assert found.module is not None, found.problem
    assert found.module.r.hidden_size == 4


def test_one_unit_cannot_go(lab: Any) -> None:
    module = lab.network(lambda self, x: self.b(self.r(x)[0]), r=nn.LSTM(5, 1, batch_first=True), b=nn.Linear(1, 3))
    assert not lab.analyse(module, torch.randn(2, 7, 5)).groups


def test_multiply_accumulates(lab: Any) -> None:
    module = lab.randomised(Net("LSTM", num_layers=2, bidirectional=True).eval())
    coupling = lab.analyse(module, torch.randn(2, 7, 5))
    layers = 2 * (4 * 8 * (6 + 8)) + 2 * (4 * 8 * (16 + 8))
    assert macs(coupling) == 7 * (5 * 6 + layers) + 16 * 3
    outcome = lab.cut(module, coupling, 0.5)
    layers = 2 * (4 * 4 * (3 + 4)) + 2 * (4 * 4 * (8 + 4))
    assert macs(coupling, outcome.alive) == 7 * (5 * 3 + layers) + 8 * 3


def test_the_module_is_left_as_it_was(lab: Any) -> None:
    module = lab.randomised(Net("LSTM").eval())
    before = copy.deepcopy(module.state_dict())
    outcome = lab.cut(module, lab.analyse(module, torch.randn(2, 7, 5)), 0.5)
    slice_module(module, outcome.coupling, outcome.alive, outcome.sliced)
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert [id(w) for w in module.r._flat_weights] == [id(p) for p in module.r.parameters()]
