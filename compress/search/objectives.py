"""What a search makes small: the size of the network that is left, as one number."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from compress.errors import InputError
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


def check_objective(name: str) -> None:
    """See before any work that there is such an objective.

    Raises:
        InputError: It cannot be told from what stays.
    """
    if name not in OBJECTIVES:
        raise InputError(
            f"--objective {name}: the {name} of a candidate cannot be told from its widths yet",
            f"one of {', '.join(OBJECTIVES)}",
        )


def objective(name: str, coupling: Coupling) -> Objective:
    """What is to become small, see :func:`check_objective`."""
    return OBJECTIVES[name](coupling)
