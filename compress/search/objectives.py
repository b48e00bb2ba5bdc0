"""What a search makes small: the size of the network that is left, as one number."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from compress.graph import Coupling, macs, parameters, stored_bytes
from compress.latency import tables

Alive = NDArray[np.bool_]
Objective = Callable[[Alive], float]  # by label what stays -> the size of that network

# By name, from the analysed network the objective. Whatever can be told from what stays fits in here.
OBJECTIVES: Mapping[str, Callable[[Coupling], Objective]] = {
    "macs": lambda coupling: lambda alive: float(macs(coupling, alive)),
    "params": lambda coupling: lambda alive: float(parameters(coupling, alive)),
    "bytes": lambda coupling: lambda alive: float(stored_bytes(coupling, alive)),
    "latency": lambda coupling: tables(coupling).predict,  # seconds in ONNX Runtime, batch 1, one thread
}


def objective(name: str, coupling: Coupling) -> Objective:
    """What is to become small."""
    return OBJECTIVES[name](coupling)
