from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
import torchvision
from torch import Tensor, nn

from compress.errors import InputError, ModelError
from compress.export import export_onnx, export_pt2
from compress.graph.trace import trace

module_of_onnx = __import__("compress.export.onnx", fromlist=["x"])


def weight_bytes(module: nn.Module) -> int:
    return sum(each.numel() * each.element_size() for each in module.state_dict().values())


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_a_file_is_as_large_as_its_weights_and_computes_the_same(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = (
        torchvision.models.resnet18(num_classes=10)
        if name == "resnet"
        else torchvision.models.VisionTransformer(32, 8, 2, 4, 64, 128, num_classes=10)
    )
    x = torch.randn(1, 3, 32, 32)
    found = export_onnx(trace(model.eval(), (torch.cat([x, x]),)).module, (x,), tmp_path / "model.onnx")
    assert found.path == tmp_path / "model.onnx"
    assert found.bytes == found.path.stat().st_size < 1.05 * weight_bytes(model) + 200_000
    assert found.max_error < 1e-4
    assert found.agreement == 1.0
    assert found.dynamic_batch
    assert (found.reason, found.opset >= 18) == ("", True)
    assert list(tmp_path.iterdir()) == [found.path]
    assert capfd.readouterr() == ("", "")
    graph = onnx.load(found.path).graph
    assert [each.name for each in (*graph.input, *graph.output)] == ["input", "output"]
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    content = found.path.read_bytes()
    assert b".py" not in content
    assert str(Path(torch.__file__).parents[1]).encode() not in content


class Biased(nn.Module):
    """Attention with a learned bias for every pair of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.packed, self.out = nn.Linear(8, 24), nn.Linear(8, 3)
        self.bias = nn.Parameter(torch.randn(1, 2, 5, 5))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (each.unflatten(-1, (2, 4)).transpose(1, 2) for each in self.packed(x).chunk(3, -1))
        found = nn.functional.scaled_dot_product_attention(q, k, v, self.bias.expand(x.shape[0], -1, -1, -1))
        return self.out(found.transpose(1, 2).contiguous().reshape(*x.shape[:-1], -1))


def test_attention_whose_mask_is_trained(tmp_path: Path) -> None:
    network = Biased().eval()
    found = export_onnx(network, (torch.randn(2, 5, 8),), tmp_path / "model.onnx")
    assert found.max_error < 1e-5 and found.dynamic_batch
    assert all(each.requires_grad for each in network.parameters())


def test_several_inputs_and_outputs(pair: nn.Module, tmp_path: Path) -> None:
    inputs = (torch.randn(2, 4), torch.randint(5, (2, 3)))
    found = export_onnx(pair, inputs, tmp_path / "deep" / "model.onnx", opset=18)
    assert (found.opset, found.dynamic_batch, found.agreement) == (18, True, 1.0)
    assert pair.training  # left as it was
    session = onnxruntime.InferenceSession(found.path)
    assert [each.name for each in session.get_inputs()] == ["input_0", "input_1"]
    assert [each.name for each in session.get_outputs()] == ["output_0", "output_1"]
    x, index = torch.randn(7, 4), torch.randint(5, (7, 3))
    first, _ = session.run(None, {"input_0": x.numpy(), "input_1": index.numpy()})
    assert torch.allclose(torch.as_tensor(first), pair(x, index)["classes"], atol=1e-5)


def test_a_fixed_batch_is_told(fixed: nn.Module, tmp_path: Path) -> None:
    found = export_onnx(fixed, (torch.randn(2, 4),), tmp_path / "model.onnx")
    assert not found.dynamic_batch
    assert found.reason
    assert found.max_error < 1e-5


def test_an_operator_that_onnx_lacks_is_named(unknown: nn.Module, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"before")
    with pytest.raises(ModelError, match="bessel_j0") as caught:
        export_onnx(unknown, (torch.randn(2, 4),), tmp_path / "model.onnx")
    assert ".pt2" in caught.value.hint
    assert (tmp_path / "model.onnx").read_bytes() == b"before"
    assert len(list(tmp_path.iterdir())) == 1


def test_large_weights_lie_beside_the_file(fixed: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module_of_onnx, "ONE_FILE", 10)
    model = nn.Linear(32, 32)
    found = export_onnx(model, (torch.randn(2, 32),), tmp_path / "model.onnx")
    names = {each.name for each in tmp_path.iterdir()}
    assert names == {"model.onnx", "model.onnx.data"}
    assert found.bytes == sum(each.stat().st_size for each in tmp_path.iterdir())
    assert found.max_error < 1e-5
    assert onnxruntime.InferenceSession(found.path).get_inputs()[0].name == "input"


def test_a_place_that_cannot_be_written(fixed: nn.Module, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        export_onnx(fixed, (torch.randn(2, 4),), tmp_path / "file" / "model.onnx")


def test_the_same_model_gives_the_same_bytes(pair: nn.Module, tmp_path: Path) -> None:
    inputs = (torch.randn(2, 4), torch.randint(5, (2, 3)))
    for name in ("a", "b"):
        export_onnx(pair, inputs, tmp_path / name / "model.onnx")
        export_pt2(pair, inputs, tmp_path / name / "model.pt2")
    for name in ("model.onnx", "model.pt2"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
