"""A bench for small networks: build, analyse, remove at random, slice, compare in two independent ways."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from compress.budget import at_steps
from compress.graph import Coupling, Verification, analyse, clusters, slice_graph, trace, verify
from compress.graph.double import as_double, double_by_default


class Network(nn.Module):
    """``forward(self, *inputs)`` given as a function, its layers and parameters by name."""

    def __init__(self, forward: Callable[..., Any], parts: dict[str, Any]) -> None:
        super().__init__()
        self.function = forward
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self, *inputs)


@dataclass(frozen=True)
class Outcome:
    """A network, what was removed from it, and how exact the slice is."""

    module: nn.Module
    coupling: Coupling
    alive: Any
    sliced: fx.GraphModule
    verification: Verification


class Lab:
    """What the tests of the engine share."""

    def network(self, forward: Callable[..., Any], **parts: Any) -> nn.Module:
        return self.randomised(Network(forward, parts).eval())

    def randomised(self, module: nn.Module, seed: int = 0) -> nn.Module:
        """Every tensor drawn at random: zeros and ones would hide mistakes."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for tensor in [*module.parameters(), *module.buffers()]:
                if tensor.is_floating_point():
                    vector = tensor.squeeze().dim() <= 1
                    drawn = torch.rand(tensor.shape, generator=generator) + 0.5
                    tensor.copy_(drawn if vector else torch.randn(tensor.shape, generator=generator) / 2)
        return module

    def analyse(self, module: nn.Module, *inputs: Tensor, prune_outputs: bool = False) -> Coupling:
        return analyse(trace(module, inputs), prune_outputs=prune_outputs)

    def removal(self, coupling: Coupling, ratio: float = 0.4, seed: int = 0) -> Any:
        """By label what stays when every cluster loses a share of its units at random."""
        rng = np.random.default_rng(seed)
        found = [c for c in clusters(coupling) if c.steps > 1]
        scores = {g.name: rng.random(g.size) for g in coupling.groups}
        steps = [min(c.steps - 1, max(1, round(ratio * c.steps))) for c in found]
        return coupling.alive(at_steps(coupling, found, scores, steps))

    def prune(self, module: nn.Module, *inputs: Tensor, ratio: float = 0.4, **options: Any) -> Outcome:
        return self.cut(module, self.analyse(module, *inputs, **options), ratio)

    def cut(self, module: nn.Module, coupling: Coupling, ratio: float = 0.4) -> Outcome:
        alive = self.removal(coupling, ratio)
        sliced = slice_graph(coupling, alive)
        return Outcome(module, coupling, alive, sliced, verify(coupling, alive, sliced))

    def check(self, module: nn.Module, *inputs: Tensor, groups: dict[str, int], zeroing: bool = True) -> Coupling:
        """The groups are found, a small and a large slice are exact, and any batch can be run."""
        coupling = self.analyse(module, *inputs)
        sizes = self.sizes(coupling)
        assert {n: sizes.get(n) for n in groups} == groups, sizes
        for ratio in (0.3, 0.6):
            outcome = self.cut(module, coupling, ratio)
            assert outcome.verification.passed, outcome.verification
            if zeroing:
                assert self.zeroing_error(outcome, *inputs) < 1e-9
        larger = [torch.cat([x, x[:1]]) for x in inputs]
        assert not coupling.program.dynamic_batch or all(len(y) == 3 for y in self.leaves(outcome.sliced(*larger)))
        return coupling

    def sizes(self, coupling: Coupling) -> dict[str, int]:
        return {g.name: g.size for g in coupling.groups}

    def zeroed(self, outcome: Outcome) -> nn.Module:
        """The original module in float64 with every removed index of every tensor set to zero, nothing sliced."""
        module = copy.deepcopy(outcome.module).double()
        tensors: dict[str, Tensor] = {}
        tensors |= dict(module.named_parameters(remove_duplicate=False))
        tensors |= dict(module.named_buffers(remove_duplicate=False))
        with torch.no_grad():
            for name, dims in outcome.coupling.kept(outcome.alive).items():
                for dim, kept in dims.items():
                    for part, index in self.parts(module, name, tensors[name], dims.get(0), kept):
                        gone = np.setdiff1d(np.arange(part.shape[dim]), index)
                        part.index_fill_(dim, torch.as_tensor(gone), 0)
        return module

    def parts(self, module: nn.Module, name: str, tensor: Tensor, rows: Any, kept: Any) -> list[tuple[Tensor, Any]]:
        """Views of a tensor with the indices that each keeps: the tensor, or the kept groups of a convolution."""
        if kept.ndim == 1:
            return [(tensor, kept)]
        layer: Any = module.get_submodule(name.rpartition(".")[0])
        groups: int = layer.groups
        blocks = tensor.unflatten(0, (groups, -1))
        stay = range(groups) if rows is None else np.unique(rows // blocks.shape[1])
        return [(blocks[g], index) for g, index in zip(stay, kept, strict=True)]

    def zeroing_error(self, outcome: Outcome, *inputs: Tensor) -> float:
        """Largest relative difference between the zeroed module and the sliced graph; knows nothing of labels."""
        wide = [x.double() if x.is_floating_point() else x for x in inputs]
        with torch.no_grad(), double_by_default():
            expected = self.leaves(self.zeroed(outcome)(*wide))
            got = self.leaves(as_double(outcome.sliced)(*wide))
        pairs = zip(expected, got, strict=True)
        return max(float((a - b).abs().max() / a.abs().max().clamp(min=1e-12)) for a, b in pairs)

    def leaves(self, tree: Any) -> list[Tensor]:
        if isinstance(tree, Tensor):
            return [tree]
        branches = tree.values() if isinstance(tree, dict) else tree
        return [leaf for branch in branches for leaf in self.leaves(branch)]


@pytest.fixture(scope="session")
def lab() -> Lab:
    return Lab()
