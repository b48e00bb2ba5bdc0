from __future__ import annotations

import builtins
import copy
import json
import math
import operator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, fx, nn

from compress.errors import InputError, ModelError
from compress.graph.serial import graph_from_json, graph_tensors, graph_to_json
from compress.graph.serial_values import decode, encode, function
from compress.graph.trace import plain

BATCH = torch.export.Dim.DYNAMIC


def exported(module: nn.Module, *args: Any, shapes: Any = None) -> fx.GraphModule:
    shapes = shapes or tuple({0: BATCH} for _ in args)
    program = torch.export.export(module.eval(), args, strict=False, dynamic_shapes=shapes)
    return plain(program.module(check_guards=False))


def again(gm: fx.GraphModule) -> fx.GraphModule:
    """Through JSON text and copies of the tensors."""
    tensors = {name: tensor.detach().clone() for name, tensor in graph_tensors(gm).items()}
    return graph_from_json(json.loads(json.dumps(graph_to_json(gm), allow_nan=False)), tensors)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.norm(self.conv(x)).relu_().mean((2, 3))
        return self.head(pooled.view(x.shape[0] * 2, 2).reshape(-1, 4))


def test_round_trip_runs_on_any_batch_and_keeps_names_and_roles() -> None:
    model = Small()
    model.conv.weight.requires_grad_(False)
    made = again(exported(model, torch.randn(2, 3, 6, 6)))
    x = torch.randn(5, 3, 6, 6)
    assert torch.equal(made(x), model(x))
    assert set(made.state_dict()) == set(model.state_dict())
    assert {n: p.requires_grad for n, p in made.named_parameters()} == {
        "conv.weight": False, "conv.bias": True, "norm.weight": True, "norm.bias": True,
        "head.weight": True, "head.bias": True,
    }  # fmt: skip
    assert graph_to_json(made) == graph_to_json(exported(model, torch.randn(2, 3, 6, 6)))


def test_the_module_behaves_like_any_other() -> None:
    model = Small()
    made = again(exported(model, torch.randn(2, 3, 6, 6)))
    x = torch.randn(3, 3, 6, 6, dtype=torch.float64)
    assert not made.training
    assert made.train().training
    assert torch.allclose(copy.deepcopy(made).eval().double()(x), copy.deepcopy(model).double()(x))
    made.to("cpu")(x.float()).sum().backward()
    assert made.get_parameter("head.weight").grad is not None
    traced = exported(made, torch.randn(2, 3, 6, 6))
    assert torch.equal(traced(x.float()), model(x.float()))


def test_nodes_remember_the_module_they_came_from() -> None:
    made = again(exported(Small(), torch.randn(2, 3, 6, 6)))
    calls = [node for node in made.graph.nodes if node.op == "call_function" and "conv" in node.name]
    stacks = {node.name: list(node.meta["nn_module_stack"].values())[-1] for node in calls}
    assert stacks == {"conv2d": ("conv", "torch.nn.modules.conv.Conv2d")}


class Pair(NamedTuple):
    first: Tensor
    second: Tensor


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("scale", torch.ones(4))
        self.register_buffer("hidden", torch.ones(4), persistent=False)

    def forward(self, x: Tensor, extra: dict[str, Tensor], *, factor: Tensor) -> Any:
        with torch.no_grad():
            frozen = self.layer(x) * 2
        moved = x + torch.tensor([1.0, 2.0, 3.0, 4.0])
        pair = Pair(frozen + self.scale + self.hidden, self.layer(x))
        return {"sum": moved + extra["k"].sum(), "pair": pair, "list": [factor * x]}


