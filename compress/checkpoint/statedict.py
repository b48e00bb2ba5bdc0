"""Find the state dict inside whatever a training script saved, and undo what wrappers did to its names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import nn

from compress.errors import InputError

# In the order in which they are taken when a checkpoint holds several; averaged weights come last.
USUAL_KEYS = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params", "generator",
    "module", "state", "ema_state_dict", "state_dict_ema", "model_ema", "params_ema", "ema", "shadow",
)  # fmt: skip
_AVERAGED = ("ema", "shadow", "averaged", "teacher")  # words in names of weights that are not the trained ones
# What optimizers keep of every weight, under its name or a number
_OPTIMIZER = frozenset({"exp_avg", "exp_avg_sq", "momentum_buffer", "square_avg", "step", "max_exp_avg_sq"})
_DEPTH = 4  # of containers in containers
# Bookkeeping of averaging (torch.optim.swa_utils) and of profilers, beside the weights.
_BOOKKEEPING = ("n_averaged", "total_ops", "total_params")


@dataclass(frozen=True)
class Found:
    """A state dict, what stood beside it in the checkpoint, and how it was found.

    `module` is set instead of `state` when a trusted pickle held a whole module.
    """

    state: dict[str, torch.Tensor]
    beside: dict[str, Any]
    notes: tuple[str, ...]
    nested: bool
    module: nn.Module | None = None


def is_state_dict(value: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether `value` maps names to tensors or arrays (entries of other kinds are allowed beside them)."""
    if not isinstance(value, Mapping) or not value or not all(isinstance(key, str) for key in value):
        return False
    tensors = sum(_is_tensor(each) for each in value.values())
    return tensors > 0 and 2 * tensors >= len(value) and not _OPTIMIZER.issuperset(value)


def _is_tensor(value: object) -> bool:
    return isinstance(value, torch.Tensor) or (isinstance(value, np.ndarray) and value.dtype.kind in "fiub")


def find_state_dict(payload: object, path: Path, weights: str | None = None) -> Found:
    """The state dict in `payload`: at its top, or in dicts, lists and tuples in it, up to four deep.

    Args:
        payload: What the file holds.
        path: The file, for messages.
        weights: Which of several: its keys, such as ``ema`` or ``model/state_dict``.

    Raises:
        InputError: There is none, there are several under keys of no known meaning, or none under the named keys.
    """
    if isinstance(payload, nn.Module):
        return Found({}, {}, ("a whole module, unpickled because it was trusted",), False, payload)
    if is_state_dict(payload):
        return _found(payload, {}, (), nested=False)
    held = dict(_held(payload, ()))
    at = _chosen(held, payload, path, weights)
    value = held[at]
    top = payload if isinstance(payload, Mapping) else {}
    beside = {key: each for key, each in top.items() if isinstance(key, str) and key != at[0]}
    what = "whole module" if isinstance(value, nn.Module) else "state dict"
    notes = [f"{what} under key {_written(at)!r}"]
    others = [_written(each) for each in held if each != at]
    if others:
        more = f"; --weights {others[0]} takes them" if len(others) == 1 else "; --weights KEY takes one of them"
        notes.append(f"other weights in the file were left alone: {', '.join(others[:4])}{more}")
    if isinstance(value, nn.Module):
        return Found({}, beside, tuple(notes), True, value)
    return _found(value, beside, tuple(notes), nested=True)


def without_prefixes(state: dict[str, torch.Tensor]) -> Iterator[tuple[dict[str, torch.Tensor], str]]:
    """`state` as it is, then without each first part that all names share (``module.``, ``_orig_mod.``, ``ema.``);
    and what was removed. DataParallel, torch.compile, Lightning and averaging put such parts there."""
    removed = ""
    yield state, removed
    while state:
        prefix = next(iter(state)).partition(".")[0] + "."
        if not all(key.startswith(prefix) and key != prefix for key in state):
            return
        state = {key[len(prefix) :]: value for key, value in state.items()}
        removed += prefix
        yield state, removed


def multiplied(state: Mapping[str, torch.Tensor]) -> list[str]:
    """Names of the weights that are stored as ``weight_orig`` and ``weight_mask``, as torch.nn.utils.prune does."""
    names = [key.removesuffix("_orig") for key in state if key.endswith("_orig")]
    return [n for n in names if f"{n}_mask" in state and state[f"{n}_mask"].shape == state[f"{n}_orig"].shape]


