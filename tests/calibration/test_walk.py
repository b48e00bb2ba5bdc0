from __future__ import annotations

import torch
from torch import Tensor, nn

from compress.calibration.walk import Walker, affordable
from compress.graph import analyse, trace


class Wide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 1000), nn.Linear(1000, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.first(x))
        return out


def test_values_are_dropped_after_their_last_use_or_when_held_until_then() -> None:
    net, x = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)).eval(), torch.randn(6, 2)
    graph = trace(net, (x[:2],)).module
    first, relu, last = (n for n in graph.graph.nodes if n.op == "call_function")
    plain, holding = Walker(graph, [(x[:3],), (x[3:],)]), Walker(graph, [(x[:3],), (x[3:],)], {first: last})
    for walker, kept in ((plain, False), (holding, True)):
        walker.run_to(relu)
        assert walker.has(first) == kept
        walker.run_to(last)
        assert not walker.has(first)
        torch.testing.assert_close(torch.cat(walker.values(last)), net(x))


def test_what_is_held_costs_memory() -> None:
    coupling = analyse(trace(Wide().eval(), (torch.randn(2, 4),)))
    first, second = (n for n in coupling.program.module.graph.nodes if n.op == "call_function")
    # At the widest point 1000 + 2 float32 values of both networks are alive.
    assert affordable(coupling, memory=2 * 4 * 1002 * 10) == 10
    output = next(n for n in coupling.program.module.graph.nodes if n.op == "output")
    assert affordable(coupling, memory=2 * 4 * 1002 * 10, hold={first: output}) == 10
    assert second in output.all_input_nodes
