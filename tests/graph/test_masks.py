from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from compress.graph import analyse, slice_verified, trace
from compress.graph.fresh import fresh_tensors
from compress.graph.masks import unit_masks


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.head = nn.Linear(8, 3)
        self.scale = nn.Parameter(torch.rand(3))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.grouped(torch.relu(self.norm(self.first(x)))))
        out: Tensor = self.head(x.mean((2, 3))) * self.scale
        return out


def test_masks_by_hand() -> None:
    coupling = analyse(trace(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)), (torch.randn(2, 2),)))
    masks = {name: mask.tolist() for name, mask in unit_masks(coupling, {"0": [1]}).items()}
    assert masks == {
        "0.weight": [[True, True], [False, False], [True, True]],
        "0.bias": [True, False, True],
        "2.weight": [[True, False, True]],
    }
    assert unit_masks(coupling, {}) == {}


def test_a_masked_network_computes_what_its_slice_computes() -> None:
    """Batch norm and the blocks of a grouped convolution included."""
    torch.manual_seed(0)
    module = Net().eval()
    module.norm.running_mean = torch.randn(8)
    x = torch.randn(4, 2, 5, 5)
    coupling = analyse(trace(module, (x,)))
    removed = {"first": torch.tensor([0, 5]).numpy(), "grouped": torch.tensor([1, 6]).numpy()}
    sliced = slice_verified(coupling, removed)
    assert not sliced.rolled_back
    with torch.no_grad():
        for name, mask in unit_masks(coupling, removed).items():
            module.get_parameter(name).mul_(mask)
        torch.testing.assert_close(sliced.module(x), module(x))


def test_weights_drawn_anew() -> None:
    torch.manual_seed(0)
    module = Net().eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    coupling = analyse(trace(module, (torch.randn(2, 2, 5, 5),)))
    found, left = fresh_tensors(coupling, torch.Generator().manual_seed(1))
    again, _ = fresh_tensors(coupling, torch.Generator().manual_seed(1))
    assert left == ["scale"]
    assert found.keys() == {n for n in before if n not in ("scale", "norm.num_batches_tracked")}
    assert all(torch.equal(found[name], again[name]) for name in found)
    assert all(torch.equal(module.state_dict()[name], tensor) for name, tensor in before.items())
    for name, inputs in (("first", 18), ("grouped", 36), ("head", 8)):
        weight, bias = found[f"{name}.weight"], found[f"{name}.bias"]
        assert max(float(t.abs().max()) for t in (weight, bias)) <= inputs**-0.5
        assert float(weight.std()) == pytest.approx((inputs * 3) ** -0.5, rel=0.25)
    assert found["norm.weight"].eq(1).all() and found["norm.running_var"].eq(1).all()
    assert not found["norm.bias"].any() and not found["norm.running_mean"].any()
