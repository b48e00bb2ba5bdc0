"""The engine: trace a network, find what lives and dies together, slice it, prove the slice."""

import warnings

from compress.graph.cost import layer_weights, macs, parameters, stored_bytes
from compress.graph.dead import DeadRemoval, remove_dead
from compress.graph.families import couple, thawed
from compress.graph.groups import Coupling, Frozen, Group, Member
from compress.graph.mapback import ModuleSlice, slice_module
from compress.graph.partly import partly_pruned
from compress.graph.propagate import propagate
from compress.graph.rules import load_rules
from compress.graph.select import Cluster, clusters, empty_pieces, lowest
from compress.graph.slice import attribute, slice_graph, slice_tensor
from compress.graph.trace import Program, trace
from compress.graph.verified import VerifiedSlice, slice_verified
from compress.graph.verify import TOLERANCE, Verification, run_masked, verify

__all__ = [
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
    "empty_pieces",
    "layer_weights",
    "load_rules",
    "lowest",
    "macs",
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


def analyse(program: Program, *, prune_outputs: bool = False, allow_frozen: bool = False) -> Coupling:
    """Labels, relations and groups of a traced network; rules of installed distributions are in force.

    Warns of distributions whose rules cannot be imported, once.

    Args:
        program: The traced network.
        prune_outputs: Whether the network's outputs may get smaller.
        allow_frozen: Whether units that reach into parameters with ``requires_grad=False`` may go.
    """
    for problem in load_rules():
        warnings.warn(problem, RuntimeWarning, stacklevel=2)
    return couple(program, propagate(program, prune_outputs=prune_outputs, allow_frozen=allow_frozen))
