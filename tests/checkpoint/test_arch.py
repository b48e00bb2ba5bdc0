"""Architectures by name, by the file's word, and by the weights' names and shapes."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models

from compress.checkpoint import arch, known, zoo
from compress.checkpoint.fit import hollow_parameters
from compress.checkpoint.statedict import without_prefixes
from compress.errors import InputError

FACTORIES = """
import torch.nn as nn
from beside import WIDTH
def build(width=WIDTH): return nn.Linear(4, width)
def text(): return "no module"
def fails(): raise RuntimeError("on purpose")
number = 3
"""


@pytest.fixture
def factories(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text("WIDTH = 2\n", encoding="utf-8")
    path = tmp_path / "nets.py"
    path.write_text(FACTORIES, encoding="utf-8")
    return path


def linear(width: int) -> dict[str, torch.Tensor]:
    return {"weight": torch.ones(width, 4), "bias": torch.zeros(width)}


@pytest.mark.parametrize(
    ("spec", "kinds"),
    [
        ("mlp:4-2", [nn.Flatten, nn.Linear]),
        ("mlp:4-3-2", [nn.Flatten, nn.Linear, nn.ReLU, nn.Linear]),
        ("mlp:4-3-2:gelu", [nn.Flatten, nn.Linear, nn.GELU, nn.Linear]),
    ],
)
def test_mlp(spec: str, kinds: list[type]) -> None:
    assert [type(each) for each in arch.mlp(spec).children()] == kinds


def test_mlp_names_its_weights_by_position() -> None:
    keys = list(arch.mlp("mlp:64-300-100-10").state_dict())
    assert keys == ["1.weight", "1.bias", "3.weight", "3.bias", "5.weight", "5.bias"]


@pytest.mark.parametrize("spec", ["mlp:", "mlp:4", "mlp:4-x", "mlp:4-0", "mlp:4-2:rely", "mlp:4-2:relu:x"])
def test_mlp_refuses(spec: str) -> None:
    with pytest.raises(InputError):
        arch.mlp(spec)


def test_file_factory_finds_its_neighbours_and_takes_arguments(factories: Path) -> None:
    assert arch.build(f"{factories}:build", None, linear(2)).module(torch.ones(1, 4)).shape == (1, 2)
    built = arch.build(f"{factories}:build", {"width": 7}, linear(7))
    assert built.module(torch.ones(1, 4)).tolist() == [[4.0] * 7]


def test_module_factory() -> None:
    built = arch.build("torch.nn:Linear", {"in_features": 4, "out_features": 2}, linear(2))
    assert built.architecture == "torch.nn:Linear"


@pytest.mark.parametrize(
    ("reference", "message", "hint"),
    [
        ("{}:buidl", "has no 'buidl'", "build"),
        ("{}:number", "not a function but of type int", ""),
        ("{}:text", "returned a str", ""),
        ("{}:fails", "RuntimeError: on purpose", ""),
        ("{}x.py:build", "no such file", ""),
        ("no_such_package.models:build", "no module named", "file.py:function"),
        ("resnet", "not understood", "torchvision:resnet18"),
        ("torchvision:resnet81", "no model 'resnet81'", "resnet18"),
    ],
)
def test_factory_errors(reference: str, message: str, hint: str, factories: Path) -> None:
    with pytest.raises(InputError, match=message) as caught:
        arch.build(reference.format(factories), None, linear(2))
    assert hint in caught.value.hint


def test_what_does_not_fit_is_listed(factories: Path) -> None:
    state = {"weight": torch.ones(3, 4), "extra": torch.zeros(1)}
    with pytest.raises(InputError) as caught:
        arch.build(f"{factories}:build", None, state)
    message = str(caught.value)
    assert "1 missing from the file (bias)" in message
    assert "1 unexpected in the file (extra)" in message
    assert "(3, 4) for (2, 4)" in message


def test_tied_weights_may_be_in_the_file_under_one_name(tmp_path: Path) -> None:
    path = tmp_path / "tied.py"
    path.write_text(
        "import torch.nn as nn\n"
        "def build():\n"
        "    net = nn.Sequential(nn.Embedding(7, 3), nn.Linear(3, 7, bias=False))\n"
        "    net[1].weight = net[0].weight\n"
        "    return net\n"
    )
    for name in ("0.weight", "1.weight"):  # as safetensors' save_model leaves out either
        loaded = arch.build(f"{path}:build", None, {name: torch.arange(21.0).reshape(7, 3)}).module
        weight = loaded.get_parameter("0.weight")
        assert loaded.get_parameter("1.weight") is weight and weight.flatten().tolist() == list(range(21))
    with pytest.raises(InputError, match="2 missing from the file"):
        arch.build(f"{path}:build", None, {})


def test_quantised_weights_are_told_apart_from_a_wrong_architecture() -> None:
    state = {"1.scale": torch.ones(()), "1.zero_point": torch.zeros(()), "3.scale": torch.ones(())}
    with pytest.raises(InputError, match="do not fit") as caught:
        arch.build("mlp:4-2", None, state)
    assert "quantised" in caught.value.hint


def test_whole_numbers_are_no_weights(factories: Path) -> None:
    state = {"weight": torch.ones(2, 4, dtype=torch.int8), "bias": torch.zeros(2)}
    with pytest.raises(InputError, match=r"weight is int8 in the file and float32 in .*nets.py:build") as caught:
        arch.build(f"{factories}:build", None, state)
    assert caught.value.hint == "give the file that they were quantised from"


def test_a_real_name_that_looks_like_a_wrapper_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Linear(4, 2)

    state = {f"module.{key}": value for key, value in Outer().state_dict().items()}
    assert [removed for _, removed in without_prefixes(state)] == ["", "module.", "module.model."]
    home = types.ModuleType("outer_home")
    monkeypatch.setattr(home, "Outer", Outer, raising=False)
    monkeypatch.setitem(sys.modules, "outer_home", home)
    built = arch.build("outer_home:Outer", None, state)
    torch.testing.assert_close(built.module.get_parameter("model.weight"), state["module.model.weight"])
    assert built.notes == ("prefix 'module.' removed from every name",)


FOUND: list[tuple[str, dict[str, Any]]] = [
    ("resnet18", {}),
    ("resnet18", {"num_classes": 10}),
    ("mobilenet_v3_small", {"num_classes": 3}),
    ("squeezenet1_1", {"num_classes": 5}),
    ("shufflenet_v2_x0_5", {}),
    ("googlenet", {"aux_logits": False, "init_weights": False, "num_classes": 4}),
    ("lraspp_mobilenet_v3_large", {"weights_backbone": None, "num_classes": 2}),
    ("vit_b_16", {"image_size": 384, "num_classes": 6}),
    ("ssd300_vgg16", {"weights_backbone": None, "num_classes": 4}),
    ("r3d_18", {"num_classes": 9}),
]


@pytest.mark.parametrize(("name", "kwargs"), FOUND)
def test_torchvision_models_are_found_with_their_class_count(name: str, kwargs: dict[str, Any]) -> None:
    with hollow_parameters():
        original = models.get_model(name, weights=None, **kwargs)
    state = {f"module.{key}": torch.zeros(value.shape) for key, value in original.state_dict().items()}
    built = arch.find(state)
    assert built.architecture == f"torchvision:{name}"
    assert {k: v.shape for k, v in built.module.state_dict().items()} == {
        k: v.shape for k, v in original.state_dict().items()
    }
    assert not any(each.is_meta for each in (*built.module.parameters(), *built.module.buffers()))


def test_a_model_that_asks_for_its_version_gets_the_present_one() -> None:
    model = models.get_model("mnasnet0_5", num_classes=3)
    state = dict(model.state_dict())  # without the metadata, as a file that is read safely
    built = arch.build("torchvision:mnasnet0_5", {"num_classes": 3}, state).module
    assert all(torch.equal(value, state[name]) for name, value in built.state_dict().items())


def test_tables_that_a_model_computes_are_real() -> None:
    with hollow_parameters():
        original = models.swin_v2_t(weights=None, num_classes=3)
    state = {
        key: torch.zeros(value.shape, dtype=value.dtype) if value.is_meta else value
        for key, value in original.state_dict().items()
    }
    module = arch.build("torchvision:swin_v2_t", None, state).module
    tables = dict(original.named_buffers())
    assert len(tables) == 24
    for name, table in module.named_buffers():
        torch.testing.assert_close(table, tables[name], rtol=0, atol=0)


def test_the_nearest_model_is_named() -> None:
    with hollow_parameters():
        state = dict(models.resnet18(weights=None).state_dict())
    state["conv1.weight"] = torch.empty(64, 3, 3, 3, device="meta")  # the stem of a CIFAR variant
    with pytest.raises(InputError, match=r"Nearest is torchvision:resnet18.*\(64, 3, 3, 3\)") as caught:
        arch.find(state)
    assert "--arch models.py:build" in caught.value.hint


def test_two_that_fit_are_both_named() -> None:
    state = zoo.build("torchvision", "fasterrcnn_mobilenet_v3_large_fpn", {}).state_dict()
    names = "torchvision:fasterrcnn_mobilenet_v3_large_320_fpn and torchvision:fasterrcnn_mobilenet_v3_large_fpn"
    with pytest.raises(InputError, match=names) as caught:
        arch.find(state)
    assert caught.value.hint == "say which: --arch torchvision:fasterrcnn_mobilenet_v3_large_320_fpn"


def test_the_table_is_that_of_the_installed_torchvision() -> None:
    assert {each.name for each in known.table()} == set(zoo.searched())
    row = next(each for each in known.table() if each.name == "googlenet" and each.args)
    names = list(zoo.build("torchvision", "googlenet", row.args).state_dict())
    assert (row.count, row.hash) == known.hash_of(reversed(names))
    assert row.count < len(names)  # batch-norm counters do not count
    assert [each.args for each in known.matching(names)] == [{"aux_logits": False}]


def test_what_fits_nothing_is_known_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []
    build = zoo.build

    def counted(library: str, name: str, args: dict[str, Any]) -> nn.Module:
        built.append(name)
        return build(library, name, args)

    monkeypatch.setattr(zoo, "build", counted)
    with hollow_parameters():
        state = dict(models.regnet_y_400mf(weights=None).state_dict())
    with pytest.raises(InputError, match="Nearest is torchvision:regnet_y_400mf, but 1 missing"):
        arch.find({key: value for key, value in state.items() if key != "fc.bias"})
    assert 1 <= len(set(built)) <= 3
    built.clear()
    with pytest.raises(InputError, match="no known architecture") as caught:
        arch.find({"a.weight": torch.zeros(7, 3), "b.weight": torch.zeros(2, 7)})
    assert not built and "--arch mlp:3-7-2" in caught.value.hint


def test_the_network_is_found_beside_its_average() -> None:
    with hollow_parameters():
        hollow = models.shufflenet_v2_x0_5(weights=None).state_dict()
    one = {name: torch.zeros(value.shape) for name, value in hollow.items()}
    state = {f"{who}.net.{name}": value for who in ("ema", "model") for name, value in one.items()}
    built = arch.find({**state, "loss.weight": torch.zeros(3)})
    assert built.architecture == "torchvision:shufflenet_v2_x0_5"
    assert built.notes[1].startswith("the weights under 'model.' are the model's; left out: ema.net.conv1.0.weight")
    assert built.notes[2] == "prefix 'net.' removed from every name"


@pytest.mark.parametrize("said", ["sample_models/architectures.py:residual_cnn", "package.models:build"])
def test_code_that_a_file_names_is_not_run(said: str) -> None:
    with pytest.raises(InputError, match="not run unasked") as caught:
        arch.from_file(said, {}, linear(2))
    assert f"--arch {said}" in caught.value.hint


def test_harmless_names_in_a_file_are_used() -> None:
    with hollow_parameters():
        hollow = models.shufflenet_v2_x0_5(weights=None, num_classes=3).state_dict()
    state = {key: torch.zeros(value.shape) for key, value in hollow.items()}
    beside = {"arch_args": {"num_classes": 3, "weights": "DEFAULT", "checkpoint_path": "x"}}
    for said in ("torchvision:shufflenet_v2_x0_5", "shufflenet_v2_x0_5"):
        assert arch.from_file(said, beside, state).architecture == "torchvision:shufflenet_v2_x0_5"
    state = {"1.weight": torch.zeros(2, 4), "1.bias": torch.zeros(2)}
    assert arch.from_file("mlp:4-2", {}, state).architecture == "mlp:4-2"


def test_a_network_inside_a_training_module_is_found_by_its_prefix(factories: Path) -> None:
    inside = {f"net.core.{name}": value for name, value in linear(2).items()}
    built = arch.build(f"{factories}:build", None, {**inside, "loss.weight": torch.ones(2)})
    torch.testing.assert_close(built.module.state_dict(), linear(2))
    assert built.notes == ("the weights under 'net.core.' are the model's; left out: loss.weight",)
    twice = {f"{who}.{name}": value for who in ("first", "second") for name, value in linear(2).items()}
    with pytest.raises(InputError, match="2 missing from the file"):
        arch.build(f"{factories}:build", None, twice)


def test_weights_of_low_precision_become_those_of_the_architecture(factories: Path) -> None:
    low = {name: value.bfloat16() for name, value in linear(2).items()}
    built = arch.build(f"{factories}:build", None, low)
    assert {p.dtype for p in built.module.parameters()} == {torch.float32}
    assert built.notes == ("bfloat16 in the file, float32 as in the architecture",)


def test_buffers_that_lie_where_a_parameter_lies_are_real() -> None:
    timm = pytest.importorskip("timm")
    options = {"img_size": 28, "embed_dim": 12, "depths": (2,), "num_heads": (2,), "window_size": 4, "num_classes": 3}
    original = timm.create_model("swin_tiny_patch4_window7_224", **options).eval()
    built = arch.build("timm:swin_tiny_patch4_window7_224", options, original.state_dict())
    assert not any(buffer.is_meta for buffer in built.module.buffers())
    x = torch.randn(2, 3, 28, 28)
    torch.testing.assert_close(built.module(x), original(x))


def test_timm_by_name() -> None:
    timm = pytest.importorskip("timm")
    original = timm.create_model("resnet10t", num_classes=6).eval()
    built = arch.build("timm:resnet10t", None, original.state_dict())
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(built.module(x), original(x), rtol=0, atol=0)
    assert arch.default_input_shape(built) == (3, 176, 176)
    with pytest.raises(InputError, match="no model 'resnet10tt'"):
        arch.build("timm:resnet10tt", None, original.state_dict())


def test_loading_leaves_the_random_numbers_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    with hollow_parameters():
        state = dict(models.squeezenet1_1(weights=None).state_dict())
    torch.set_rng_state(before)
    zoo.fit_named("torchvision", "squeezenet1_1", {}, state)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_mlp_saved_without_the_flattening_in_front() -> None:
    trained = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    built = arch.build("mlp:4-5-2", None, trained.state_dict())
    x = torch.randn(3, 4)
    assert torch.equal(built.module(x), trained(x))
