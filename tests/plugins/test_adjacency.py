"""Adjacency matrices of a checkpoint: which are found, that they start as they are, become sparse and leave exactly."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compress.data import Split
from compress.errors import InputError, ModelError
from compress.graph import Coupling, analyse, mixing_matrices, remove_dead, trace
from compress.measure import latency_pair
from compress.plugin import Context
from compress.recover import InSession, finetune
from compress.retrain import folded, plan_of, start_session
from compress.testing import check_plugin
from compress.training import Training
from compress_plugins.adjacency import Adjacency, Related, isolated

writing = importlib.import_module("compress.pipeline.writing")
NODES = 8
ADAM = Training(epochs=15, batch_size=16, lr=0.1, optimizer="adamw", weight_decay=0.1, warmup=0, patience=0)
SHORT = Training(epochs=2, batch_size=16, lr=0.05, optimizer="adamw", warmup=0)


def ring(size: int = NODES, symmetric: bool = True) -> Tensor:
    """Each node and its two neighbours on a ring, rows and columns that sum to 1."""
    eye = torch.eye(size)
    turned = eye.roll(1, 1)
    return (eye + turned + turned.T) / 3 if symmetric else (eye + turned) / 2


class Graphs(nn.Module):
    """(N, nodes, 4) -> (N, 3), with one adjacency matrix in both layers."""

    mix: Tensor

    def __init__(self, matrix: Tensor | None = None, parameter: bool = False) -> None:
        super().__init__()
        matrix = ring() if matrix is None else matrix
        if parameter:
            self.mix = nn.Parameter(matrix)
        else:
            self.register_buffer("mix", matrix)
        self.first, self.second, self.head = nn.Linear(4, 10), nn.Linear(10, 10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.mix @ self.first(x))
        x = torch.relu(self.mix @ self.second(x))
        out: Tensor = self.head(x.mean(1))
        return out


def build() -> nn.Module:
    """For the command line."""
    torch.manual_seed(0)
    return Graphs().eval()


def coupled(module: nn.Module) -> Coupling:
    return analyse(trace(module.eval(), (torch.randn(2, NODES, 4),)))


def graphs(**options: Any) -> Coupling:
    torch.manual_seed(0)
    return coupled(Graphs(**options))


def samples(count: int = 96) -> Split:
    """The class is what node 0 has most of: the others say nothing."""
    x = torch.randn(count, NODES, 4, generator=torch.Generator().manual_seed(1))
    return Split(x, x[:, 0, :3].argmax(1))


def context_of(coupling: Coupling) -> Context:
    return Context(coupling, granularity="weight", has_budget=False)


def trained(method: Adjacency, coupling: Coupling, settings: Training = ADAM) -> tuple[Related, Any, Any, Any]:
    """The session, its training, the folded network under analysis, and the plan."""
    session = start_session(method, context_of(coupling))
    assert isinstance(session, Related)
    done = finetune(session.network, samples(), settings, hooks=[InSession(session)])
    after = analyse(folded(session, done.module, coupling.program))
    return session, done, after, plan_of(session, context_of(after))


@pytest.mark.parametrize("parameter", [False, True])
@pytest.mark.parametrize("normalise", ["balanced", "sinkhorn", "none"])
def test_the_start_is_the_network_as_it_was(parameter: bool, normalise: Any) -> None:
    coupling = graphs(parameter=parameter, matrix=ring(symmetric=False) * torch.arange(1.0, NODES + 1)[:, None])
    session = Adjacency(normalise=normalise).start(context_of(coupling))
    x = torch.randn(5, NODES, 4)
    assert float((session.network(x) - coupling.program.module(x)).abs().max().detach()) <= 1e-5
    learned = [m for m in session.network.modules() if hasattr(m, "row_threshold")]
    assert len(learned) == 1  # one for both layers
    assert not any(n == "mix" for n, p in session.network.named_parameters() if p.requires_grad)


@pytest.mark.parametrize("parameter", [False, True])
def test_relations_become_zero_and_the_result_is_exact(parameter: bool) -> None:
    session, done, after, plan = trained(Adjacency(lam=2.4), graphs(parameter=parameter))
    matrix = after.program.module.get_buffer("mix") if not parameter else after.program.module.get_parameter("mix")
    left = int(torch.count_nonzero(matrix))
    assert left < 3 * NODES and next(e["relations"] for e in done.history) == 3 * NODES
    assert done.history[-1]["relations"] == left and done.best == 15
    nonzero = sum(int(torch.count_nonzero(p)) for p in after.program.module.parameters())
    assert done.history[-1]["nonzero"] == nonzero
    x = torch.randn(6, NODES, 4)
    with torch.no_grad():
        assert float((after.program.module(x) - done.module(x)).abs().max()) <= 1e-5
    assert torch.equal(plan.masks["mix"], matrix != 0)
    assert plan.notes["mix"]["kept_weights"] == left and plan.notes["mix"]["relationship score, k=1"] == 1.0
    assert remove_dead(after, plan.masks).verification.error <= 1e-9
    (figure,) = plan.figures
    assert list(figure.series[0].y) == [e["relations"] for e in done.history]
    # Weight decay would have drawn every alpha to zero, and so all elements to the same
    assert "adjacency_0.learned.alpha" in set(session.undecayed())


def test_what_is_no_relation_stays_none() -> None:
    _, _, after, _ = trained(Adjacency(), graphs(), SHORT)
    assert not after.program.module.get_buffer("mix")[ring() == 0].any()


def test_from_all_to_all() -> None:
    session, _, after, plan = trained(Adjacency(begin="dense", sums="one", lam=0), graphs(), SHORT)
    found = after.program.module.get_buffer("mix")
    assert session.counts[0] == [0, NODES**2] and bool(found[ring() == 0].any())
    assert 0 < plan.notes["mix"]["relationship score, k=1"] < plan.notes["mix"]["relationship score, k=2"] < 1
    torch.testing.assert_close(found.sum(0), torch.ones(NODES), rtol=0, atol=1e-4)


def test_which_matrices_are_found() -> None:
    class Several(nn.Module):
        left: Tensor
        signed: Tensor
        right: Tensor
        named: Tensor
        table: Tensor
        scale: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("left", ring())
            self.register_buffer("signed", -ring())
            self.register_buffer("right", ring(4))
            self.register_buffer("named", ring())
            self.register_buffer("table", torch.ones(3, 4))
            self.register_buffer("scale", ring())
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.left.T @ self.layer(x) + self.signed @ x
            x = torch.einsum("ij,bjf->bif", self.named, x) @ self.right + (self.scale * 2) @ x
            return (self.table @ x.transpose(1, 2)).mean(2)

    program = trace(Several().eval(), (torch.randn(2, NODES, 4),))
    assert list(mixing_matrices(program.module)) == ["left", "signed", "named", "right"]
    context = context_of(analyse(program))
    assert list(Adjacency().start(context).given) == ["left", "named", "right"]
    assert list(Adjacency(matrix="named").start(context).given) == ["named"]
    with pytest.raises(InputError, match="--matrix signed has negative elements") as found:
        Adjacency(matrix="signed").start(context)
    assert found.value.hint == "matrices are left, named, right"
    with pytest.raises(InputError, match="--matrix scale is no adjacency matrix"):
        Adjacency(matrix="scale").start(context)


def test_a_network_without_a_graph() -> None:
    mlp = analyse(trace(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval(), (torch.randn(2, 4),)))
    with pytest.raises(ModelError, match="no adjacency matrix: a square parameter or buffer A"):
        Adjacency().start(context_of(mlp))
    with pytest.raises(ModelError, match="no adjacency matrix: a square parameter or buffer A"):
        Adjacency(matrix="0.weight").start(context_of(mlp))
    with pytest.raises(ModelError, match="A @ H: mix has negative elements"):
        Adjacency().start(context_of(graphs(matrix=-ring())))


def test_isolated_nodes_by_hand() -> None:
    assert isolated(torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 2.0], [0.0, 0.0, 1.0]])) == [0]
    alone = torch.block_diag(ring(NODES - 2), torch.eye(2))
    _, _, _, plan = trained(Adjacency(lam=0), graphs(matrix=alone), SHORT)
    assert plan.notes["mix"]["isolated nodes"] == [6, 7]
    assert plan.notes["mix"]["warning"] == "2 of 8 nodes have no relation to others any more: 6, 7"


@pytest.mark.parametrize(
    ("options", "said"), [({"lam": -1.0}, "lam: must be 0"), ({"p": 1.0}, "p: must be"), ({"iterations": 0}, "iterat")]
)
def test_options_that_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Adjacency(**options)


def test_the_contract() -> None:
    torch.manual_seed(0)
    check_plugin(Adjacency(lam=0.8), [("graph network", Graphs().eval(), (torch.randn(2, NODES, 4),))])


def test_from_file_to_file(invoke: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "site" / "elsewhere-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[compress.retrain]\nrelations = compress_plugins.adjacency:Adjacency\n")
    monkeypatch.syspath_prepend(str(info.parent))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(writing, "reloaded", lambda *_: 0.0)
    monkeypatch.setattr(writing, "latency_pair", lambda *a, **k: latency_pair(*a, **k, min_seconds=0, min_runs=2))
    torch.save(build().state_dict(), "graphs.pt")
    train, test = samples(64), samples(32)
    arrays = {"x_train": train.inputs, "y_train": train.targets, "x_test": test.inputs, "y_test": test.targets}
    numbers: dict[str, Any] = {name: tensor.numpy() for name, tensor in arrays.items()}
    np.savez("graphs.npz", **numbers)
    words = ("--arch", f"{__file__}:build", "--input-shape", "8,4", "--data", "npz:graphs.npz", "--lam", "2.4")
    done = invoke("retrain", "graphs.pt", "--mode", "relations", *words, "--epochs", "3", "--optimizer", "adamw")
    assert done.code == 0, done.err
    report = json.loads(Path("compressed/report.json").read_text("utf-8"))
    assert report["verification"]["slice"] < 1e-9 and len(report["history"]) == 4
    assert "relationship score, k=1" in Path("compressed/report.md").read_text("utf-8")
