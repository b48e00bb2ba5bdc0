from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compress.graph import analyse, trace
from compress.plan import Plan, plan_json


@pytest.fixture(scope="module")
def coupling() -> Any:
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    return analyse(trace(module, (torch.randn(2, 3),)))


def test_json_names_every_sliced_tensor_and_dim(coupling: Any) -> None:
    mask = torch.tensor([[True, False, True, True], [True, True, True, False]])
    plan = Plan({"0": np.array([1, 3])}, masks={"2.weight": mask})
    made = json.loads(json.dumps(plan_json(plan, coupling)))
    assert made == {
        "schema": "compress.plan/1",
        "kept": {"0.weight": {"0": [0, 2]}, "0.bias": {"0": [0, 2]}, "2.weight": {"1": [0, 2]}},
        "removed_units": {"0": [1, 3]},
        "masks": {"2.weight": {"shape": [2, 4], "zero": [1, 7]}},
    }


def test_same_plan_same_bytes(coupling: Any) -> None:
    one = Plan({"0": np.array([1]), "x": np.array([], dtype=np.int64)}).without({"x"})
    assert plan_json(one, coupling) == plan_json(Plan({"0": np.array([1])}), coupling)


def test_without_leaves_groups_whole() -> None:
    plan = Plan({"a": np.array([1]), "b": np.array([2])}, notes={"a": {"rule": "min"}})
    assert set(plan.without({"a"}).removed) == {"b"}
    assert plan.without({"a"}).notes == plan.notes


def test_empty() -> None:
    assert Plan().empty
    assert Plan({"a": np.array([], dtype=np.int64)}, {"w": torch.ones(2, dtype=torch.bool)}).empty
    assert not Plan({"a": np.array([0])}).empty
    assert not Plan(masks={"w": torch.tensor([True, False])}).empty
