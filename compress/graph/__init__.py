"""The engine: trace a network, find what lives and dies together, slice it, prove the slice."""

import warnings

from compress.graph.cost import layer_weights, macs, parameters, stored_bytes
from compress.graph.dead import DeadRemoval, dead_units, remove_dead
from compress.graph.families import couple, thawed
from compress.graph.features import KEPT_INPUTS, select_inputs
from compress.graph.groups import Coupling, Frozen, Group, Member
from compress.graph.insert import insert_module
from compress.graph.mapback import ModuleSlice, slice_module
from compress.graph.mixing import mixing_matrices
from compress.graph.partly import partly_pruned
from compress.graph.propagate import propagate
from compress.graph.rules import load_rules
from compress.graph.select import Cluster, clusters, empty_pieces, lowest
from compress.graph.slice import attribute, slice_graph, slice_tensor
from compress.graph.trace import Program, trace
from compress.graph.verified import VerifiedSlice, slice_verified
from compress.graph.verify import TOLERANCE, Verification, run_masked, verify

__all__ = [
    "KEPT_INPUTS",
    "TOLERANCE",
    "Cluster",
    "Coupling",
    "DeadRemoval",
    "Frozen",
    "Group",
    "Member",
    "ModuleSlice",
    "Program",
    "Verification",
    "VerifiedSlice",
    "analyse",
    "attribute",
    "clusters",
    "couple",
    "dead_units",
    "empty_pieces",
    "insert_module",
    "layer_weights",
    "load_rules",
    "lowest",
    "macs",
    "mixing_matrices",
    "parameters",
    "partly_pruned",
    "propagate",
    "remove_dead",
    "run_masked",
    "slice_graph",
    "slice_module",
    "slice_tensor",
    "slice_verified",
    "stored_bytes",
    "thawed",
    "trace",
    "verify",
]


def analyse(
    program: Program, *, prune_outputs: bool = False, prune_inputs: bool = False, allow_frozen: bool = False
) -> Coupling:
    """Labels, relations and groups of a traced network; rules of installed distributions are in force.

    Warns of distributions whose rules cannot be imported, once.

    Args:
        program: The traced network.
        prune_outputs: Whether the network's outputs may get smaller.
        prune_inputs: Whether the network may read fewer of its input features; it starts with a selection of them then.
        allow_frozen: Whether units that reach into parameters with ``requires_grad=False`` may go.

    Raises:
        ModelError: Inputs are to be pruned, and none is a table of features (N, F).
    """
    for problem in load_rules():
        warnings.warn(problem, RuntimeWarning, stacklevel=2)
    if prune_inputs:
        program = select_inputs(program)
    flow = propagate(program, prune_outputs=prune_outputs, prune_inputs=prune_inputs, allow_frozen=allow_frozen)
    return couple(program, flow)
