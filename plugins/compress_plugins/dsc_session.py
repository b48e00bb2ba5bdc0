"""One training with short circuits: gates learn, inputs are chosen, what is left is trained, gates go into weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from compress.plugin import Context, Loop, Plan, Session
from compress_plugins.dsc_choice import Goal
from compress_plugins.dsc_columns import clear
from compress_plugins.dsc_figures import figures
from compress_plugins.dsc_fold import folded_network
from compress_plugins.dsc_layers import convert, draw, short_circuits
from compress_plugins.dsc_stacks import Stack, find_stacks
from compress_plugins.dsc_transfer import block_rates, network_rate, settled

if TYPE_CHECKING:
    from compress_plugins.dsc import DSC


_MOVED = 0.005  # of the transfer rate


class Circuits(Session):
    """The first epochs learn gates and weights of all inputs; then inputs are chosen, and the rest trains what is left.

    Raises:
        InputError: The budget counts what this cannot choose by.
        ModelError: The network has no stack of layers.
    """

    same_operations = False

    def __init__(self, method: DSC, context: Context) -> None:
        super().__init__(context)
        self.method = method
        self.goal = Goal(context, method)
        self.stacks = find_stacks(context, method.conv)
        convert(self.network, self.stacks, method.form, method.gates, method.tau)
        self.names = _source_names(self.stacks)
        self.goal.check(self.network)
        self.chosen = -1  # epoch after which inputs were chosen
        self.last = 0  # epoch that ends the training
        self.reached = 0.0
        self.curve: list[tuple[int, float, float]] = []

    def begin(self, loop: Loop) -> None:
        if loop.step == 0 and self.method.init == "fresh":
            generator = self.context.generator()
            for module in short_circuits(loop.network).values():
                draw(loop.network, module, generator)
        self._mark(loop.network)
        self._remember(loop)

    def penalty(self, loop: Loop) -> Tensor | None:
        """r times the sum over layers of the norms of sigma(C), not squared, while gates learn."""
        gates = [each.open() for each in short_circuits(loop.network).values() if each.gates is not None]
        if not gates or self.chosen >= 0 or not self.method.strength:
            return None
        return self.method.strength * torch.stack([opened.norm() for opened in gates]).sum()

    def after_step(self, loop: Loop) -> None:
        if self.chosen >= 0:
            clear(loop.network)

    def after_epoch(self, loop: Loop) -> None:
        if self.chosen >= 0:
            return
        epochs = loop.total // loop.steps_per_epoch
        learning = min(epochs, max(1, math.ceil(self.method.learn * epochs)))
        rates = [each["transfer"] for each in loop.history if "transfer" in each]
        if rates:
            rates.append(self._rates(loop.network)[1])
        method = self.method
        if loop.epoch >= learning or settled(rates, method.stop, method.window, method.settled):
            if rates and abs(rates[0] - rates[-1]) < _MOVED:
                self.context.progress.warn(
                    f"the gates have hardly moved (transfer {rates[0]:.4f}, then {rates[-1]:.4f}): --optimizer adamw "
                    "--lr 0.01 moves them as fast as the weights"
                )
            self.chosen, self.last = loop.epoch, loop.epoch + epochs - learning
            self._mark(loop.network)
            self.reached = self.goal.choose(loop)
            clear(loop.network)

    def ready(self, loop: Loop) -> bool:
        return self.chosen >= 0

    def finished(self, loop: Loop) -> str:
        self._remember(loop)
        if self.chosen < 0 or loop.epoch < self.last:
            return ""
        return f"gates had settled after epoch {self.chosen}"

    def numbers(self, loop: Loop) -> Mapping[str, float]:
        modules = short_circuits(loop.network)
        found: dict[str, float] = {"inputs": sum(int(each.kept.sum()) for each in modules.values())}
        return found if self.method.form != "dsc" else found | {"transfer": self._rates(loop.network)[1]}

    def state(self) -> dict[str, Any]:
        return {"chosen": self.chosen, "last": self.last, "reached": self.reached}

    def load(self, state: Mapping[str, Any]) -> None:
        self.chosen, self.last, self.reached = state["chosen"], state["last"], state["reached"]

    def fold(self, network: fx.GraphModule) -> fx.GraphModule:
        self.trained = short_circuits(network.eval())
        self.blocks = self._rates(network)[0]
        return folded_network(network)

    def plan(self, context: Context) -> Plan:
        """The units that no layer reads any more; the inputs that go are gone already."""
        notes = {
            module.reading.layer.weight: {"inputs": module.reading.width, "inputs kept": int(module.kept.sum())}
            for module in self.trained.values()
        }
        pictures = tuple(figures(self.context, self.trained, self.blocks, self.curve))
        return Plan(context.dead_units(), notes=notes, figures=pictures, reached=self.reached, counted="layers' inputs")

    def _mark(self, network: fx.GraphModule) -> None:
        for module in short_circuits(network).values():
            module.chosen = self.chosen >= 0

    def _remember(self, loop: Loop) -> None:
        told = (each for each in loop.history if "transfer" in each)
        self.curve = [(int(e["epoch"]), float(e["transfer"]), float(e["validation accuracy"])) for e in told]

    def _rates(self, network: fx.GraphModule) -> tuple[dict[tuple[str, str], float], float]:
        """Of every source to every layer that reads it, and of the network; inputs that were dropped count as shut."""
        modules = short_circuits(network)
        gates = {name: module.open() for name, module in modules.items()}
        sources = {
            name: [(self.names[n], size) for n, size in zip(m.reading.sources, m.reading.sizes, strict=True)]
            for name, m in modules.items()
        }
        blocks = block_rates(gates, sources)
        return blocks, network_rate(gates, blocks, self.method.itr)


def _source_names(stacks: Sequence[Stack]) -> dict[str, str]:
    """By node what it is called in pictures: the layer whose features it holds."""
    names = {}
    for stack in stacks:
        first = stack.layers[0]
        names[first.reads] = "input" if len(stacks) == 1 else f"input of {first.name}"
        names |= {b.reads: a.name for a, b in pairwise(stack.layers)}
    return names
