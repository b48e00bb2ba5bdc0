"""Where the weights are in what a training script saved, and under which names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compress.checkpoint.statedict import averaged, find_state_dict, is_state_dict, parts, within, without_prefixes
from compress.errors import InputError

FILE = Path("model.pt")
STATE = {"fc.weight": torch.ones(2, 3), "fc.bias": torch.zeros(2)}
OTHER = {"fc.weight": torch.zeros(2, 3), "fc.bias": torch.ones(2)}
OPTIMIZER = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}

HIDDEN: dict[str, Any] = {
    "checkpoint/model/state_dict": {"checkpoint": {"model": {"state_dict": STATE}}},
    "a/b/c/d": {"a": {"b": {"c": {"d": STATE}}}},
    "0": [STATE, OPTIMIZER, 3],
    "models/0": {"models": (STATE,), "epoch": 1},
    "1/net": [{"x": 1}, {"net": STATE}],
    "ema/shadow": {"ema": {"decay": 0.9, "shadow": STATE}, "optimizer": OPTIMIZER},
    "generator": {"generator": STATE, "discriminator": {"fc.weight": torch.ones(1)}},
    "model": {"model_ema": OTHER, "model": STATE, "optimizer_by_name": {"fc.weight": torch.ones(2, 3)}},
    "ema": {"ema": STATE, "epoch": 3},
}


@pytest.mark.parametrize("at", HIDDEN)
def test_weights_are_found_in_containers(at: str) -> None:
    found = find_state_dict(HIDDEN[at], FILE)
    assert found.nested and found.notes[0] == f"state dict under key {at!r}"
    assert all(torch.equal(found.state[name], STATE[name]) for name in STATE)


def test_the_trained_weights_come_before_their_average_unless_the_user_says_otherwise() -> None:
    payload = {"state_dict_ema": OTHER, "state_dict": STATE}
    found = find_state_dict(payload, FILE)
    assert torch.equal(found.state["fc.bias"], STATE["fc.bias"])
    assert found.notes[1] == (
        "other weights in the file were left alone: state_dict_ema; --weights state_dict_ema takes them"
    )
    found = find_state_dict(payload, FILE, "state_dict_ema")
    assert torch.equal(found.state["fc.bias"], OTHER["fc.bias"])
    with pytest.raises(InputError, match="no weights under 'ema'") as caught:
        find_state_dict(payload, FILE, "ema")
    assert caught.value.hint == "there are: state_dict_ema, state_dict"


def test_several_of_no_known_meaning_are_named() -> None:
    with pytest.raises(InputError, match="'a', 'b/c'") as caught:
        find_state_dict({"a": STATE, "b": {"c": OTHER}}, FILE)
    assert caught.value.hint == "say which: --weights a"


def test_five_deep_is_too_deep() -> None:
    with pytest.raises(InputError, match="no state dict"):
        find_state_dict({"a": {"b": {"c": {"d": {"e": STATE}}}}}, FILE)


def test_what_an_optimizer_keeps_is_no_state_dict() -> None:
    assert not is_state_dict({"exp_avg": torch.ones(2), "exp_avg_sq": torch.ones(2), "step": torch.ones(())})
    assert is_state_dict({"step": torch.ones(2), "weight": torch.ones(2)})


def test_arrays_and_entries_of_other_kinds() -> None:
    arrays = {"fc.weight": np.ones((2, 3), np.float32), "fc.bias": np.zeros(2, np.float32), "version": 3}
    found = find_state_dict(arrays, FILE)
    assert list(found.state) == ["fc.weight", "fc.bias"] and found.state["fc.weight"].shape == (2, 3)
    assert found.notes == ("entries that are no weights were left out: version",)
    broken = {"fc.weight": torch.tensor([1.0, float("nan")])}
    assert find_state_dict(broken, FILE).notes == ("values that are not finite numbers in: fc.weight",)


def test_shared_first_parts_of_names_are_taken_off_one_by_one() -> None:
    state = {f"ema.module.{name}": value for name, value in STATE.items()}
    assert [removed for _, removed in without_prefixes(state)] == ["", "ema.", "ema.module.", "ema.module.fc."]
    assert [removed for _, removed in without_prefixes({})] == [""]


def test_parts_of_a_training_module_with_averages_last() -> None:
    state = {f"{who}.{name}": value for who in ("ema_model", "net") for name, value in STATE.items()}
    assert [start for _, start in parts({**state, "loss.weight": torch.ones(1)})] == ["net.", "ema_model."]
    part, prefix = within(state, STATE)
    assert (prefix, list(part)) == ("net.", list(STATE))


@pytest.mark.parametrize(("name", "is_one"), [("model_ema", True), ("schema", False), ("a/ema", True), ("net", False)])
def test_averaged(name: str, is_one: bool) -> None:
    assert averaged(name) is is_one
