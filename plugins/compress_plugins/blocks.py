"""Residual branches as components: y = shortcut(x) + a f(x), where a = 0 takes the whole branch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from compress.plugin import Context, InputError, ModelError, Plan, insert_module
from compress_plugins.components import Removed, Values
from compress_plugins.gates import Gates
from compress_plugins.layers import Place, copy_tensors, op, rows, shape, take_over, weight
from compress_plugins.shrinking import Part

_SAMPLES = 64  # on which branches are compared with what they are added to


class Blocks:
    """All residual branches of a network, behind one threshold.

    A branch is what is added to something that is made from the same input with fewer layers, or with none. Where its
    a is zero, the sum is replaced by the other summand.

    Raises:
        InputError: The budget is of a kind that is not counted by blocks, or globs are given.
        ModelError: There are fewer than two blocks.
    """

    noun = "blocks"
    only: tuple[str, ...] = ()
    same_operations = False

    def __init__(self, context: Context, network: fx.GraphModule, rectify: bool) -> None:
        if context.only or context.exclude:
            raise InputError("--only and --exclude choose layers, not blocks", "leave them out")
        if context.has_budget and context.budget.kind not in ("ratio", "params"):
            raise InputError(f"--{context.budget.kind}: blocks are counted by number or parameters", "--ratio 0.3")
        self.context, self.blocks = context, residual_blocks(network)
        self.shares = _shares(context, self.blocks)
        self.size = len(self.blocks)
        if self.size < 2:
            raise ModelError(f"blocks compete, and {self.size} residual branches were found", "--on batchnorm or units")
        gates = Gates([Part((self.size,), (0,))], rectify, next(network.parameters()))
        by_name = {node.name: node for node in network.graph.nodes}
        for i, block in enumerate(self.blocks):
            branch, total = by_name[block.place.node], by_name[block.total]
            insert_module(network, _named(i), _BlockGate(gates, i), branch, users=[total])

    def values(self, network: fx.GraphModule) -> dict[str, Tensor]:
        gate = network.get_submodule(_named(0))
        assert isinstance(gate, _BlockGate)
        return {"blocks": gate.gates()[0]}

    def prepared(self, network: fx.GraphModule) -> dict[str, Tensor]:
        return self.values(network)

    def prepared_norm(self, network: fx.GraphModule, only: Removed | None) -> Tensor | None:
        return None

    def withdraw(self, network: fx.GraphModule, share: float) -> None:
        """Blocks have no constants beside their gates."""

    def pressed(self, values: Values, only: Removed | None = None) -> list[Tensor]:
        return [values["blocks"] if only is None else values["blocks"][only["blocks"]]]

    def mean(self, values: Values, units: Removed, pressed: Sequence[Tensor] | None = None) -> float:
        own = self.scores(values)["blocks"][units["blocks"]]
        return float(own.mean()) if len(own) else 0.0

    def scores(self, values: Values) -> dict[str, Tensor]:
        return {"blocks": values["blocks"].detach().abs().double().cpu()}

    def zeros(self, values: Values) -> Removed:
        return {"blocks": (self.scores(values)["blocks"] == 0).nonzero().flatten()}

    def chosen(self, values: Values) -> Removed:
        """The blocks that add least, by their gates times their shares, until the budget is met; one stays."""
        budget = self.context.budget
        whole = sum(p.numel() for p in self.context.module.parameters())
        excess = budget.value * self.size if budget.kind == "ratio" else whole - budget.limit(float(whole))
        chosen: list[int] = []
        worth = self.scores(values)["blocks"] * self.shares
        for i in worth.argsort(stable=True).tolist()[:-1]:
            gone = [1 if budget.kind == "ratio" else self.blocks[j].parameters for j in chosen]
            if sum(gone) >= excess - 1e-9:
                break
            chosen.append(i)
        return {"blocks": torch.tensor(sorted(chosen), dtype=torch.int64)}

    def masks(self, removed: Removed) -> dict[str, Tensor]:
        mask = torch.ones(self.size, dtype=torch.bool)
        mask[removed["blocks"]] = False
        return {f"{_named(0)}.gates.alpha": mask}

    def fold(self, network: fx.GraphModule) -> fx.GraphModule:
        plain = self.context.copy()
        copy_tensors(network, plain)
        values = self.values(network)["blocks"].detach()
        by_name = {node.name: node for node in plain.graph.nodes}
        for i, (block, value) in enumerate(zip(self.blocks, values, strict=True)):
            total = by_name[block.total]
            if value == 0:
                # What the sum has now: the summand may itself have been a sum whose branch is gone
                (shortcut,) = (node for node in total.all_input_nodes if node.name != block.place.node)
                total.replace_all_uses_with(shortcut)
            else:
                take_over(plain, block.place, value, _named(i), users=[total])
        plain.graph.eliminate_dead_code()
        plain.recompile()
        return plain

    def plan(self, context: Context, closed: Removed) -> Plan:
        """What the fold left without effect goes as well."""
        return Plan(masks={name: each != 0 for name, each in context.layers(every=True).items()})


class _BlockGate(nn.Module):
    """One of the gates that blocks have in common."""

    def __init__(self, gates: Gates, position: int) -> None:
        super().__init__()
        self.gates, self.position = gates, position

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gates()[0][self.position]


@dataclass(frozen=True)
class Block:
    """A residual branch.

    Attributes:
        total: Name of the node that adds it.
        place: Where its gate stands.
        parameters: How many it alone reads.
    """

    total: str
    place: Place
    parameters: int


class _Norms(fx.Interpreter):
    """Runs a network and remembers the norms of what some nodes give."""

    def __init__(self, network: fx.GraphModule, names: set[str]) -> None:
        super().__init__(network)
        self.names = names
        self.found: dict[str, float] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self.names:
            self.found[n.name] = float(value.norm())
        return value


def _shares(context: Context, blocks: Sequence[Block]) -> Tensor:
    """Of each block, float64: the norm of its branch over that of the sum, on training samples; 1 without any.

    All gates are equal at first, so that these alone tell blocks apart.
    """
    if context.data is None:
        return torch.ones(len(blocks), dtype=torch.float64)
    like = next(context.module.parameters())
    run = _Norms(context.module, {name for block in blocks for name in (block.place.node, block.total)})
    with torch.no_grad():
        run.run(context.samples(_SAMPLES)[0].to(like))
    ratios = [run.found[block.place.node] / max(run.found[block.total], 1e-30) for block in blocks]
    return torch.tensor(ratios, dtype=torch.float64)


def residual_blocks(network: fx.GraphModule) -> list[Block]:
    """All residual branches, in graph order."""
    above: dict[fx.Node, frozenset[fx.Node]] = {}  # with the node itself
    found = []
    for node in network.graph.nodes:
        above[node] = frozenset({node}).union(*(above[n] for n in node.all_input_nodes))
        block = _block(network, node, above)
        if block is not None:
            found.append(block)
    return found


def _block(network: fx.GraphModule, node: fx.Node, above: dict[fx.Node, frozenset[fx.Node]]) -> Block | None:
    """The branch that a node adds, if it adds one."""
    operands = [arg for arg in node.args if isinstance(arg, fx.Node)]
    if op(node) not in ("add", "add_") or len(operands) != 2 or node.kwargs or operands[0] is operands[1]:
        return None
    if shape(operands[0]) != shape(operands[1]):
        return None
    if not all(any(n.op == "placeholder" for n in above[each]) for each in operands):
        return None  # a table, such as of positions
    sides = [(len(_layers(network, above[a] - above[b])), a, b) for a, b in (operands, operands[::-1])]
    if sides[0][0] == sides[1][0]:
        return None
    _, branch, shortcut = max(sides, key=lambda side: side[0])
    own = {str(n.target) for n in above[branch] - above[shortcut] if n.op == "get_attr"}
    count = sum(p.numel() for name, p in network.named_parameters() if name in own)
    taken = rows(network, branch) if len(branch.users) == 1 else ()
    return Block(node.name, Place(branch.name, taken, (), 0), count)


def _layers(network: fx.GraphModule, nodes: frozenset[fx.Node]) -> list[fx.Node]:
    return [node for node in nodes if weight(network, node) is not None]


def _named(position: int) -> str:
    return f"sparse_block_{position}"
