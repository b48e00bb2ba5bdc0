"""What a search makes small: the size of the network that is left, as one number."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from compress.graph import Coupling, macs, parameters, stored_bytes
from compress.latency import tables

Alive = NDArray[np.bool_]
Objective = Callable[[Alive], float]  # by label what stays -> the size of that network

# By name, from the analysed network and the threads of a CPU. Whatever can be told from what stays fits in here.
OBJECTIVES: Mapping[str, Callable[[Coupling, int], Objective]] = {
    "macs": lambda coupling, _: lambda alive: float(macs(coupling, alive)),
    "params": lambda coupling, _: lambda alive: float(parameters(coupling, alive)),
    "bytes": lambda coupling, _: lambda alive: float(stored_bytes(coupling, alive)),
    "latency": lambda coupling, threads: tables(coupling, threads=threads).predict,  # seconds in ONNX Runtime, batch 1
}


def objective(name: str, coupling: Coupling, threads: int = 1) -> Objective:
    """What is to become small; a latency is measured here, and what it has measured it keeps for further calls.

    Args:
        name: One of ``OBJECTIVES``.
        coupling: The analysed network.
        threads: On how many a latency is measured.
    """
    return OBJECTIVES[name](coupling, threads)
