"""The module slicer: the same slice made on the user's own module, where its code can represent it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from compress.graph.double import Wide, WideCasts, double_by_default, leaves, same_draws, widened, widened_module
from compress.graph.features import selections
from compress.graph.groups import Coupling
from compress.graph.labels import Value
from compress.graph.masked import run_masked_module
from compress.graph.names import graph_tensors
from compress.graph.rules import REWRITES, Cut, Kept
from compress.graph.slice import attribute, slice_tensor
from compress.graph.trace import Program, owner
from compress.graph.verify import TOLERANCE, Verification, compare


@dataclass(frozen=True)
class ModuleSlice:
    """Outcome of :func:`slice_module`.

    Attributes:
        module: The sliced copy, None when the module's code cannot represent the slice.
        changed: Constructor-like attributes that changed, ``path.name`` to (before, after).
        problem: The construct that prevents it, "" when it worked.
        error: Largest relative difference from what it has to compute, in float64; 0 when it did not work.
    """

    module: nn.Module | None
    changed: Mapping[str, tuple[Any, Any]]
    problem: str = ""
    error: float = 0.0


def slice_module(
    module: nn.Module, coupling: Coupling, alive: NDArray[np.bool_], sliced: fx.GraphModule | None = None
) -> ModuleSlice:
    """Slice a copy of the user's module and accept it only if it computes what it has to.

    Args:
        module: The module that was traced; it is not touched.
        coupling: Its analysis.
        alive: By label, what stays.
        sliced: The result of the graph slicer for the same ``alive``, which has to be matched. Without it the module
            with everything removed set to zero has to be matched (:mod:`compress.graph.masked`), which is the only
            judge of a network whose path depends on its data.
    """
    names = graph_tensors(module)
    kept = coupling.kept(alive)
    for name in kept:
        if name not in names:
            what = "its forward takes every input feature" if name in selections(coupling.program.module) else ""
            return ModuleSlice(None, {}, what or f"{name} is a constant inside the module's code")
    memo = {id(names[name]): _smaller(names[name], dims) for name, dims in kept.items()}
    small = copy.deepcopy(module, memo)
    changed: dict[str, tuple[Any, Any]] = {}
    _refresh(small, changed)
    constants = _constants(coupling, alive)
    unexplained = [c for c in constants if not _explain(small, *c, changed)]
    expected = Wide(sliced).outputs(coupling.program.inputs) if sliced is not None else None
    judged = _difference(small, coupling.program, expected or run_masked_module(module, coupling, alive))
    if not judged.passed:
        problem = judged.problem or f"outputs differ by {judged.error:.1e}"
        where = sorted({path or "the model's own forward" for path, _, _, _ in unexplained or constants})
        reason = f"sizes computed inside {', '.join(where[:3])}" if where else "sizes computed in its code"
        return ModuleSlice(None, {}, f"{reason} do not follow the slice ({problem})")
    return ModuleSlice(small, changed, error=judged.error)


def _smaller(tensor: Tensor, dims: dict[int, NDArray[np.int64]]) -> Tensor:
    """What a deep copy puts in the place of a tensor that is sliced, under all its names."""
    found = slice_tensor(tensor.detach(), dims)
    return nn.Parameter(found, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else found


def _sizes(module: nn.Module) -> dict[str, Any]:
    """What the attributes of a stock layer should say, read off its tensors."""
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        return _recurrent_sizes(module)
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor):
        return {}
    if isinstance(module, nn.Linear):
        return {"out_features": weight.shape[0], "in_features": weight.shape[1]}
    if isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        return {"in_channels": weight.shape[0], "out_channels": weight.shape[1] * module.groups}
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return {"out_channels": weight.shape[0], "in_channels": weight.shape[1] * module.groups}
    if isinstance(module, nn.modules.batchnorm._NormBase):
        return {"num_features": weight.shape[0]}
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        return {"normalized_shape": tuple(weight.shape)}
    if isinstance(module, nn.GroupNorm):
        return {"num_channels": weight.shape[0]}
    if isinstance(module, nn.Embedding):
        return {"embedding_dim": weight.shape[1]}
    return {}


def _recurrent_sizes(module: nn.Module) -> dict[str, int]:
    suffix = "_l0" if isinstance(module, nn.RNNBase) else ""
    inner, recurrent, projection = (getattr(module, f"weight_{n}{suffix}", None) for n in ("ih", "hh", "hr"))
    if not (isinstance(inner, Tensor) and isinstance(recurrent, Tensor)):
        return {}
    sizes = {"input_size": inner.shape[1], "hidden_size": recurrent.shape[1]}
    if isinstance(projection, Tensor):
        sizes |= {"proj_size": recurrent.shape[1], "hidden_size": projection.shape[1]}
    return sizes


def _refresh(module: nn.Module, changed: dict[str, tuple[Any, Any]]) -> None:
    for path, child in module.named_modules():
        for name, value in _sizes(child).items():
            _set(child, path, name, value, changed)
        if isinstance(
            child, nn.RNNBase
        ):  # it holds its weights in a list as well, which follows them when they are set
            for name, parameter in list(child.named_parameters(recurse=False)):
                setattr(child, name, parameter)


def _set(module: nn.Module, path: str, name: str, value: Any, changed: dict[str, tuple[Any, Any]]) -> None:
    before = getattr(module, name)
    if before != value:
        setattr(module, name, value)
        changed[f"{path}.{name}".lstrip(".")] = (before, value)


def _constants(coupling: Coupling, alive: NDArray[np.bool_]) -> list[tuple[str, str, Any, Any]]:
    """Constants of calls that the slice changed: (owner, argument, before, after)."""
    kept = Kept(alive)
    found = []
    for node, call in coupling.flow.calls.items():
        if call.op not in REWRITES:
            continue
        value = coupling.flow.values[node]
        outs = (value,) if isinstance(value, Value) else tuple(value)
        for name, new in REWRITES[call.op](Cut(call, outs, kept)).items():
            old = call.args.get(name)
            if not name.startswith("@") and new is not ... and old != new:
                found.append((owner(node), name, old, new))
    return found


def _explain(module: nn.Module, path: str, name: str, old: Any, new: Any, changed: dict[str, tuple[Any, Any]]) -> bool:
    """Set the attribute of the owning module (or of one it lies in) that holds a changed constant, if it is found."""
    holders = [path]
    while holders[-1]:
        holders.append(holders[-1].rpartition(".")[0])
    own = attribute(module, path) if path else module
    if name in ("groups", "num_groups") and hasattr(own, name):
        _set(own, path, name, new, changed)
        return True
    found: list[bool] = []
    pairs = zip(old, new, strict=False) if isinstance(old, (list, tuple)) and isinstance(new, (list, tuple)) else ()
    for before, after in pairs:
        if before == after or not isinstance(before, int) or before < 2:
            continue
        for holder_path in holders[:2]:
            holder = attribute(module, holder_path) if holder_path else module
            known = _sizes(holder)  # these say what the layer's own tensors say
            matching = [k for k, v in vars(holder).items() if type(v) is int and v == before and k not in known]
            for key in matching:
                _set(holder, holder_path, key, after, changed)
            if matching:
                break
        found.append(bool(matching) or (before, after) in changed.values())  # two calls may read one attribute
    return bool(found) and all(found)


def _difference(small: nn.Module, program: Program, expected: list[Tensor]) -> Verification:
    """How far the module is from what is expected, in float64."""
    found = _module_difference(small, program, expected)
    if found.passed:
        return found
    # Code that creates tensors without a dtype needs float64 by default; code with written-out numbers must not.
    with double_by_default():
        again = _module_difference(small, program, expected)
    return again if again.passed else found


def _module_difference(small: nn.Module, program: Program, expected: list[Tensor]) -> Verification:
    with torch.no_grad(), same_draws(), widened_module(small) as wide, WideCasts():
        try:
            got = program.call(wide, widened(program.inputs))
        except Exception as error:  # the user's own code may raise anything
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            return Verification(float("inf"), TOLERANCE, reason)
    return compare(expected, leaves(got), TOLERANCE)
