"""Every form of checkpoint loads to the same model; every wrong input is one clear error."""

from __future__ import annotations

import argparse
import datetime
import pickle
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
def test_whole_modules_are_refused_unless_trusted(
    legacy: bool, foreign: type[nn.Module], tmp_path: Path
) -> None:
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


def empty(path: Path) -> None:
    path.write_bytes(b"")


def jpeg(path: Path) -> None:
    path.write_bytes(b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(100))


def web_page(path: Path) -> None:
    path.write_text("<!DOCTYPE html><html>not found</html>", encoding="utf-8")


def lfs_pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", encoding="utf-8")


def truncated_zip(path: Path) -> None:
    torch.save({"w": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:2000])


def truncated_legacy(path: Path) -> None:
    torch.save({"w": torch.zeros(1000)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:2000])


def broken_header(path: Path) -> None:
    path.write_bytes((20).to_bytes(8, "little") + b'{"weight": oh dear!}' + bytes(16))


def huge_header(path: Path) -> None:
    path.write_bytes((1 << 40).to_bytes(8, "little") + b"{}")


def plain_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps([1, 2]))


def torchscript(path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", b"")
        archive.writestr("model/constants.pkl", b"")


def torchscript_of_something(path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", b"cos\nsystem\n(S'true'\ntR.")
        archive.writestr("model/constants.pkl", b"")


def a_list(path: Path) -> None:
    torch.save([torch.zeros(2)], path)


def a_tensor(path: Path) -> None:
    torch.save(torch.zeros(2), path)


def nothing(path: Path) -> None:
    torch.save({}, path)


def an_optimizer(path: Path) -> None:
    torch.save(torch.optim.Adam([torch.zeros(2, requires_grad=True)]).state_dict(), path)


def an_optimizer_by_name(path: Path) -> None:
    moments = {"exp_avg": torch.zeros(2), "exp_avg_sq": torch.zeros(2), "step": torch.ones(())}
    torch.save({"optimizer_state_dict": {"state": {"fc.weight": moments}}, "epoch": 3}, path)


def an_index_of_nothing(path: Path) -> None:
    path.write_text("{}", encoding="utf-8")


def no_weights(path: Path) -> None:
    torch.save({"epoch": 3, "lr": 0.1}, path)


def several(path: Path) -> None:
    torch.save({"a": {"w": torch.zeros(1)}, "b": {"w": torch.zeros(1)}}, path)


def nothing_fits(path: Path) -> None:
    torch.save({"odd.weight": torch.zeros(7, 3)}, path)


WRONG: dict[Callable[[Path], None], str] = {
    empty: "is empty", jpeg: "JPEG image", web_page: "web page", lfs_pointer: "LFS pointer",
    truncated_zip: "truncated or damaged", truncated_legacy: "truncated or damaged",
    broken_header: "not a readable safetensors", huge_header: "header claims", plain_pickle: "plain pickle",
    torchscript: "truncated or damaged", torchscript_of_something: "names os.system", a_list: "holds a list",
    a_tensor: "holds a Tensor", nothing: "empty dict", an_optimizer: "state of an optimizer and no weights",
    an_optimizer_by_name: "state of an optimizer and no weights", no_weights: "'epoch', 'lr'",
    an_index_of_nothing: "begins with",
    several: "'a', 'b'", nothing_fits: r"odd.weight \(7, 3\)",
}  # fmt: skip


@pytest.mark.parametrize("make", WRONG, ids=lambda make: make.__name__)
def test_wrong_files(make: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    make(path)
    with pytest.raises(InputError, match=WRONG[make]) as caught:
        load_model(path)
    assert caught.value.hint
    assert caught.value.exit_code == 2


def test_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "digits.pt").write_bytes(b"x")
    with pytest.raises(InputError, match="no such file") as caught:
        load_model(tmp_path / "digit.pt")
    assert "digits.pt" in caught.value.hint


def test_a_directory_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no bundle"):
        load_model(tmp_path)


def test_a_directory_with_somebody_elses_safetensors(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="not a bundle"):
        load_model(tmp_path)


def test_permission_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"secret")

    def deny(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", deny)  # chmod would not stop a test that runs as root
    with pytest.raises(InputError, match="permission denied"):
        load_model(path)


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
