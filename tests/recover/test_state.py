from __future__ import annotations

from pathlib import Path

import pytest
import torch

from compress.errors import InputError
from compress.recover.state import StateFile, differences


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "run.training", {"seed": 0, "training": {"lr": 0.1}})
    assert not file.exists
    with pytest.raises(InputError, match="there is no interrupted training in"):
        file.load()
    file.save({"step": 3, "tensors": {"w": torch.arange(3.0)}})
    again = StateFile(tmp_path / "run.training", {"training": {"lr": 0.1}, "seed": 0}).load()
    assert again["step"] == 3 and torch.equal(again["tensors"]["w"], torch.arange(3.0))
    assert [p.name for p in (tmp_path / "run.training").iterdir()] == ["state.pt"]
    file.remove()
    assert not (tmp_path / "run.training").exists()


def test_the_state_of_another_run_is_refused(tmp_path: Path) -> None:
    StateFile(tmp_path, {"seed": 0, "training": {"lr": 0.1}}).save({"step": 3})
    with pytest.raises(InputError, match=r"is of another run: training\.lr \(0\.1, now 0\.2\)"):
        StateFile(tmp_path, {"seed": 0, "training": {"lr": 0.2}}).load()


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    file = StateFile(tmp_path, {})
    file.save({"tensors": {"w": torch.zeros(1000)}})
    whole = file.path.read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"no archive"):
        file.path.write_bytes(content)
        with pytest.raises(InputError, match="is damaged"):
            file.load()


def test_a_save_that_fails_leaves_the_one_before(tmp_path: Path) -> None:
    file = StateFile(tmp_path, {})
    file.save({"step": 1})
    with pytest.raises(TypeError):
        file.save({"step": 2, "bad": (n for n in range(1))})  # no pickle takes a generator
    assert file.load()["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]


def test_others_files_stay(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "mine", {})
    file.save({})
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    file.remove()
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_differences() -> None:
    assert differences({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}, "d": 4}) == [
        "b.c (2, now 3)",
        "d (None, now 4)",
    ]
