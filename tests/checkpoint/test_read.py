"""Every form of checkpoint loads to the same model; every wrong input is one clear error."""

from __future__ import annotations

import argparse
import datetime
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import fx, nn
from torch.nn.utils import prune

from compress.checkpoint import LoadedModel, load_model
from compress.checkpoint.torchfile import would_import
from compress.checkpoint.write import write_bundle
from compress.errors import CompressError, InputError

ARCH = "mlp:4-3-2"


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "1.weight": torch.randn(3, 4), "1.bias": torch.randn(3),
        "3.weight": torch.randn(2, 3), "3.bias": torch.randn(2),
    }  # fmt: skip


def expected(state: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    hidden = torch.relu(x @ state["1.weight"].T + state["1.bias"])
    return hidden @ state["3.weight"].T + state["3.bias"]


def check(model: LoadedModel, state: dict[str, torch.Tensor]) -> None:
    x = torch.randn(5, 2, 2)
    assert not model.module.training
    torch.testing.assert_close(model.module(x), expected(state, x.flatten(1)))


def wrapped(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + key: value for key, value in state.items()}


Wrap = Callable[[dict[str, torch.Tensor]], Any]

FORMS: dict[str, tuple[Wrap, str]] = {
    "plain": (lambda s: s, "state dict"),
    "data parallel": (lambda s: wrapped(s, "module."), "state dict"),
    "compiled lightning": (lambda s: wrapped(s, "model._orig_mod."), "state dict"),
    "averaged": (lambda s: {"n_averaged": torch.tensor(3), **wrapped(s, "module.")}, "state dict"),
    "profiled": (
        lambda s: {**s, "total_ops": torch.zeros(1), "1.total_params": torch.zeros(1)},
        "state dict",
    ),
    "training": (lambda s: {"epoch": 3, "state_dict": s}, "training checkpoint"),
    "with optimizer": (
        lambda s: {"optimizer": {"state": {0: {"step": torch.ones(1)}}}, "model_state": s},
        "training checkpoint",
    ),
    "two levels": (lambda s: {"model": {"state_dict": wrapped(s, "module."), "x": 1}}, "training checkpoint"),
    "other key": (lambda s: {"epoch": 1, "generator": s}, "training checkpoint"),
    "plain and averaged": (
        lambda s: {"ema": {k: v + 1 for k, v in s.items()}, "model": s},
        "training checkpoint",
    ),
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", FORMS)
def test_torch_files(name: str, legacy: bool, state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    wrap, form = FORMS[name]
    path = tmp_path / "model.th"
    torch.save(wrap(state), path, _use_new_zipfile_serialization=not legacy)
    model = load_model(path, arch=ARCH)
    check(model, state)
    assert (model.form, model.architecture, model.input_shapes) == (form, ARCH, ((4,),))
    assert model.bytes == path.stat().st_size


def test_safetensors_with_everything_in_its_metadata(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "weights"  # the name says nothing
    told = {"arch": ARCH, "input_shape": "[1, 2, 2]", "mean": "[0.5]", "std": "[0.25]"}
    save_file(state, path, metadata=told)
    model = load_model(path)
    check(model, state)
    assert (model.form, model.input_shapes) == ("safetensors", ((1, 2, 2),))
    assert (model.mean, model.std) == ((0.5,), (0.25,))


def test_what_the_user_says_wins(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"state_dict": state, "arch": "mlp:9-9", "input_shape": [4]}, path)
    model = load_model(path, arch=ARCH, input_shape=(1, 2, 2))
    assert (model.architecture, model.input_shapes) == (ARCH, ((1, 2, 2),))
    assert load_model(path, arch=ARCH, input_shape=[(2, 2), (3,)]).input_shapes == ((2, 2), (3,))
    with pytest.raises(InputError, match="not understood"):
        load_model(path, arch=ARCH, input_shape=(0, 2))


def test_the_hash_is_of_the_file(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    import hashlib

    path = tmp_path / "model.pt"
    torch.save(state, path)
    assert load_model(path, arch=ARCH).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_half_precision_becomes_the_models_own(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({key: value.half() for key, value in state.items()}, path)
    module = load_model(path, arch=ARCH).module
    assert {each.dtype for each in module.parameters()} == {torch.float32}


@pytest.mark.parametrize("as_file", [False, True], ids=["directory", "file"])
def test_bundle(as_file: bool, tmp_path: Path) -> None:
    graph = fx.Graph()
    x, weight = graph.placeholder("x"), graph.get_attr("weight")
    graph.output(graph.call_function(torch.ops.aten.linear.default, (x, weight)))
    program = fx.GraphModule(nn.Linear(4, 2, bias=False), graph)
    x.meta["val"] = torch.zeros(2, 4)
    write_bundle(
        tmp_path / "out", program_module=program, inputs=[{"shape": [4], "dtype": "float32"}], plan_json=None,
        report={}, recipe_toml="", report_md="", provenance={}, metadata={"mean": [0.5], "std": [0.25]},
    )  # fmt: skip
    weights = tmp_path / "out" / "model.safetensors"
    model = load_model(weights if as_file else tmp_path / "out")
    assert (model.form, model.architecture, model.input_shapes) == ("bundle", "graph", ((4,),))
    assert (model.mean, model.std, model.bytes) == ((0.5,), (0.25,), weights.stat().st_size)
    torch.testing.assert_close(model.module.get_parameter("weight"), program.get_parameter("weight"))


class Foreign(nn.Module):
    """A module of this file's own, for whole-module pickles."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x)


class Bomb:
    """Unpickling it touches a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (Path.touch, (self.target,))


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> type[nn.Module]:
    """`Foreign` in a module that pickle can import."""
    home = types.ModuleType("somebodys_models")
    home.Foreign = Foreign  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "somebodys_models", home)
    monkeypatch.setattr(Foreign, "__module__", "somebodys_models")
    return Foreign


@pytest.mark.filterwarnings("ignore")  # torch warns about pickled modules when it writes the legacy format
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_whole_modules_are_refused_unless_trusted(legacy: bool, foreign: type[nn.Module], tmp_path: Path) -> None:
    path = tmp_path / "whole.pt"
    original = foreign()
    torch.save({"model": original}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(InputError, match=r"somebodys_models\.Foreign") as caught:
        load_model(path)
    assert "--trust-pickle" in caught.value.hint and "state_dict()" in caught.value.hint
    model = load_model(path, trust_pickle=True)
    assert (model.form, model.architecture) == ("module", "somebodys_models:Foreign")
    torch.testing.assert_close(model.module.get_parameter("fc.weight"), original.get_parameter("fc.weight"))


@pytest.mark.filterwarnings("ignore")  # as above
def test_what_trust_would_import_is_listed(foreign: type[nn.Module], tmp_path: Path) -> None:
    for number, legacy in enumerate([False, True]):
        path = tmp_path / f"whole{number}.pt"
        torch.save({"model": foreign(), "rate": np.float64(0.5)}, path, _use_new_zipfile_serialization=not legacy)
        names = would_import(path)
        assert {"somebodys_models.Foreign", "torch.nn.modules.linear.Linear"} <= set(names)
        assert not [name for name in names if name.startswith("numpy")]
    save_file({"w": torch.zeros(2)}, tmp_path / "model.safetensors")
    assert would_import(tmp_path / "model.safetensors") == []


def test_what_training_scripts_keep_beside_the_weights_needs_no_trust(
    state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    beside = {
        "args": argparse.Namespace(lr=0.1), "best": np.float64(0.9), "curve": np.arange(3.0), "out": Path("runs"),
        "when": datetime.date(2020, 1, 2),
    }  # fmt: skip
    path = tmp_path / "model.pt"
    for legacy in (False, True):
        torch.save({"model": state, **beside}, path, _use_new_zipfile_serialization=not legacy)
        check(load_model(path, arch=ARCH), state)


def test_one_of_several_sets_of_weights(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"ema": state, "model": {k: v + 1 for k, v in state.items()}}, path)
    check(load_model(path, arch=ARCH, weights="ema"), state)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="--weights is for training checkpoints"):
        load_model(tmp_path / "model.safetensors", arch=ARCH, weights="ema")


def test_nothing_in_a_pickle_runs(tmp_path: Path) -> None:
    sign = tmp_path / "ran"
    for number, legacy in enumerate([False, True]):
        path = tmp_path / f"bomb{number}.pt"
        torch.save({"a": Bomb(sign)}, path, _use_new_zipfile_serialization=not legacy)
        with pytest.raises(InputError, match="import and run"):
            load_model(path, arch=ARCH)
    assert not sign.exists()


def test_truncation_anywhere_is_one_clear_error(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    for legacy in (False, True):
        torch.save(state, whole, _use_new_zipfile_serialization=not legacy)
        content = whole.read_bytes()
        for cut in range(0, len(content) - 1, max(1, len(content) // 23)):
            path = tmp_path / "cut.pt"
            path.write_bytes(content[:cut])
            with pytest.raises(CompressError):
                load_model(path, arch=ARCH)


def test_masks_of_torch_are_multiplied_into_the_weights(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    net.load_state_dict(state)
    prune.random_unstructured(net[1], "weight", 0.5)
    prune.l1_unstructured(net[3], "bias", 1)
    torch.save({"model": wrapped(net.state_dict(), "module.")}, tmp_path / "masked.pt")
    model = load_model(tmp_path / "masked.pt", arch=ARCH)
    check(model, {key: getattr(net.get_submodule(key[0]), key[2:]).detach() for key in state})
    assert int((model.module.get_parameter("1.weight") == 0).sum()) == 6
    assert any("torch.nn.utils.prune" in note and "1.weight" in note for note in model.notes)


def test_an_architecture_that_has_the_masks_itself_keeps_them(tmp_path: Path) -> None:
    code = """
from torch import nn
from torch.nn.utils import prune


def build():
    return prune.identity(nn.Linear(4, 3), "weight")
"""
    (tmp_path / "net.py").write_text(code)
    torch.save(prune.random_unstructured(nn.Linear(4, 3), "weight", 0.5).state_dict(), tmp_path / "masked.pt")
    model = load_model(tmp_path / "masked.pt", arch=f"{tmp_path}/net.py:build", input_shape=((4,),))
    assert model.module.get_buffer("weight_mask").sum() == 6 and not model.notes
