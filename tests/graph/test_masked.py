from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compress.errors import ModelError
from compress.graph import Coupling, analyse, slice_module, trace
from compress.graph.masked import run_masked_module


class Picks(nn.Module):
    """Only the rows with a positive score go on, so the sizes inside depend on the numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.norm = nn.GroupNorm(2, 8)
        self.score = nn.Linear(8, 1)
        self.body = nn.Sequential(nn.Linear(8, 12), nn.LayerNorm(12), nn.ReLU())
        self.head = nn.Linear(12, 5)

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        found = []
        for image in images:
            rows = torch.relu(self.norm(self.stem(image[None]))).flatten(2)[0].T
            kept = rows[self.score(rows)[:, 0] > -0.2]
            if len(kept) > 30:
                kept = kept[:30]
            found.append({"scores": self.head(self.body(kept))})
        return found


def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(3, 4, 5, generator=generator), torch.randn(3, 6, 6, generator=generator)]


@pytest.fixture
def picks(lab: Any) -> Coupling:
    module = lab.randomised(Picks().eval(), seed=3)
    return analyse(trace(module, (images(),), follow_data=True))


def test_a_path_that_depends_on_data_is_recorded_when_asked(lab: Any, picks: Coupling) -> None:
    assert not picks.program.replayable
    assert not picks.program.dynamic_batch
    assert {g.name for g in picks.groups} >= {"stem", "body.0"}
    with pytest.raises(ModelError, match=r"cannot be traced at .*test_masked.py:\d+ \(`kept = rows\["):
        trace(lab.randomised(Picks().eval()), (images(),))


def test_it_is_sliced_in_place_and_equals_its_masked_original(lab: Any, picks: Coupling) -> None:
    module = lab.randomised(Picks().eval(), seed=3)
    found = slice_module(module, picks, lab.removal(picks, 0.5))
    assert found.problem == ""
    assert found.module is not None
    assert found.changed["stem.out_channels"] == (8, 2)  # one of two norm groups, and half of the other
    assert found.changed["norm.num_groups"] == (2, 1)
    sizes = [len(each["scores"]) for each in found.module(images())]
    assert all(sizes), "nothing was picked, so nothing was compared"
    assert module.stem.weight.shape == (8, 3, 1, 1)


def test_statistics_are_taken_over_what_is_kept(lab: Any) -> None:
    module = lab.network(lambda m, x: m.o(m.norm(m.i(x))), i=nn.Linear(4, 6), norm=nn.LayerNorm(6), o=nn.Linear(6, 2))
    x = torch.randn(3, 4)
    coupling = analyse(trace(module, (x,)))
    alive = coupling.alive({coupling.groups[0].name: [1, 4]})
    kept = np.setdiff1d(np.arange(6), [1, 4])
    y = module.i(x).double()[:, kept]
    y = (y - y.mean(1, keepdim=True)) / (y.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    y = y * module.norm.weight[kept] + module.norm.bias[kept]
    expected = y @ module.o.weight[:, kept].double().T + module.o.bias
    got = run_masked_module(module, coupling, alive)[0]
    assert got.dtype == torch.float64
    assert torch.allclose(got, expected, rtol=1e-6)


def test_parameters_off_the_path_are_an_error(lab: Any) -> None:
    module = lab.network(lambda m, x: m.a(x) if x.sum() > 0 else m.b(x), a=nn.Linear(3, 3), b=nn.Linear(3, 3))
    with pytest.raises(ModelError, match=r"does not reach b\.weight and 1 other"):
        trace(module, (torch.ones(2, 3),), follow_data=True)


@pytest.mark.parametrize("name", ["fasterrcnn_mobilenet_v3_large_320_fpn", "ssdlite320_mobilenet_v3_large"])
def test_a_detector_returns_the_boxes_of_its_masked_original(lab: Any, name: str) -> None:
    from torchvision.models import get_model

    small = {"min_size": 96, "max_size": 128, "box_score_thresh": 0.0} if "rcnn" in name else {"score_thresh": 0.0}
    module = get_model(name, weights=None, weights_backbone=None, **small).eval()
    lab.randomised(module)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() > 1:
                parameter.mul_(1.6 / parameter[0].numel() ** 0.5)
    pair = [torch.rand(3, 96, 128), torch.rand(3, 110, 90)]
    coupling = analyse(trace(module, (pair,), follow_data=True))
    assert coupling.flow.unruled == {}
    found = slice_module(module, coupling, lab.removal(coupling, 0.5))
    assert found.problem == ""
    assert found.module is not None
    boxes = [each["boxes"] for each in found.module(pair)]
    assert all(len(each) > 0 and torch.isfinite(each).all() for each in boxes)
