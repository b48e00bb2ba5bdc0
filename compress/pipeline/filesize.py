"""How large the written file will be, before anything is cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compress.budget import Size
from compress.checkpoint.write import bundle_size
from compress.graph import Coupling, attribute, slice_graph
from compress.pipeline.bundle import file_facts, input_records, provenance
from compress.pipeline.opening import Opened
from compress.plan import Plan, plan_json


def file_size(coupling: Coupling, opened: Opened, seed: int) -> Size:
    """Bytes of ``model.safetensors`` by what stays: tensors in their precision, their names, the graph, the plan.

    Args:
        coupling: The analysed network.
        opened: Where it comes from, which the file says too.
        seed: Of the run.
    """
    module = coupling.program.module
    names = [str(n.target) for n in module.graph.nodes if n.op == "get_attr"]
    done: dict[int, Any] = {}
    shapes = {name: done.setdefault(id(attribute(module, name)), _shape(attribute(module, name))) for name in names}
    inputs, origin, metadata = input_records(opened), provenance(opened, seed), file_facts(opened)

    def size(alive: NDArray[np.bool_]) -> float:
        smaller = slice_graph(coupling, alive, shapes)
        plan = plan_json(Plan(coupling.removed(alive)), coupling)
        return float(bundle_size(smaller, inputs, plan, origin, metadata))

    return size


def _shape(value: Any) -> Any:
    """The tensor without its values."""
    if not isinstance(value, Tensor):
        return value
    meta = torch.empty_like(value, device="meta")
    return nn.Parameter(meta, requires_grad=value.requires_grad) if isinstance(value, nn.Parameter) else meta
