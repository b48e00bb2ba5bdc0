"""Square constants that mix what a network computes: adjacency matrices, above all."""

from __future__ import annotations

from torch import Tensor, fx

from compress.graph.calls import op_name
from compress.graph.trace import attribute

_PRODUCTS = {f"aten::{name}" for name in ("matmul", "mm", "bmm", "addmm", "baddbmm", "einsum")}
_MOVED = {
    f"aten::{name}"
    for name in ("t", "transpose", "permute", "numpy_T", "mT", "unsqueeze", "expand", "contiguous", "_to_copy", "to")
}  # what a matrix may go through on its way into a product


def mixing_matrices(network: fx.GraphModule) -> dict[str, Tensor]:
    """Parameters and buffers (N, N), N at least 2, that products read together with what depends on the input.

    Weights of linear layers are no mixing matrices, nor is a matrix that the network computes from others.

    Returns:
        Tensors by name, in graph order.
    """
    carried: dict[fx.Node, str] = {}  # nodes that hold a constant as it is, or moved
    depends: set[fx.Node] = set()
    found: dict[str, Tensor] = {}
    for node in network.graph.nodes:
        sources = node.all_input_nodes
        if node.op == "placeholder" or any(source in depends for source in sources):
            depends.add(node)
        if node.op == "get_attr":
            carried[node] = str(node.target)
        elif node.op == "call_function" and op_name(node.target) in _MOVED and sources[0] in carried:
            carried[node] = carried[sources[0]]
        elif node.op == "call_function" and op_name(node.target) in _PRODUCTS and node in depends:
            for source in sources:
                tensor = attribute(network, carried[source]) if source in carried else None
                if isinstance(tensor, Tensor) and _is_square(tensor):
                    found[carried[source]] = tensor
    return found


def _is_square(tensor: Tensor) -> bool:
    return tensor.dim() == 2 and tensor.shape[0] == tensor.shape[1] > 1 and tensor.is_floating_point()
