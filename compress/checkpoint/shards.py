"""Weights that are spread over several files, and folders with weights and a ``config.json`` beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from compress.checkpoint.forms import FOLDER_WEIGHTS, INDEX, read_safetensors, sniff
from compress.checkpoint.statedict import find_state_dict
from compress.checkpoint.torchfile import read_torch
from compress.errors import InputError


def weight_files(path: Path) -> tuple[Path, ...]:
    """The files that hold the weights of a folder or an index, in the order of their names.

    Raises:
        InputError: The index is damaged, names a file outside of its folder, or one that is missing.
    """
    if path.is_dir():
        indices = sorted(path.glob(f"*{INDEX}"))
        single = [path / name for name in FOLDER_WEIGHTS if (path / name).is_file()]
        if single or not indices:
            return tuple(single[:1])
        path = indices[0]
    return tuple(path.parent / name for name in sorted(set(_weight_map(path).values())))


def read_shards(path: Path) -> dict[str, Tensor]:
    """All weights of a folder or an index, by name.

    Raises:
        InputError: As `weight_files`; a file is damaged; or a weight does not lie where the index says.
    """
    files = weight_files(path)
    state: dict[str, Tensor] = {}
    for file in files:
        state |= _state(file)
    index = path if path.is_file() else next(iter(sorted(path.glob(f"*{INDEX}"))), None)
    if index is not None and len(files) > 1:
        missing = [name for name in _weight_map(index) if name not in state]
        if missing:
            raise InputError(
                f"{index} names weights that its files lack: {', '.join(missing[:4])}",
                "download the files again, all of one version",
            )
    return state


def read_config(path: Path, name: str = "config.json") -> dict[str, Any]:
    """A file of settings in a folder of weights; empty where there is none.

    Raises:
        InputError: It is no JSON object.
    """
    file = (path if path.is_dir() else path.parent) / name
    if not file.is_file():
        return {}
    return _object(file)


def _state(file: Path) -> dict[str, Tensor]:
    form = sniff(file)
    if form == "safetensors":
        return read_safetensors(file)[0]
    return find_state_dict(read_torch(file, form, trust_pickle=False), file).state


def _weight_map(index: Path) -> Mapping[str, str]:
    found = _object(index).get("weight_map")
    if not isinstance(found, dict) or not found or not all(isinstance(each, str) for each in found.values()):
        raise InputError(f"{index} has no weight_map that says where the weights lie", "download it again")
    for name in set(found.values()):
        if Path(name).name != name:
            raise InputError(f"{index} names {name}, which is not a file beside it", "put all files into one folder")
        if not (index.parent / name).is_file():
            raise InputError(f"{index} names {name}, which is not there", "download all files of the model")
    return found


def _object(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text("utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise InputError(f"{file} is damaged: {error}", "copy or download it again") from error
    if not isinstance(found, dict):
        raise InputError(f"{file} is not a JSON object", "copy or download it again")
    return found
