"""Weights in several files, folders of them, and what a config.json beside them says."""

from __future__ import annotations

import hashlib
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from compress.checkpoint import load_model
from compress.checkpoint.hugging import preprocessing, usual_inputs
from compress.errors import InputError
from compress.inputs import InputType

ARCH = "mlp:4-3-2"


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {"1.weight": torch.randn(3, 4), "1.bias": torch.randn(3), "3.weight": torch.randn(2, 3),
            "3.bias": torch.randn(2)}  # fmt: skip


def split(folder: Path, state: dict[str, torch.Tensor], kind: str) -> Path:
    """Two files and their index, as transformers names them."""
    folder.mkdir(exist_ok=True)
    stem, suffix = ("model", "safetensors") if kind == "safetensors" else ("pytorch_model", "bin")
    names, places = list(state), dict[str, str]()
    for number, part in enumerate((names[:1], names[1:]), 1):
        file = f"{stem}-0000{number}-of-00002.{suffix}"
        content = {name: state[name] for name in part}
        save_file(content, folder / file) if kind == "safetensors" else torch.save(content, folder / file)
        places |= dict.fromkeys(part, file)
    index = folder / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}), encoding="utf-8")
    return index


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@pytest.mark.parametrize("named", ["folder", "index"])
def test_shards(kind: str, named: str, state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    index = split(tmp_path / "model", state, kind)
    model = load_model(index if named == "index" else index.parent, arch=ARCH)
    files = sorted(each for each in index.parent.iterdir() if each != index)
    assert (model.form, model.notes[0]) == ("sharded", "weights of 2 files")
    assert model.bytes == sum(each.stat().st_size for each in files)
    assert model.sha256 == hashlib.sha256(b"".join(each.read_bytes() for each in files)).hexdigest()
    assert all(torch.equal(value, state[name]) for name, value in model.module.state_dict().items())


def test_damaged_indices(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    index = split(tmp_path / "model", state, "safetensors")
    whole = json.loads(index.read_text())
    first = next(iter(whole["weight_map"]))
    damages: list[tuple[Any, str]] = [
        ({"weight_map": {}}, "no weight_map"),
        ({"weight_map": {"a": "../b.safetensors"}}, "not a file beside it"),
        ({"weight_map": {"a": "none.safetensors"}}, "which is not there"),
        ({"weight_map": {**whole["weight_map"], "lost.weight": whole["weight_map"][first]}}, "lack: lost.weight"),
    ]
    for content, message in damages:
        index.write_text(json.dumps(content))
        with pytest.raises(InputError, match=message):
            load_model(index, arch=ARCH)
    index.write_text('{"weight_map":')
    with pytest.raises(InputError, match="is damaged"):
        load_model(index.parent, arch=ARCH)


def folder(tmp_path: Path, state: dict[str, torch.Tensor], **config: Any) -> Path:
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return tmp_path


def test_without_transformers_the_way_out_is_named(
    state: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)  # as if it were not installed
    path = folder(tmp_path, state, architectures=["SmallForTokens"], model_type="small")
    with pytest.raises(InputError, match=r"SmallForTokens \(small\)") as caught:
        load_model(path)
    assert caught.value.hint.startswith("pip install transformers; or") and "--arch" in caught.value.hint
    assert load_model(path, arch=ARCH).form == "sharded"


class SmallForTokens(nn.Module):
    """Stands in for a class of transformers."""

    asked: dict[str, Any]

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(9, 4)

    @classmethod
    def from_pretrained(cls, path: str, **settings: Any) -> SmallForTokens:
        made = cls()
        made.asked = {"path": path, **settings}
        return made


def offer(monkeypatch: pytest.MonkeyPatch, model: type) -> None:
    """A library called transformers that has this class."""
    library = types.ModuleType("transformers")
    setattr(library, model.__name__, model)
    monkeypatch.setitem(sys.modules, "transformers", library)


def test_with_transformers_it_builds_the_model(
    state: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, SmallForTokens)
    path = folder(tmp_path, state, architectures=["SmallForTokens"], model_type="small", vocab_size=9)
    model = load_model(path)
    assert (model.form, model.architecture) == ("Hugging Face folder", "transformers:SmallForTokens")
    assert (model.input_shapes, model.input_types) == (((16,),), (InputType("int64", 9),))
    assert isinstance(model.module, SmallForTokens)
    assert model.module.asked == {"path": str(path), "local_files_only": True, "trust_remote_code": False}
    (path / "config.json").write_text(json.dumps({"architectures": ["Unheard"], "model_type": "x"}))
    with pytest.raises(InputError, match=r"has no Unheard \(x\)"):
        load_model(path)


WORDS = ((16,), InputType("int64", 50))


@pytest.mark.parametrize(
    ("config", "parameters", "inputs"),
    [
        ({"image_size": 32, "num_channels": 1}, ("pixel_values",), (((1, 32, 32), InputType()),)),
        ({"vocab_size": 50}, ("input_ids", "attention_mask"), (WORDS,)),
        (
            {"vocab_size": 50, "is_encoder_decoder": True},
            ("input_ids", "attention_mask", "decoder_input_ids", "labels"),
            (WORDS, ((16,), InputType("int64")), WORDS),
        ),
        (
            {"vocab_size": 50, "is_encoder_decoder": True, "num_mel_bins": 8, "max_source_positions": 30},
            ("input_features", "attention_mask", "decoder_input_ids"),
            (((8, 60), InputType()), ((60,), InputType("int64")), WORDS),
        ),
        ({"vocab_size": 50, "is_encoder_decoder": True}, ("input_ids", "other", "decoder_input_ids"), (WORDS,)),
        ({"hidden_size": 8}, ("x",), ()),
    ],
)
def test_usual_inputs(config: dict[str, Any], parameters: tuple[str, ...], inputs: Any) -> None:
    assert usual_inputs(config, parameters) == inputs


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({"size": 32}, [3, 32, 32]),
        ({"size": {"height": 32, "width": 48}}, [3, 32, 48]),
        (
            {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": {"height": 24, "width": 24}},
            [3, 24, 24],
        ),
        ({"size": {"shortest_edge": 32}, "do_center_crop": False, "crop_size": 24}, [3, 32, 32]),
        ({"size": {"longest_edge": 32}}, None),
        ({"feature_size": 80}, None),
    ],
)
def test_how_images_are_prepared(settings: dict[str, Any], size: list[int] | None) -> None:
    found = preprocessing(settings)
    assert found.get("input_size") == size and "mean" not in found
    scaled = preprocessing({**settings, "image_mean": [0.5], "image_std": [0.25]})
    assert (scaled["mean"], scaled["std"]) == ([0.5], [0.25])
    assert "mean" not in preprocessing({**settings, "image_mean": [0.5], "do_normalize": False})


class Caching(SmallForTokens):
    def __init__(self) -> None:
        super().__init__()
        self.config = types.SimpleNamespace(use_cache=True)
        self.words.config = types.SimpleNamespace(use_cache=True)  # type: ignore[assignment]


def test_keys_and_values_are_no_outputs(
    state: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, Caching)
    model = load_model(folder(tmp_path, state, architectures=["Caching"], model_type="small", vocab_size=9))
    assert isinstance(model.module, Caching)
    assert not model.module.config.use_cache and not model.module.words.config.use_cache  # type: ignore[union-attr]


class Images(SmallForTokens):
    config = types.SimpleNamespace(num_channels=1)


def test_images_of_a_folder(state: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The size that its images are brought to, else the usual one, which gives way to that of the data."""
    offer(monkeypatch, Images)
    path = folder(tmp_path, state, architectures=["Images"], model_type="small", num_channels=1)
    model = load_model(path)
    assert (model.input_shapes, model.usual_shape) == (((1, 224, 224),), True)
    (path / "preprocessor_config.json").write_text(json.dumps({"size": 32, "image_mean": [0.5], "image_std": [0.25]}))
    model = load_model(path)
    assert (model.input_shapes, model.usual_shape) == (((1, 32, 32),), False)
    assert (model.mean, model.std) == ((0.5,), (0.25,))


def test_a_folder_that_names_an_architecture_of_timm(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="timm"):
        load_model(folder(tmp_path, state, architecture="resnet18_of_nobody"))
