from __future__ import annotations

from pathlib import Path

from compress.pipeline import inspect_model
from compress.progress import Silent
from compress.request import InspectRequest, ModelSource

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"


def test_a_module() -> None:
    found = inspect_model(InspectRequest(ModelSource(SAMPLES / "digits_mlp.pt")), Silent())
    assert (found.form, found.architecture) == ("training checkpoint", "mlp:64-300-100-10")
    assert found.input_shapes == ((64,),)
    assert (found.parameters, found.macs) == (50_610, 64 * 300 + 300 * 100 + 100 * 10)
    assert [(layer.name, layer.kind, layer.shape, layer.parameters) for layer in found.layers] == [
        ("1", "Linear", (300, 64), 19_500),
        ("3", "Linear", (100, 300), 30_100),
        ("5", "Linear", (10, 100), 1_010),
    ]
    assert [(g.name, g.size, g.tensors) for g in found.groups] == [
        ("1", 300, ("1.weight", "1.bias", "3.weight")),
        ("3", 100, ("3.weight", "3.bias", "5.weight")),
    ]
    assert {(k.where, k.reason) for k in found.frozen} >= {
        ("5.weight dim 0 (10)", "an output of the network keeps its size"),
        ("5.bias dim 0 (10)", "an output of the network keeps its size"),
    }
    own = {k.reason for k in found.frozen if k.where == "1.weight dim 1 (64)"}  # its layer need not be named again
    assert own == {"meets a tensor, whose size is given along this dimension (aten::linear)"}


def test_a_graph_tells_what_it_does_with_its_parameters() -> None:
    found = inspect_model(InspectRequest(ModelSource(SAMPLES / "digits_vit.pt2")), Silent())
    kinds = {layer.name: layer.kind for layer in found.layers}
    assert kinds["patches"] == "conv2d"
    assert kinds["blocks.0.attention.qkv"] == kinds["head"] == "linear"
    assert kinds["norm"] == "layer_norm"
    assert sum(layer.parameters for layer in found.layers) == found.parameters == 102_218
    heads = {g.name: (g.kind, g.size) for g in found.groups}
    assert heads["blocks.0.attention.qkv.blocks"] == ("blocks", 4)
