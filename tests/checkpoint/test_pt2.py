"""Exported programs load to the same function, and nothing in their archives runs."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from compress.checkpoint import load_model
from compress.checkpoint.pt2 import read_pt2
from compress.errors import InputError


class Small(nn.Module):
    """Convolution, batch norm, a constant, a tied weight, and a size computed from the batch."""

    scale: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 4)
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.fc.weight
        self.register_buffer("scale", torch.tensor([2.0]), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.bn(self.conv(x))).mean((2, 3))
        y = self.tied(self.fc(y)) * self.scale + torch.arange(4)
        return y.reshape(x.shape[0] * 2, -1)


class Many(nn.Module):
    """Several inputs and nested outputs, pieces of a split, and a part without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 4)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> dict[str, Any]:
        left, right = self.fc(torch.cat([a, b], 1)).chunk(2, 1)
        with torch.no_grad():
            frozen = (left * 2).exp()
        return {"out": left + right, "rest": [frozen, right.max(1).values]}


def export(module: nn.Module, inputs: tuple[torch.Tensor, ...], path: Path, dynamic: bool = True) -> Any:
    shapes = tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs) if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(module.eval(), inputs, dynamic_shapes=shapes, strict=False)
        torch.export.save(program, path)
    return program


@pytest.fixture
def small(tmp_path: Path) -> tuple[nn.Module, Path]:
    torch.manual_seed(0)
    module, path = Small(), tmp_path / "small.pt2"
    export(module, (torch.randn(2, 3, 6, 6),), path)
    return module, path


def test_same_function_names_and_dynamic_batch(small: tuple[nn.Module, Path]) -> None:
    module, path = small
    loaded = load_model(path)
    assert (loaded.form, loaded.architecture, loaded.input_shapes) == ("pt2", "graph", ((3, 6, 6),))
    assert type(loaded.module).__name__ == "GraphModule"
    for batch in (1, 2, 7):
        x = torch.randn(batch, 3, 6, 6)
        torch.testing.assert_close(loaded.module(x), module(x), rtol=0, atol=0)
    names = dict(loaded.module.named_parameters())
    assert set(names) == set(dict(module.named_parameters()))
    assert loaded.module.get_parameter("tied.weight") is loaded.module.get_parameter("fc.weight")
    loaded.module.train()
    loaded.module.eval()
    again = torch.export.export(loaded.module, (torch.randn(3, 3, 6, 6),), strict=False)
    assert len(list(again.graph.nodes)) > 5


def test_several_inputs_and_nested_outputs(tmp_path: Path) -> None:
    module, path = Many(), tmp_path / "many.pt2"
    export(module, (torch.randn(3, 2), torch.randn(3, 4)), path)
    loaded = read_pt2(path)
    assert loaded.input_shapes == ((2,), (4,))
    a, b = torch.randn(5, 2), torch.randn(5, 4)
    got, wanted = loaded.module(a, b), module(a, b)
    assert list(got) == ["out", "rest"] and isinstance(got["rest"], list)
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize(
    "module",
    [nn.LSTM(4, 3, batch_first=True), nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)],
    ids=["lstm", "transformer"],
)
def test_recurrence_and_attention(module: nn.Module, tmp_path: Path) -> None:
    x, path = torch.randn(2, 5, 4), tmp_path / "model.pt2"
    export(module, (x,), path, dynamic=False)
    torch.testing.assert_close(read_pt2(path).module(x), module(x))


def rewrite(path: Path, member: str, change: Callable[[Any], Any]) -> None:
    """Replace one JSON file, or the bytes of any other, in an archive."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    name = next(each for each in content if each.endswith(member))
    if member.endswith(".json"):
        content[name] = json.dumps(change(json.loads(content[name]))).encode()
    else:
        content[name] = change(content[name])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for each, raw in content.items():
            archive.writestr(each, raw)


class Bomb:
    """Unpickling it touches a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (Path.touch, (self.target,))


def pickled(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def test_sample_inputs_guards_and_expressions_are_not_evaluated(
    small: tuple[nn.Module, Path], tmp_path: Path
) -> None:
    module, path = small
    sign = tmp_path / "ran"
    code = f"__import__('pathlib').Path({str(sign)!r}).touch()"

    def change(program: dict[str, Any]) -> dict[str, Any]:
        program["guards_code"] = [code]
        text = json.dumps(program)
        return json.loads(text.replace("Symbol('s", f"{code}+Symbol('s"))

    rewrite(path, "sample_inputs/model.pt", lambda _: pickled((Bomb(sign),)))
    rewrite(path, "models/model.json", change)
    x = torch.randn(4, 3, 6, 6)
    torch.testing.assert_close(read_pt2(path).module(x), module(x))
    assert not sign.exists()


def first_node(**changes: Any) -> Callable[[Any], Any]:
    def change(program: dict[str, Any]) -> dict[str, Any]:
        program["graph_module"]["graph"]["nodes"][0] |= changes
        return program

    return change


@pytest.mark.parametrize(
    "target",
    ["torch.os.system", "_operator.methodcaller", "torch.load", "torch.ops.aten.from_file.default", "print",
     "torch.ops.aten.conv2d.__class__", "torch.ops.higher_order.triton_kernel_wrapper_mutation"],
)  # fmt: skip
def test_only_operators_are_reached(target: str, small: tuple[nn.Module, Path]) -> None:
    rewrite(small[1], "models/model.json", first_node(target=target))
    with pytest.raises(InputError, match="not one that is taken from files"):
        read_pt2(small[1])


def test_names_cannot_carry_code(small: tuple[nn.Module, Path]) -> None:
    rewrite(small[1], "models/model.json", first_node(name="x=print(1);y"))
    with pytest.raises(InputError, match="no name of a value"):
        read_pt2(small[1])


def test_pickled_weights_are_not_trusted(small: tuple[nn.Module, Path], tmp_path: Path) -> None:
    sign = tmp_path / "ran"

    def change(config: dict[str, Any]) -> dict[str, Any]:
        config["config"]["conv.weight"] |= {"use_pickle": True, "path_name": "weight_0"}
        return config

    rewrite(small[1], "model_weights_config.json", change)
    rewrite(small[1], "weights/weight_0", lambda _: pickled(Bomb(sign)))
    with pytest.raises(InputError, match="pickle of more than a tensor"):
        read_pt2(small[1])
    assert not sign.exists()


def test_weights_outside_their_file_are_refused(small: tuple[nn.Module, Path]) -> None:
    def change(config: dict[str, Any]) -> dict[str, Any]:
        config["config"]["conv.weight"]["tensor_meta"]["storage_offset"] = {"as_int": 10**6}
        return config

    rewrite(small[1], "model_weights_config.json", change)
    with pytest.raises(InputError, match="out of bounds"):
        read_pt2(small[1])


def test_another_schema_and_cut_files_are_refused(small: tuple[nn.Module, Path], tmp_path: Path) -> None:
    content = small[1].read_bytes()
    cut = tmp_path / "cut.pt2"
    cut.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="truncated or damaged"):
        load_model(cut)

    def change(program: dict[str, Any]) -> dict[str, Any]:
        program["schema_version"]["major"] = 99
        return program

    rewrite(small[1], "models/model.json", change)
    with pytest.raises(InputError, match="version 99"):
        load_model(small[1])
