"""Find the state dict inside whatever a training script saved, and undo what wrappers did to its names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import nn

from compress.errors import InputError

# In the order in which they are taken when a checkpoint holds several; averaged weights come last.
USUAL_KEYS = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params",
    "module", "state", "ema_state_dict", "state_dict_ema", "model_ema", "ema",
)  # fmt: skip
WRAPPER_PREFIXES = ("module.", "_orig_mod.", "model.")  # DataParallel, torch.compile, Lightning and others
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
    """Whether `value` maps names to tensors (entries of other kinds are allowed beside them)."""
    if not isinstance(value, Mapping) or not value or not all(isinstance(key, str) for key in value):
        return False
    tensors = sum(isinstance(each, torch.Tensor) for each in value.values())
    return tensors > 0 and 2 * tensors >= len(value)


def find_state_dict(payload: object, path: Path) -> Found:
    """The state dict in `payload`, at its top or under one of the usual keys (two levels deep).

    Raises:
        InputError: There is none, or there are several under keys of no known meaning.
    """
    if isinstance(payload, nn.Module):
        return Found({}, {}, ("a whole module, unpickled because it was trusted",), False, payload)
    if is_state_dict(payload):
        return _found(payload, {}, (), nested=False)
    if not isinstance(payload, Mapping):
        raise InputError(
            f"{path} holds a {type(payload).__name__}, not a state dict",
            "save the weights with: torch.save(model.state_dict(), 'weights.pt')",
        )
    at = _locate(payload, path)
    beside = {key: value for key, value in payload.items() if key != at[0] and isinstance(key, str)}
    value: Any = payload
    for key in at:
        value = value[key]
    notes = [f"state dict under key {'/'.join(at)!r}"]
    others = [key for key, each in beside.items() if is_state_dict(each)]
    if others:
        notes.append(f"other weights in the file were left alone: {', '.join(others[:4])}")
    if isinstance(value, nn.Module):
        return Found({}, beside, (notes[0].replace("state dict", "whole module"),), True, value)
    return _found(value, beside, tuple(notes), nested=True)


def without_prefixes(state: dict[str, torch.Tensor]) -> Iterator[tuple[dict[str, torch.Tensor], str]]:
    """`state` as it is, then without each wrapper prefix that all names share; and what was removed."""
    removed = ""
    yield state, removed
    while prefix := next((each for each in WRAPPER_PREFIXES if all(k.startswith(each) for k in state)), ""):
        state = {key[len(prefix) :]: value for key, value in state.items()}
        removed += prefix
        yield state, removed


def within(state: dict[str, torch.Tensor], names: Iterable[str]) -> tuple[dict[str, torch.Tensor], str]:
    """The part of `state` that holds all `names` under one prefix, and that prefix; nothing if there is not just one.

    A training module has the network as an attribute, and weights of its own (of a loss, of a metric) beside it.
    """
    names = list(names)
    starts = [key.removesuffix(names[0]) for key in state if key.endswith(f".{names[0]}")] if names else []
    fitting = [start for start in starts if all(start + name in state for name in names)]
    if len(fitting) != 1:
        return {}, ""
    return {key.removeprefix(fitting[0]): each for key, each in state.items() if key.startswith(fitting[0])}, fitting[0]


def _locate(payload: Mapping[Any, Any], path: Path) -> tuple[str, ...]:
    holds = [key for key in payload if isinstance(key, str) and _weights(payload[key])]
    for key in USUAL_KEYS:
        if key in holds:
            return (key,)
        inner = payload.get(key)
        if isinstance(inner, Mapping):
            for below in USUAL_KEYS:
                if below in inner and _weights(inner[below]):
                    return (key, below)
    if len(holds) == 1:
        return (holds[0],)
    keys = ", ".join(repr(key) for key in list(payload)[:8])
    if holds:
        raise InputError(
            f"{path} holds several sets of weights, under {', '.join(map(repr, holds[:6]))}",
            f"save the one you mean: torch.save(torch.load('{path.name}')[{holds[0]!r}], 'weights.pt')",
        )
    raise InputError(
        f"{path} holds no state dict; its keys are: {keys or 'none'}",
        "save the weights with: torch.save({'state_dict': model.state_dict()}, 'weights.pt')",
    )


def _weights(value: object) -> bool:
    # An optimizer's state never passes: its names are numbers, or "state" and "param_groups".
    return is_state_dict(value) or isinstance(value, nn.Module)


def _found(value: Mapping[str, Any], beside: dict[str, Any], notes: tuple[str, ...], *, nested: bool) -> Found:
    tensors = {key: each.detach() for key, each in value.items() if isinstance(each, torch.Tensor)}
    state = {key: each for key, each in tensors.items() if key.rpartition(".")[2] not in _BOOKKEEPING}
    dropped = [key for key in value if key not in state]
    plain = {key: each for key, each in value.items() if key not in tensors}
    if dropped:
        notes += (f"entries that are no weights were left out: {', '.join(dropped[:4])}",)
    return Found(state, {**plain, **beside}, notes, nested)
