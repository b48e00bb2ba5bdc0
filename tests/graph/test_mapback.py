from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.graph import slice_graph, slice_module


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.conv2, self.norm = nn.Conv2d(width, width, 3, padding=1, groups=1), nn.GroupNorm(2, width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(x + y)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.block = Block(8)
        self.up = nn.ConvTranspose2d(8, 6, 2)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.up(self.block(self.stem(x))).mean((2, 3)))
        return y


class Attention(nn.Module):
    """Heads as an attribute: constants of the graph that the module holds under a name."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.size = 4, 6
        self.qkv, self.out = nn.Linear(5, 72), nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, self.size).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-2, -1)).softmax(-1)
        y: Tensor = self.out((weights @ v).transpose(1, 2).flatten(2))
        return y


def test_stock_layers_are_sliced_in_place_and_refreshed(lab: Any) -> None:
    module = lab.randomised(Residual().eval())
    x = torch.randn(2, 3, 6, 6)
    outcome = lab.prune(module, x, ratio=0.5)
    found = slice_module(module, outcome.coupling, outcome.alive, outcome.sliced)
    assert found.problem == ""
    small = found.module
    assert isinstance(small, Residual)
    assert small.stem.out_channels == small.block.conv1.in_channels == small.block.norm.num_channels
    assert small.stem.out_channels == small.stem.weight.shape[0] < 8
    assert small.up.in_channels == small.stem.out_channels
    assert small.up.out_channels == small.head.in_features == small.head.weight.shape[1] < 6
    assert found.changed["head.in_features"] == (6, small.head.in_features)
    assert module.stem.out_channels == 8
    assert torch.allclose(small(x), outcome.sliced(x), atol=1e-5)


def test_number_of_heads_is_found_as_an_attribute(lab: Any) -> None:
    module = lab.randomised(Attention().eval())
    x = torch.randn(2, 7, 5)
    coupling = lab.analyse(module, x)
    alive = coupling.alive({"qkv.blocks": [1]})
    found = slice_module(module, coupling, alive, slice_graph(coupling, alive))
    assert found.problem == ""
    assert found.changed["heads"] == (4, 3)
    assert found.module is not None
    assert found.module(torch.randn(5, 7, 5)).shape == (5, 7, 3)


def test_hard_coded_sizes_are_reported_with_the_construct(lab: Any) -> None:
    module = lab.network(lambda m, x: m.o(m.i(x).view(-1, 2, 4).amax(1)), i=nn.Linear(3, 8), o=nn.Linear(4, 2))
    outcome = lab.prune(module, torch.randn(2, 3))
    assert outcome.verification.passed
    found = slice_module(module, outcome.coupling, outcome.alive, outcome.sliced)
    assert found.module is None
    assert found.changed == {}
    assert found.problem.startswith("sizes computed inside the model's own forward do not follow the slice")


class OneHead(nn.Module):
    """Attention whose scale follows the size that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.qk = nn.Linear(6, 16)

    def forward(self, x: Tensor) -> Tensor:
        q, k = self.qk(x).chunk(2, -1)
        return nn.functional.scaled_dot_product_attention(q, k, x)


def test_the_construct_that_is_reported_is_not_one_that_was_refreshed(lab: Any) -> None:
    def forward(m: Any, x: Tensor) -> Any:
        return m.head(m.attention(m.depthwise(m.stem(x)).flatten(2).mT).mean(1))

    parts = {"stem": nn.Conv2d(3, 6, 1), "depthwise": nn.Conv2d(6, 6, 1, groups=6), "head": nn.Linear(6, 2)}
    module = lab.randomised(lab.network(forward, attention=OneHead(), **parts)).eval()
    coupling = lab.analyse(module, torch.randn(2, 3, 4, 4))
    alive = coupling.alive({group.name: np.array([1]) for group in coupling.groups})
    found = slice_module(module, coupling, alive, slice_graph(coupling, alive))
    assert found.problem.startswith("sizes computed inside attention do not follow the slice (outputs differ")


def test_tensors_written_out_in_the_code_are_reported(lab: Any) -> None:
    constant = [1.0, 2.0, 3.0, 4.0]
    module = lab.network(lambda m, x: m.o(m.i(x) * torch.tensor(constant)), i=nn.Linear(3, 4), o=nn.Linear(4, 2))
    outcome = lab.prune(module, torch.randn(2, 3))
    found = slice_module(module, outcome.coupling, outcome.alive, outcome.sliced)
    assert "is a constant inside the module's code" in found.problem


def test_tensors_made_without_a_dtype_do_not_prevent_it(lab: Any) -> None:
    def forward(m: Any, x: Any) -> Any:
        state = torch.zeros(x.shape[0], 3)
        state += x
        return m.o(torch.relu(m.i(state)))

    module = lab.network(forward, i=nn.Linear(3, 4), o=nn.Linear(4, 2))
    outcome = lab.prune(module, torch.randn(2, 3))
    assert outcome.verification.passed
    assert slice_module(module, outcome.coupling, outcome.alive, outcome.sliced).problem == ""


def test_written_out_numbers_do_not_prevent_it(lab: Any) -> None:
    module = lab.network(lambda m, x: m.o(m.i(x) * torch.tensor(0.1)), i=nn.Linear(3, 4), o=nn.Linear(4, 2))
    outcome = lab.prune(module, torch.randn(2, 3))
    assert slice_module(module, outcome.coupling, outcome.alive, outcome.sliced).problem == ""


def test_casts_to_float32_in_the_code_do_not_prevent_it(lab: Any) -> None:
    def forward(m: Any, x: Tensor) -> Any:
        h = m.a(x).float()
        h = h * torch.rsqrt(h.to(torch.float32).square().mean(-1, keepdim=True) + 1e-6)
        return m.b(torch.cumsum(h[:, None], 1, dtype=torch.float32)[:, 0].to(x.dtype))

    module = lab.network(forward, a=nn.Linear(3, 8), b=nn.Linear(8, 2))
    outcome = lab.prune(module, torch.randn(4, 3))
    result = slice_module(module, outcome.coupling, outcome.alive, outcome.sliced)
    assert result.problem == ""
    assert result.module is not None
    assert result.module.get_parameter("a.weight").shape[0] < 8
