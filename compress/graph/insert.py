"""Modules of one's own between the operations of a traced network, for the time of a training."""

from __future__ import annotations

from collections.abc import Iterable

from torch import fx, nn


def insert_module(
    network: fx.GraphModule,
    name: str,
    module: nn.Module,
    node: fx.Node,
    *more: fx.Node,
    users: Iterable[fx.Node] | None = None,
) -> fx.Node:
    """Let a module change what an operation gives, for all who read it or for some of them.

    It may behave differently in training and in evaluation. `analyse` does not know such a module: before the network
    is sliced it has to be replaced by operations, or what it does put into weights.

    Args:
        network: Changed in place and compiled again.
        name: The module's, new in the network.
        module: Called with what ``node`` gives, and with what ``more`` give.
        node: Whose result is changed.
        more: Other nodes before it in the graph whose results the module takes.
        users: Readers of ``node`` that get the changed result; all of them if left out.

    Returns:
        The node that calls the module.

    Raises:
        ValueError: The network has something of that name.
    """
    if hasattr(network, name):
        raise ValueError(f"the network has something called {name} already")
    wanted = set(node.users if users is None else users)
    network.add_module(name, module)
    with network.graph.inserting_after(node):
        made = network.graph.call_module(name, (node, *more))
    for user in wanted:
        user.replace_input_with(node, made)
    network.recompile()
    return made