def without_masks(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`state` with each of them as one weight, which has zeros where the mask has."""
    masked = multiplied(state)
    found = {f"{name}_orig": (name, state[f"{name}_orig"] * state[f"{name}_mask"]) for name in masked}
    gone = {f"{name}_mask" for name in masked}
    return dict(found.get(key, (key, each)) for key, each in state.items() if key not in gone)


def parts(state: dict[str, torch.Tensor]) -> Iterator[tuple[dict[str, torch.Tensor], str]]:
    """The weights under each first part of the names, where there are several; those that are averages come last."""
    firsts = list(dict.fromkeys(key.partition(".")[0] for key in state if "." in key))
    for first in sorted(firsts, key=averaged):
        start = f"{first}."
        part = {key.removeprefix(start): each for key, each in state.items() if key.startswith(start)}
        if 1 < len(part) < len(state):
            yield part, start


def averaged(name: str) -> bool:
    """Whether a name is that of averaged weights: ``ema_model``, ``state_dict_ema``, ``teacher``."""
    return any(word in name.lower().replace("/", "_").replace(".", "_").split("_") for word in _AVERAGED)


def within(state: dict[str, torch.Tensor], names: Iterable[str]) -> tuple[dict[str, torch.Tensor], str]:
    """The part of `state` that holds all `names` under one prefix, and that prefix; nothing if there is not just one.

    A training module has the network as an attribute, and weights of its own (of a loss, of a metric) beside it. Of a
    network and its average, the network counts.
    """
    names = list(names)
    starts = [key.removesuffix(names[0]) for key in state if key.endswith(f".{names[0]}")] if names else []
    fitting = [start for start in starts if all(start + name in state for name in names)]
    if len(fitting) > 1:
        fitting = [start for start in fitting if not averaged(start)]
    if len(fitting) != 1:
        return {}, ""
    return {key.removeprefix(fitting[0]): each for key, each in state.items() if key.startswith(fitting[0])}, fitting[0]


def _held(value: object, at: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Everything below that may be the weights, with its keys; what optimizers keep is none."""
    if at and (is_state_dict(value) or isinstance(value, nn.Module)):
        yield at, value
    elif len(at) < _DEPTH and isinstance(value, (Mapping, list, tuple)):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, each in items:
            if not str(key).lower().startswith(("optim", "scheduler", "lr_scheduler", "scaler", "grad_scaler")):
                yield from _held(each, (*at, str(key)))


def _chosen(held: Mapping[tuple[str, ...], Any], payload: object, path: Path, weights: str | None) -> tuple[str, ...]:
    if weights is not None:
        if (wanted := tuple(weights.split("/"))) in held:
            return wanted
        there = ", ".join(_written(at) for at in held)
        raise InputError(
            f"{path} has no weights under {weights!r}",
            f"there are: {there}" if there else "leave out --weights",
        )
    usual = [at for at in held if any(key in USUAL_KEYS for key in at)]
    if usual:
        return min(usual, key=lambda at: (averaged(_written(at)), min(map(_rank, at)), len(at)))
    if len(held) == 1:
        return next(iter(held))
    if held:
        some = list(map(_written, held))
        raise InputError(
            f"{path} holds several sets of weights, under {', '.join(map(repr, some[:6]))}",
            f"say which: --weights {some[0]}",
        )
    raise _none(payload, path)


def _none(payload: object, path: Path) -> InputError:
    save = "save the weights with: torch.save(model.state_dict(), 'weights.pt')"
    if not isinstance(payload, Mapping):
        return InputError(f"{path} holds a {type(payload).__name__} without a state dict in it", save)
    keys = [str(key) for key in payload]
    if "param_groups" in keys or (keys and all(key.lower().startswith(("optim", "sched", "epoch")) for key in keys)):
        return InputError(f"{path} holds the state of an optimizer and no weights", save)
    named = ", ".join(map(repr, keys[:8]))
    return InputError(f"{path} holds no state dict; its keys are: {named or 'none, it is an empty dict'}", save)


def _rank(key: str) -> int:
    return USUAL_KEYS.index(key) if key in USUAL_KEYS else len(USUAL_KEYS)


def _written(at: tuple[str, ...]) -> str:
    return "/".join(at)


def _found(value: Mapping[str, Any], beside: dict[str, Any], notes: tuple[str, ...], *, nested: bool) -> Found:
    tensors = {key: torch.as_tensor(each).detach() for key, each in value.items() if _is_tensor(each)}
    state = {key: each for key, each in tensors.items() if key.rpartition(".")[2] not in _BOOKKEEPING}
    dropped = [key for key in value if key not in state]
    plain = {key: each for key, each in value.items() if key not in tensors}
    if dropped:
        notes += (f"entries that are no weights were left out: {', '.join(dropped[:4])}",)
    odd = [key for key, each in state.items() if each.is_floating_point() and not bool(each.isfinite().all())]
    if odd:
        notes += (f"values that are not finite numbers in: {', '.join(odd[:4])}",)
    return Found(state, {**plain, **beside}, notes, nested)
