from __future__ import annotations

import collections
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from compress.errors import ModelError
from compress.export import export_onnx, runtime
from compress.export import onnx as onnx_export
from compress.export.quantize import calibration_samples, export_int8
from compress.export.runtime import OnnxModule


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The new process is looked at in test_onnx.py."""
    monkeypatch.setattr(runtime, "_alone", lambda file, batch: list(OnnxModule(file)(*batch)))


def network() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(256, 6),
    )  # fmt: skip
    for values in (net[1].running_mean, net[1].running_var, net[1].weight, net[1].bias):
        nn.init.uniform_(values, 0.5, 1.5)  # type: ignore[arg-type]
    return net.eval()


def test_int8_computes_almost_the_same_in_a_quarter_of_the_bytes(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    net, samples = network(), torch.randn(150, 3, 8, 8)
    whole = export_onnx(net, (samples[:2],), tmp_path / "model.onnx")
    found = export_int8(whole.path, samples, tmp_path / "model.int8.onnx", against=net)
    assert found.samples == 150 and 0 < found.max_error < 0.05
    weights = sum(p.numel() for p in net.parameters())
    assert weights < found.bytes == found.path.stat().st_size < weights + 3000
    assert capfd.readouterr() == ("", "")
    model = onnx.load(found.path)
    kinds = collections.Counter(node.op_type for node in model.graph.node)
    assert kinds["Conv"] == 2 and kinds["Gemm"] == 1 and kinds["BatchNormalization"] == 0
    assert kinds["Relu"] == 0  # the quantised range of the convolution holds it
    sizes = {each.name: list(each.dims) for each in model.graph.initializer}
    scales = [sizes[node.input[1]] for node in model.graph.node if node.input[0].endswith("weight_quantized")]
    assert sorted(scales) == [[6], [16], [16]]  # per channel
    assert not model.graph.value_info and {each.domain for each in model.opset_import} <= {"", "com.microsoft"}
    out = OnnxModule(found.path)(samples[:7])[0]
    assert (out.argmax(1) == net(samples[:7]).argmax(1)).float().mean() >= 6 / 7


class Fixed(nn.Module):
    """Takes four samples at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).reshape(4, 3) * 2


def test_a_file_of_one_batch_size_is_calibrated_and_run_in_its_batches(tmp_path: Path) -> None:
    net, samples = Fixed().eval(), torch.randn(18, 8)
    whole = export_onnx(net, (samples[:4],), tmp_path / "model.onnx")
    expected = 2 * net.layer(samples)
    torch.testing.assert_close(OnnxModule(whole.path)(samples)[0], expected)
    against = nn.Sequential(net.layer, nn.Threshold(-99, 0)).eval()
    found = export_int8(whole.path, samples, tmp_path / "model.int8.onnx", against=lambda x: 2 * against(x))  # type: ignore[arg-type]
    assert found.max_error < 0.05


def test_large_weights_lie_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from compress.export import quantize

    monkeypatch.setattr(onnx_export, "ONE_FILE", 1000)
    monkeypatch.setattr(quantize, "ONE_FILE", 1000)
    net, samples = nn.Linear(64, 64).eval(), torch.randn(20, 64)
    whole = export_onnx(net, (samples[:2],), tmp_path / "model.onnx")
    found = export_int8(whole.path, samples, tmp_path / "model.int8.onnx", against=net)
    names = {each.name for each in tmp_path.iterdir()}
    assert names == {"model.onnx", "model.onnx.data", "model.int8.onnx", "model.int8.onnx.data"}
    assert found.bytes == sum((tmp_path / n).stat().st_size for n in names if "int8" in n)
    assert found.max_error < 0.05


def test_what_is_no_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(ModelError):
        export_int8(tmp_path / "model.onnx", torch.randn(4, 4), tmp_path / "a.onnx", against=nn.Linear(4, 4))
    assert [each.name for each in tmp_path.iterdir()] == ["model.onnx"]


def test_calibration_samples_are_drawn_once_each() -> None:
    rows = torch.arange(10)[:, None]
    drawn = calibration_samples(rows, 6, seed=1)
    assert len(drawn) == 6 and len(set(drawn.flatten().tolist())) == 6
    assert torch.equal(drawn, calibration_samples(rows, 6, seed=1))
    assert not torch.equal(drawn, calibration_samples(rows, 6, seed=2))
    assert len(calibration_samples(rows, 99, seed=0)) == 10
