from __future__ import annotations

import hashlib
import json
import os
import zlib
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, fx, nn

from compress.checkpoint import bundle, folder, load_model
from compress.checkpoint.bundle import is_bundle
from compress.checkpoint.reload import largest_error
from compress.checkpoint.write import (
    bundle_bytes,
    bundle_size,
    check_output,
    load_bundle,
    read_metadata,
    reload_error,
    write_bundle,
)
from compress.errors import CompressError, InputError
from compress.graph.trace import trace


class Twice(nn.Module):
    """A class that only this file knows, with tied weights and a batch-dependent view."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.norm(self.second(self.first(x).relu()))
        return y, y.view(x.shape[0] * 2, 2)


@pytest.fixture(scope="module")
def network() -> fx.GraphModule:
    torch.manual_seed(0)
    return trace(Twice().eval(), (torch.randn(2, 4),)).module


def arguments(network: fx.GraphModule) -> dict[str, Any]:
    return {
        "program_module": network,
        "inputs": [{"shape": [4], "dtype": "float32"}],
        "plan_json": {"schema": "compress.plan/1", "kept": {"a": {"0": [1, 2]}}, "masks": {"a": [True]}},
        "report": {"schema": "compress.report/1", "text": "é"},
        "recipe_toml": "model = 'a'\n",
        "report_md": "# Report\n",
        "provenance": {"sha256": "00"},
    }


def test_a_bundle_loads_and_gives_the_same_outputs(tmp_path: Path, network: fx.GraphModule) -> None:
    directory = write_bundle(tmp_path / "deep" / "out", **arguments(network), metadata={"mean": [0.5]})
    assert {each.name for each in directory.iterdir()} == {
        "model.safetensors", "plan.json", "report.json", "report.md", "recipe.toml",
    }  # fmt: skip
    assert [each.name for each in directory.parent.iterdir()] == ["out"]
    x = torch.randn(5, 4)
    for path in (directory, directory / "model.safetensors"):
        assert all(torch.equal(a, b) for a, b in zip(load_bundle(path)(x), network(x), strict=True))
    found = read_metadata(directory)
    assert found["schema"] == "compress.bundle/1"
    assert found["inputs"] == [{"shape": [4], "dtype": "float32"}]
    assert found["plan"] == {"schema": "compress.plan/1", "kept": {"a": {"0": [1, 2]}}}
    assert (found["provenance"], found["mean"]) == ({"sha256": "00"}, [0.5])
    assert json.loads((directory / "report.json").read_text("utf8"))["text"] == "é"
    assert json.loads((directory / "plan.json").read_text())["masks"] == {"a": [True]}


def test_pictures_lie_in_a_folder_and_those_of_others_stay(tmp_path: Path, network: fx.GraphModule) -> None:
    out = tmp_path / "out"
    write_bundle(out, **arguments(network), files={"figures/a.svg": b"<svg/>", "figures/b.svg": b"<svg/>"})
    assert {each.name for each in (out / "figures").iterdir()} == {"a.svg", "b.svg"}
    write_bundle(out, **arguments(network), files={"figures/c.svg": b"<svg/>"})
    assert [each.name for each in (out / "figures").iterdir()] == ["c.svg"]
    (out / "figures" / "mine.txt").write_text("mine")
    write_bundle(out, **arguments(network), files={"figures/d.svg": b"<svg/>"})
    assert {each.name for each in (out / "figures").iterdir()} == {"d.svg", "mine.txt"}
    write_bundle(out, **arguments(network))
    assert [each.name for each in (out / "figures").iterdir()] == ["mine.txt"]


def test_tied_weights_are_on_disk_once(tmp_path: Path, network: fx.GraphModule) -> None:
    directory = write_bundle(tmp_path / "out", **arguments(network))
    names = set(safetensors.torch.load_file(directory / "model.safetensors"))
    assert ("first.weight" in names) != ("second.weight" in names)


def test_same_input_same_bytes(network: fx.GraphModule) -> None:
    given = arguments(network)
    keys = ("program_module", "inputs", "plan_json", "provenance")
    made = {hashlib.sha256(bundle_bytes(**{key: given[key] for key in keys})).hexdigest() for _ in range(4)}
    assert len(made) == 1


def test_the_size_is_known_before_it_is_written(network: fx.GraphModule) -> None:
    about = ([{"shape": [4], "dtype": "float32"}], {"schema": "p", "kept": {"a": {"0": list(range(900))}}}, {"seed": 0})
    written = bundle_bytes(network, *about, {"mean": [0.5]})
    assert bundle_size(network, *about, {"mean": [0.5]}) == len(written)


def test_reload_in_a_new_process(tmp_path: Path, network: fx.GraphModule) -> None:
    directory = write_bundle(tmp_path / "out", **arguments(network))
    x = torch.randn(3, 4)
    first, second = network(x)
    assert reload_error(directory, (x,), (first, second)) < 1e-6
    assert reload_error(directory, (x,), (first, second + 4.0)) > 0.1
    (directory / "model.safetensors").write_bytes(b"0")
    with pytest.raises(CompressError, match="new process"):
        reload_error(directory, (x,), (first, second))


def test_an_older_bundle_leaves_nothing_stale(tmp_path: Path, network: fx.GraphModule) -> None:
    given = arguments(network)
    write_bundle(tmp_path / "out", **given, files={"model.onnx": b"old", "report.html": b"old"})
    write_bundle(tmp_path / "out", **{**given, "plan_json": None})
    assert {each.name for each in (tmp_path / "out").iterdir()} == {
        "model.safetensors", "report.json", "report.md", "recipe.toml",
    }  # fmt: skip
    assert [each.name for each in tmp_path.iterdir()] == ["out"]
    assert read_metadata(tmp_path / "out")["plan"] is None


def test_files_of_others_are_never_removed(tmp_path: Path, network: fx.GraphModule) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    given = arguments(network)
    with pytest.raises(InputError, match="not a bundle") as caught:
        write_bundle(tmp_path, **given)
    assert "--force" in caught.value.hint
    assert [each.name for each in tmp_path.iterdir()] == ["notes.txt"]
    write_bundle(tmp_path, **given, force=True)
    assert is_bundle(tmp_path)
    write_bundle(tmp_path, **{**given, "plan_json": None})
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert not (tmp_path / "plan.json").exists()


def test_a_failure_leaves_what_was_there(
    tmp_path: Path, network: fx.GraphModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = arguments(network)
    write_bundle(tmp_path / "out", **given)
    before = (tmp_path / "out" / "report.md").read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(folder, "_put", fail)
    for name in ("out", "new"):
        with pytest.raises(InputError, match="disk full"):
            write_bundle(tmp_path / name, **{**given, "report_md": "other"})
    assert [each.name for each in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "report.md").read_bytes() == before


def test_check_output(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    check_output(tmp_path / "empty")
    check_output(tmp_path / "a" / "b")
    with pytest.raises(InputError, match="is a file"):
        check_output(tmp_path / "file", force=True)
    with pytest.raises(InputError, match="cannot be made"):
        check_output(tmp_path / "file" / "out")
    with pytest.raises(InputError, match="left alone"):
        check_output(tmp_path)
    check_output(tmp_path, force=True)


def _rewrite(file: Path, **changes: str | None) -> None:
    tensors = safetensors.torch.load_file(file)
    with safetensors.safe_open(file, "pt") as opened:
        metadata = {**opened.metadata(), **{f"compress.{key}": value for key, value in changes.items()}}
    kept = {key: value for key, value in metadata.items() if value is not None}
    safetensors.torch.save_file(tensors, file, kept)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": "compress.bundle/3"}, "compress.bundle/3"),
        ({"schema": None}, "no network"),
        ({"graph": "{"}, "damaged"),
        ({"graph": "[" * 100_000}, "damaged"),
        ({"graph": None}, "lacks 'compress.graph'"),
        ({"graph": "{}"}, "schema"),
        ({"graph": "3"}, "schema"),
        ({"provenance": "'"}, "damaged"),
    ],
)
def test_bad_bundles_are_explained(
    tmp_path: Path, network: fx.GraphModule, changes: dict[str, str | None], message: str
) -> None:
    file = write_bundle(tmp_path / "out", **arguments(network)) / "model.safetensors"
    _rewrite(file, **changes)
    with pytest.raises(InputError, match=message):
        load_bundle(file)


def test_what_is_no_bundle_is_explained(tmp_path: Path, network: fx.GraphModule) -> None:
    with pytest.raises(InputError, match="not a bundle"):
        load_bundle(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        read_metadata(tmp_path / "none")
    file = write_bundle(tmp_path / "out", **arguments(network)) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match="truncated"):
        load_bundle(tmp_path / "out")
    safetensors.torch.save_file({"a": torch.ones(1)}, file)
    with pytest.raises(InputError, match="no network"):
        load_bundle(tmp_path / "out")


def test_largest_error() -> None:
    assert largest_error([torch.tensor([1.0, 22.0])], [torch.tensor([1.0, 20.0])]) == pytest.approx(0.1)
    assert largest_error(torch.ones(2), torch.ones(3)) == float("inf")
    assert largest_error([torch.ones(2)], []) == float("inf")
    nan, inf = float("nan"), float("inf")
    assert largest_error(torch.tensor([nan, inf]), torch.tensor([nan, inf])) == 0.0
    assert largest_error(torch.tensor([nan]), torch.tensor([1.0])) == inf
    assert largest_error(torch.zeros(0), torch.zeros(0)) == 0.0


def test_long_metadata_is_packed_and_read_again() -> None:
    text = json.dumps({"kept": [list(range(500))] * 8})
    assert len(bundle.packed(text)) < len(text) / 2
    assert bundle._unpacked(bundle.packed(text)) == text
    assert bundle.packed("{}") == "{}"


@pytest.mark.parametrize("broken", ["zlib:!!", "zlib:AAAA", bundle.packed("x" * 4000)[:-8]])
def test_damaged_packed_metadata_is_refused(broken: str) -> None:
    with pytest.raises((ValueError, zlib.error)):
        bundle._unpacked(broken)


def test_many_zeros_are_packed_and_older_bundles_still_read(tmp_path: Path) -> None:
    graph = fx.Graph()
    x, weight = graph.placeholder("x"), graph.get_attr("weight")
    graph.output(graph.call_function(torch.ops.aten.linear.default, (x, weight)))
    layer = nn.Linear(100, 50, bias=False)
    with torch.no_grad():
        layer.weight[torch.rand(50, 100, generator=torch.Generator().manual_seed(0)) < 0.9] = 0
    network = fx.GraphModule(layer, graph)
    given = arguments(network)
    about: tuple[Any, None, dict[str, Any]] = (given["inputs"], None, {})
    dense, small = bundle_bytes(network, *about, pack=False), bundle_bytes(network, *about)
    nonzero = int(layer.weight.count_nonzero())
    assert 4 * nonzero + 625 < len(small) < 4 * nonzero + 625 + 1500 < len(dense) / 4
    for content, schema in ((dense, "compress.bundle/1"), (small, "compress.bundle/2")):
        (tmp_path / "model.safetensors").write_bytes(content)
        assert read_metadata(tmp_path)["schema"] == schema
        assert torch.equal(load_bundle(tmp_path).get_parameter("weight"), layer.weight)
    tensors = safetensors.torch.load(small)
    assert sorted(tensors) == ["weight.bitmap", "weight.values"]
    assert load_model(tmp_path).notes[0] == "tensors of many zeros that are packed as a bitmap and values: 1"
    _rewrite(tmp_path / "model.safetensors", stored="[]")
    with pytest.raises(InputError, match="damaged"):
        load_bundle(tmp_path)


def test_a_bundle_that_could_not_be_replaced_is_seen_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small").mkdir()
    check_output(tmp_path / "small")
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != tmp_path)
    with pytest.raises(InputError, match=r"cannot be made: .* is not a writable directory"):
        check_output(tmp_path / "small")
