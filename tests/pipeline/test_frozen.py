"""Frozen parameters keep their size, on every way that a flag can take from a file to a report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from compress.checkpoint.bundle import load_bundle
from compress.errors import InputError, ModelError
from compress.graph import Coupling, analyse, trace
from compress.plugin import Context
from compress.report import markdown

SHAPE = ("--input-shape", "6")
REASON = "requires_grad is False; --allow-frozen prunes it"
FACTORY = '''
from torch import nn


def build(frozen=("first",)):
    """Three layers; which are frozen is said by the factory."""
    parts = {"first": nn.Linear(6, 8), "second": nn.Linear(8, 10), "third": nn.Linear(10, 3)}
    net = nn.Sequential()
    for name, part in parts.items():
        net.add_module(name, part.requires_grad_(name not in frozen))
    return net
'''


def network(*frozen: str) -> nn.Module:
    made: dict[str, Any] = {}
    exec(FACTORY, made)
    net: nn.Module = made["build"](frozen)
    return net.eval()


def coupled(net: nn.Module, **options: bool) -> Coupling:
    return analyse(trace(net, (torch.randn(2, 6),)), **options)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(FACTORY)
    torch.save(network().state_dict(), "plain.pt")
    return tmp_path


def widths(folder: str) -> list[list[int]]:
    return [list(p.shape) for n, p in load_bundle(folder).named_parameters() if n.endswith("weight")]


def flags(module: nn.Module) -> dict[str, bool]:
    return {n: p.requires_grad for n, p in module.named_parameters()}


FROM_FIRST = {"first.weight": False, "first.bias": False}
REST = {"second.weight": True, "second.bias": True, "third.weight": True, "third.bias": True}


def test_groups_leave_out_what_reaches_into_a_frozen_parameter() -> None:
    net = network("second")
    assert [g.name for g in Context(coupled(net, allow_frozen=True)).groups] == ["first", "second"]
    with pytest.raises(ModelError, match="nothing to prune: every parameter of second is frozen"):
        _ = Context(coupled(net)).groups  # the outputs of `first` are the columns of `second`
    context = Context(coupled(network("first")))
    assert [g.name for g in context.groups] == ["second"]
    assert list(context.layers()) == ["second.weight", "third.weight"]


def test_one_frozen_tensor_is_enough() -> None:
    net: Any = network()
    net.second.bias.requires_grad_(False)
    assert [g.name for g in Context(coupled(net)).groups] == ["first"]
    with pytest.raises(ModelError, match=r"every parameter of second\.bias is frozen") as caught:
        _ = Context(coupled(net), only=("second",)).groups
    assert caught.value.hint == "unfreeze it, or say --allow-frozen"


def test_buffers_are_not_frozen() -> None:
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8, affine=False), nn.Linear(8, 3)).eval()
    assert [g.name for g in Context(coupled(net)).groups] == ["0"]


def test_a_model_that_is_frozen_as_a_whole() -> None:
    net = network("first", "second", "third")
    with pytest.raises(ModelError, match="nothing to prune: every parameter of the model is frozen"):
        _ = Context(coupled(net)).groups
    assert len(Context(coupled(net, allow_frozen=True)).groups) == 2


def test_globs_know_frozen_layers() -> None:
    coupling = coupled(network("first"))
    with pytest.raises(ModelError, match="nothing to prune: every parameter of first is frozen"):
        _ = Context(coupling, only=("first", "second")).groups
    assert [g.name for g in Context(coupling, exclude=("first",)).groups] == ["second"]
    with pytest.raises(InputError, match="no prunable layer matches 'fist'") as caught:
        _ = Context(coupling, only=("fist",)).groups
    assert "first" in caught.value.hint
    with pytest.raises(ModelError, match="no group of units may lose one"):  # frozen or not
        _ = Context(coupling, exclude=("first", "second")).groups


def test_heads_of_a_frozen_attention_stay() -> None:
    net = nn.Sequential(nn.Linear(6, 8), nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)).eval()
    net[1].self_attn.requires_grad_(False)
    coupling = analyse(trace(net, (torch.randn(2, 5, 6),)))
    assert [g.name for g in coupling.groups] == ["1.linear1"]


def test_the_command_leaves_frozen_layers_of_a_factory_alone(place: Path, invoke: Callable[..., Any]) -> None:
    arch = ("--arch", "nets.py:build", *SHAPE)
    done = invoke("prune", "plain.pt", *arch, "--ratio", "0.5", "--json", "-o", "kept")
    assert done.code == 0, done.err
    assert widths("kept") == [[8, 6], [5, 8], [3, 5]]
    assert flags(load_bundle("kept")) == FROM_FIRST | REST
    report = json.loads(done.out)
    pins = {(p["op"], p["where"], p["reason"]) for p in report["pins"]}
    assert ("frozen", "first.weight, dim 0", REASON) in pins
    assert ("frozen", "second.weight, dim 1", f"tied to a parameter whose {REASON}") in pins
    assert ("output", "third.weight, dim 0", "an output of the network keeps its size") in pins
    assert REASON in markdown(report)
    assert next(x for x in report["layers"] if x["name"] == "first")["frozen"] == REASON
    done = invoke("prune", "plain.pt", *arch, "--ratio", "0.5", "--allow-frozen", "-o", "all")
    assert done.code == 0, done.err
    assert widths("all") == [[4, 6], [5, 4], [3, 5]]
    assert flags(load_bundle("all")) == FROM_FIRST | REST
    assert "allow_frozen = true" in Path("all", "recipe.toml").read_text()


def test_a_state_dict_alone_freezes_nothing(place: Path, invoke: Callable[..., Any]) -> None:
    torch.save(network("first", "second", "third").state_dict(), "frozen.pt")
    arch = ("--arch", "nets.py:build", "--arch-args", '{"frozen": []}', *SHAPE)
    done = invoke("prune", "frozen.pt", *arch, "--ratio", "0.5", "-o", "small")
    assert done.code == 0, done.err
    assert widths("small") == [[4, 6], [5, 4], [3, 5]]


@pytest.mark.parametrize("form", ["exported", "pickled", "bundle"])
def test_flags_in_the_file(place: Path, invoke: Callable[..., Any], form: str) -> None:
    net = network("first")
    words = {"exported": ["net.pt2"], "pickled": ["net.pt", "--trust-pickle", *SHAPE], "bundle": ["before"]}[form]
    if form == "exported":
        torch.export.save(torch.export.export(net, (torch.randn(2, 6),)), "net.pt2")
    elif form == "pickled":
        torch.save(net, "net.pt")
    else:
        arch = ("--arch", "nets.py:build", *SHAPE)
        assert invoke("prune", "plain.pt", *arch, "--ratio", "0.1", "-o", "before").code == 0
    done = invoke("prune", *words, "--ratio", "0.5", "-o", "small")
    assert done.code == 0, done.err
    first, second, _ = widths("small")
    assert first == [8, 6]
    assert second == [5, 8]  # of ten; of the nine that the first run left, where a half goes to keeping
    assert flags(load_bundle("small")) == FROM_FIRST | REST


def test_an_export_that_is_frozen_as_a_whole_says_so(place: Path, invoke: Callable[..., Any]) -> None:
    net = network("first", "second", "third")
    torch.export.save(torch.export.export(net, (torch.randn(2, 6),)), "net.pt2")
    done = invoke("prune", "net.pt2", "--ratio", "0.5", "-o", "small")
    assert done.code == 3
    assert "nothing to prune: every parameter of the model is frozen" in done.err
    assert "unfreeze it, or say --allow-frozen" in done.err
    assert not Path("small").exists()
    done = invoke("prune", "net.pt2", "--ratio", "0.5", "-o", "small", "--allow-frozen")
    assert done.code == 0, done.err
    assert widths("small") == [[4, 6], [5, 4], [3, 5]]


def test_only_a_frozen_layer(place: Path, invoke: Callable[..., Any]) -> None:
    words = ("prune", "plain.pt", "--arch", "nets.py:build", *SHAPE, "--only", "first", "-o", "small")
    done = invoke(*words)
    assert done.code == 3
    assert "nothing to prune: every parameter of first is frozen" in done.err
    assert invoke(*words, "--allow-frozen").code == 0
    assert widths("small") == [[6, 6], [10, 6], [3, 10]]


def test_inspect_names_them(place: Path, invoke: Callable[..., Any]) -> None:
    done = invoke("inspect", "plain.pt", "--arch", "nets.py:build", *SHAPE, "--json")
    assert done.code == 0, done.err
    kept = {k["where"]: k["reason"] for k in json.loads(done.out)["frozen"]}
    assert kept["first.weight dim 0 (8)"] == kept["first.bias dim 0 (8)"] == REASON
    assert kept["second.weight dim 1 (8)"] == f"tied to a parameter whose {REASON}"
    assert kept["first.weight dim 1 (6)"].startswith("meets the network's input")
    page = invoke("inspect", "plain.pt", "--arch", "nets.py:build", *SHAPE)
    assert f"first.weight dim 0 (8), first.bias dim 0 (8)  {REASON}" in page.out


def test_the_refit_leaves_frozen_weights_alone(place: Path, invoke: Callable[..., Any]) -> None:
    (place / "data.py").write_text(
        "import torch\n\n\ndef load():\n"
        "    x = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))\n"
        "    return x[:50], (x[:50, 0] > 0).long(), x[50:], (x[50:, 0] > 0).long()\n"
    )
    before = torch.load("plain.pt", weights_only=True)
    words = ("prune", "plain.pt", "--arch", "nets.py:build", *SHAPE, "--data", "data.py:load", "--ratio", "0.5")
    done = invoke(*words, "-o", "small", "--json")
    assert done.code == 0, done.err
    after = load_bundle("small").state_dict()
    assert torch.equal(after["first.weight"], before["first.weight"])
    assert not torch.equal(after["third.weight"][:, 0], before["third.weight"][:, 0])
    notes = json.loads(done.out)["method"]["notes"]
    assert notes["first.weight"] == {"not refitted": "its weight is frozen"}