def test_nested_inputs_outputs_subgraphs_and_constants() -> None:
    model = Nested()
    args, kwargs = (torch.randn(2, 4), {"k": torch.randn(2, 4)}), {"factor": torch.randn(2, 1)}
    shapes = {"x": {0: BATCH}, "extra": {"k": {0: BATCH}}, "factor": {0: BATCH}}
    program = torch.export.export(model, args, kwargs, strict=False, dynamic_shapes=shapes)
    gm = plain(program.module(check_guards=False))
    assert any(isinstance(child, fx.GraphModule) for child in gm.children())
    made = again(gm)
    x, extra, factor = torch.randn(3, 4), {"k": torch.randn(3, 4)}, torch.randn(3, 1)
    expected, found = model(x, extra, factor=factor), made(x, extra, factor=factor)
    assert list(found) == ["sum", "pair", "list"]
    assert torch.equal(found["sum"], expected["sum"])
    assert isinstance(found["pair"], tuple)
    assert all(torch.equal(a, b) for a, b in zip(found["pair"], expected["pair"], strict=True))
    assert torch.equal(found["list"][0], expected["list"][0])
    assert not found["pair"][0].requires_grad
    assert found["pair"][1].requires_grad


def test_several_outputs() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x + 1, x.flatten(1)[:, ::2]

    x = torch.randn(3, 2, 4)
    found = again(exported(Two(), torch.randn(2, 2, 4)))(x)
    assert isinstance(found, tuple)
    assert torch.equal(found[1], x.flatten(1)[:, ::2])


def test_tied_tensors_are_stored_once_and_stay_tied() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(10, 4)
            self.out = nn.Linear(4, 10, bias=False)
            self.out.weight = self.embed.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.embed(x))

    gm = exported(Tied(), torch.zeros(2, 3, dtype=torch.long))
    assert len(graph_tensors(gm)) == 1
    made = again(gm)
    assert sum(p.numel() for p in made.parameters()) == 40
    twice = dict(made.named_parameters(remove_duplicate=False))
    assert twice["embed.weight"] is twice["out.weight"]


def test_graphs_without_pytree_signature_round_trip() -> None:
    graph = fx.Graph()
    x = graph.placeholder("x", default_value=None)
    graph.output({"a": (graph.call_function(torch.ops.aten.relu.default, (x,)), [x])})
    made = again(fx.GraphModule(nn.Module(), graph))
    sample = torch.tensor([-1.0, 2.0])
    assert made(sample)["a"][0].tolist() == [0.0, 2.0]
    assert made(sample)["a"][1][0] is sample


@pytest.mark.parametrize(
    "value",
    [
        None, True, 3, -2.5, 1.0, math.inf, -math.inf, "text 'quoted'", 1 + 2j, complex(0, math.inf), ...,
        torch.float16, torch.bool, torch.device("cpu"), torch.device("cuda", 1), torch.strided,
        torch.channels_last, slice(None, 3, None), [1, (2, [3.5, None])], {"a": [1], 2: ()},
    ],
)  # fmt: skip
def test_every_kind_of_argument_comes_back(value: Any) -> None:
    found = decode(json.loads(json.dumps(encode(value), allow_nan=False)), {})
    assert found == value
    assert type(found) is type(value)
    assert math.isnan(decode(encode(math.nan), {}))


def test_what_cannot_be_stored_is_named() -> None:
    graph = fx.Graph()
    graph.output(graph.call_function(print, (graph.placeholder("x"),)))
    with pytest.raises(ModelError, match="print"):
        graph_to_json(fx.GraphModule(nn.Module(), graph))
    graph = fx.Graph()
    graph.output(graph.call_method("numpy", (graph.placeholder("x"),)))
    with pytest.raises(ModelError, match="numpy"):
        graph_to_json(fx.GraphModule(nn.Module(), graph))
    with pytest.raises(ModelError, match="Tensor"):
        encode(torch.ones(1))


@pytest.mark.parametrize(
    "name",
    [
        "os.system", "builtins.eval", "operator.attrgetter", "operator.methodcaller", "operator.call",
        "math.pow", "torch.load", "torch.hub.load", "torch.os.system", "torch.ops.load_library",
        "torch.ops.aten.from_file", "torch.ops.aten.from_file.default", "torch.ops.aten.save.default",
        "torch.ops.aten.relu.__class__", "torch.ops.image.read_file.default", "torch.ops.aten.__class__.mro",
        "torch.ops.higher_order.__class__", "torch.sym_int.__globals__", "eval", "", 3, None,
        ["torch.ops.aten.relu.default"],
    ],
)  # fmt: skip
def test_a_file_reaches_no_function_beyond_the_list(name: Any) -> None:
    with pytest.raises(InputError, match="not an operation"):
        function(name)


