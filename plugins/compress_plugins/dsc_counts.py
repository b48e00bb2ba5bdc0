"""How many parameters fully connected networks with short circuits have, as DSC counts them and in full."""

from __future__ import annotations

from collections.abc import Sequence

from compress_plugins.dsc_layers import Form


def parameter_count(inputs: int, widths: Sequence[int], form: Form) -> int:
    """Parameters of the layers: weights, biases, and for ``dsc`` one gate for every input of every layer.

    The tables of DSC (3 and 4) count the hidden layers alone; with the width of the output layer as the last of
    ``widths`` it is the whole network. The paper's sums run over one source too many: a layer does not read itself.

    Args:
        inputs: Of the network.
        widths: Outputs of the layers.
        form: ``ffn``: every layer reads the one before it; else all before it and the input.
    """
    sizes, total = [inputs, *widths], 0
    for n, width in enumerate(widths, 1):
        reads = sizes[n - 1] if form == "ffn" else sum(sizes[:n])
        total += reads * width + width + (reads if form == "dsc" else 0)
    return total
