from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from compress.checkpoint.onnx.names import valid_names
from compress.checkpoint.pt2_ops import checked_name


def test_names_of_exporters() -> None:
    names = ["conv1.weight", "onnx::Conv_194", "/model/dense/MatMul/ReadVariableOp:0", "23", "W é"]
    assert list(valid_names(names).values()) == [
        "conv1.weight",
        "onnx__Conv_194",
        "model.dense.MatMul.ReadVariableOp_0",
        "23",
        "W__",
    ]


def test_what_a_module_has_anyway_is_avoided() -> None:
    assert valid_names(["forward", "a.training", "code"]) == {
        "forward": "forward_",
        "a.training": "a.training_",
        "code": "code_",
    }


def test_names_stay_apart() -> None:
    found = valid_names(["a/b", "a.b", "a", "a:b", "a_b"])
    assert len(set(found.values())) == 5
    assert "a" not in found.values()  # a folder


@given(st.lists(st.text("ab./:_ 1é", max_size=6), unique=True, max_size=8))
def test_any_names_can_be_registered(names: list[str]) -> None:
    root = nn.Module()
    for name in valid_names(names).values():
        *folders, leaf = checked_name(name).split(".")
        module = root
        for folder in folders:
            if folder not in module._modules:
                module.add_module(folder, nn.Module())
            module = module.get_submodule(folder)
        module.register_parameter(leaf, nn.Parameter(nn.Linear(1, 1).weight.detach()))
    assert len(list(root.parameters())) == len(names)
