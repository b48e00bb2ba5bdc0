from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from compress.calibration.layers import Layers, is_layer
from compress.graph import trace
from compress.recover import jointly as module
from compress.recover.jointly import Budget, jointly
from compress.recover.newton import Joint
from compress.recover.window import Window, window


def drawn() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def opened(net: nn.Module, x: Tensor) -> tuple[Layers, Window, list[dict[fx.Node, Any]]]:
    """The window of the last layer, and what it reads in batches of eight."""
    graph = trace(net.eval(), (x[:2],)).module
    layers, nodes = Layers(graph), list(graph.graph.nodes)
    last = [n for n in nodes if is_layer(n)][-1]
    part = window(nodes, last, lambda node: not layers.obstacle(node))
    read = {*part.inputs, *(s for s in last.all_input_nodes if s.op != "get_attr")}

    class Run(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            seen[n] = super().run_node(n)
            return seen[n]

    envs = []
    for batch in x.split(8):
        seen: dict[fx.Node, Any] = {}
        with torch.no_grad():
            Run(graph).run(batch)
        envs.append({n: v for n, v in seen.items() if n in read})
    return layers, part, envs


def linear() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3))


def test_what_is_run_is_the_network() -> None:
    net, x = linear(), torch.randn(16, 4)
    layers, part, envs = opened(net, x)
    joint = Joint(part, layers, drawn())
    with torch.no_grad():
        torch.testing.assert_close(torch.cat([joint.end(joint.zero(), e) for e in envs]), net(x))
        assert joint.error(joint.zero(), envs, list(net(x).split(8))) < 1e-9
        assert joint.error(joint.zero(), envs, [t + 1 for t in net(x).split(8)]) == pytest.approx(48, rel=1e-4)


def test_a_step_goes_down_and_near_the_targets_all_the_way() -> None:
    net, x = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)), torch.randn(64, 4)
    layers, part, envs = opened(net, x)
    with torch.no_grad():
        goal = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
        for old, new in zip(net.parameters(), goal.parameters(), strict=True):
            new.copy_(old + 0.05 * torch.randn_like(old))
        targets = list(goal(x).split(8))
    joint = Joint(part, layers, drawn())
    with torch.no_grad():
        step = joint.step(joint.zero(), envs, targets)
        assert joint.error(step, envs, targets) < 0.3 * joint.error(joint.zero(), envs, targets)
    weight = torch.zeros_like(step["2.weight"], requires_grad=True)
    with torch.enable_grad():
        loss = sum(
            ((joint.end({"2.weight": weight}, e) - t).square().sum() for e, t in zip(envs, targets, strict=True))
        )
        (gradient,) = torch.autograd.grad(loss, weight)
    assert float((gradient * step["2.weight"]).sum()) < 0


def test_one_layer_is_solved_as_least_squares_solve_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compress.recover.newton.ITERATIONS", 30)
    net, x = nn.Sequential(nn.Linear(4, 3)), torch.randn(64, 4)
    layers, part, envs = opened(net, x)
    targets = torch.randn(64, 3)
    joint = Joint(part, layers, drawn())
    with torch.no_grad():
        step = joint.step(joint.zero(), envs, list(targets.split(8)))
        joint.write(step)
    design = torch.cat([x, torch.ones(64, 1)], 1)
    expected = torch.linalg.lstsq(design, targets).solution
    torch.testing.assert_close(layers.tensor_named("0.weight"), expected[:4].T, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(layers.tensor_named("0.bias"), expected[4], rtol=1e-3, atol=1e-4)


class Rectified(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(2, 3, 3, bias=False), nn.Conv2d(3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(2)
        self.norm.running_mean = torch.randn(2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.two(torch.tanh(self.one(x)))))


def test_what_a_relu_hides_is_no_error_and_norms_carry_the_shift() -> None:
    net, x = Rectified(), torch.randn(32, 2, 6, 6)
    layers, part, envs = opened(net, x)
    assert part.rectified
    joint = Joint(part, layers, drawn())
    with torch.no_grad():
        out = [joint.end(joint.zero(), e) for e in envs]
        hidden = [torch.where(o > 0, o, o - 3) for o in out]
        assert joint.error(joint.zero(), envs, hidden) == 0
        assert all(float(s.abs().max()) < 1e-6 for s in joint.step(joint.zero(), envs, hidden).values())
        change = joint.zero()
        change[joint.shifts[part.layers[-1]]] += torch.tensor([0.5, -1.0])
        moved = joint.end(change, envs[0])
        joint.write(change)
        torch.testing.assert_close(joint.end({}, envs[0]), moved)


def test_a_joint_refit_helps_where_layers_alone_cannot() -> None:
    """Six hidden units of a network of eight: the first layer has to turn towards what was lost."""
    wide = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).eval()
    x = torch.randn(400, 4)
    small = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    with torch.no_grad():
        small[0].weight.copy_(wide[0].weight[:6])  # type: ignore[operator, index]
        small[0].bias.copy_(wide[0].bias[:6])  # type: ignore[operator, index]
        targets = list(wide(x).split(8))
    layers, part, envs = opened(small, x)
    ratio = jointly(part, layers, envs, targets, 10, Budget(1), drawn())
    assert isinstance(ratio, float)
    assert ratio < 0.3
    with torch.no_grad():
        read = part.layers[-1].all_input_nodes[0]
        torch.testing.assert_close(envs[0][read], torch.tanh(nn.functional.linear(x[:8], *_first(layers))))


def _first(layers: Layers) -> tuple[Tensor, Tensor]:
    return layers.tensor_named("0.weight"), layers.tensor_named("0.bias")


def test_why_nothing_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = linear(), torch.randn(160, 4)
    with torch.no_grad():
        exact = list(net(x).split(8))
    layers, part, envs = opened(net, x)
    weight = layers.tensor_named("0.weight").clone()

    def reason(targets: list[Tensor] | None = None) -> object:
        return jointly(part, layers, envs, targets or exact, 4, Budget(1), drawn())

    assert reason() == "a joint refit does not help on held-out data"
    broken = [{n: v + 1 if n not in part.inputs else v for n, v in e.items()} for e in envs]
    assert jointly(part, layers, broken, exact, 4, Budget(1), drawn()) == "what it reads is overwritten in place"
    monkeypatch.setattr(module, "_WORK", 1.0)
    assert reason() == "too large for a joint refit"
    monkeypatch.setattr(module, "MAX_FEATURES", 5)
    assert reason() == "1.weight has 6 inputs, too many for a joint refit"
    assert torch.equal(layers.tensor_named("0.weight"), weight)


def test_an_operation_without_a_derivative() -> None:
    class Stepped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.two(torch.special.gammaincc(self.one(x).square() + 1, torch.ones(6)))
            return out

    x = torch.rand(160, 4)
    layers, part, envs = opened(Stepped(), x)
    found = jointly(part, layers, envs, [torch.randn(8, 3) for _ in envs], 4, Budget(1), drawn())
    assert str(found).startswith("cannot be linearised: ")