def _relu() -> dict[str, Any]:
    return {
        "schema": "compress.graph/1",
        "tensors": {"w": {"kind": "buffer"}},
        "owners": [],
        "graph": {
            "graphs": {},
            "nesting": None,
            "nodes": [
                {"op": "placeholder", "name": "x", "target": "x"},
                {"op": "get_attr", "name": "w", "target": "w"},
                {"op": "call_function", "name": "y", "target": "operator.add",
                 "args": [{"node": "x"}, {"node": "w"}]},
                {"op": "output", "name": "output", "args": [{"node": "y"}]},
            ],
        },
    }  # fmt: skip


def _change(data: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    *folders, leaf = path.split("/")
    inner: Any = data
    for folder in folders:
        inner = inner[int(folder) if isinstance(inner, list) else folder]
    inner[int(leaf) if isinstance(inner, list) else leaf] = value
    return data


EVIL = 'x=__import__("os").system("touch owned")'


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("graph/nodes/0/target", EVIL),
        ("graph/nodes/0/name", EVIL),
        ("graph/nodes/1/target", f'w"]); {EVIL} #'),
        ("graph/nodes/1/target", "forward.__globals__"),
        ("graph/nodes/1/target", "_call_impl"),
        ("graph/nodes/1/target", "__class__"),
        ("graph/nodes/2/target", "builtins.eval"),
        ("graph/nodes/2/kwargs", {EVIL: 1}),
        ("graph/nodes/2/op", "call_method"),
        ("graph/nodes/2/op", "call_module"),
        ("graph/nodes/2/args", [{"object": "x"}]),
        ("graph/nodes/2/args", [{"node": "later"}]),
        ("graph/nodes/2/args", [{"dtype": "os"}]),
        ("graph/nodes/2/name", "w"),
        ("graph/nodes/3/args", []),
        ("graph/nodes/3", {"op": "output"}),
        ("graph/nodes", 7),
        ("graph/nesting", {"arguments": [EVIL], "inputs": {"tuple": ["*"]}, "outputs": "*"}),
        ("graph/nesting", {"arguments": ["x"], "inputs": {"tuple": ["*", "*"]}, "outputs": "*"}),
        ("graph/nesting", {"arguments": ["x"], "outputs": "*",
                           "inputs": {"tuple": [{"tuple": []}, {"dict": [[EVIL + "'", "*"]]}]}}),
        ("graph/nesting", {"arguments": ["x"], "inputs": {"object": ["*"]}, "outputs": "*"}),
        ("graph/graphs", {"forward": {"nodes": [], "nesting": None, "graphs": {}}}),
        ("tensors", {"forward": {"kind": "buffer", "same_as": "w"}}),
        ("tensors", {"missing": {"kind": "buffer"}}),
        ("tensors/w", None),
        ("schema", "compress.graph/2"),
        ("owners", [["only one"]]),
    ],
)  # fmt: skip
def test_a_damaged_or_malicious_graph_is_refused(
    path: str, value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert graph_from_json(_relu(), {"w": torch.ones(1)})(torch.ones(1)).item() == 2.0
    with pytest.raises(InputError):
        graph_from_json(_change(_relu(), path, value), {"w": torch.ones(1)})
    assert list(tmp_path.iterdir()) == []


def test_deep_nesting_is_refused() -> None:
    deep: Any = "*"
    for _ in range(100_000):
        deep = {"tuple": [deep]}
    with pytest.raises(InputError, match="deep"):
        graph_from_json(
            _change(_relu(), "graph/nesting", {"arguments": ["x"], "inputs": deep, "outputs": "*"}),
            {"w": torch.ones(1)},
        )


def test_listed_functions_cannot_call_others() -> None:
    for name in ("add", "getitem", "floordiv"):
        assert function(f"operator.{name}") is getattr(operator, name)
    assert not any(function_ in vars(builtins).values() for function_ in (operator.add, math.trunc))
