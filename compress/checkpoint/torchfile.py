"""Files of ``torch.save``, read without running anything in them.

Pickles go through ``torch.load(weights_only=True)``, which builds tensors, plain containers and what `_HARMLESS` lists:
values that training scripts keep beside the weights. The one exception is asked for by name (`trust_pickle`).
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import pathlib
import pickle
import pickletools
import struct
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compress.checkpoint.forms import RESAVE, Form, damaged, sniff
from compress.errors import InputError


def read_torch(path: Path, form: Form, *, trust_pickle: bool) -> Any:
    """The object that ``torch.save`` wrote, on the CPU.

    Only tensors and plain containers are built. With `trust_pickle` a file that needs more is unpickled in
    full, which runs whatever code it holds.

    Raises:
        InputError: The file is damaged, or holds classes or functions and is not trusted; they are listed.
    """
    try:
        return _torch_load(path, weights_only=True)
    except pickle.UnpicklingError as error:
        names = pickle_globals(path, form)
        if not names:
            raise damaged(path, error) from error
        if not trust_pickle:
            raise InputError(
                f"{path} is a pickle of Python objects, not of tensors alone. "
                f"Loading it would import and run: {', '.join(names[:8])}"
                + (f" and {len(names) - 8} more" if len(names) > 8 else ""),
                f"{RESAVE}. Or, if you trust whoever made this file, add --trust-pickle",
            ) from error
    except (EOFError, RuntimeError, ValueError, KeyError, IndexError, OSError, struct.error) as error:
        raise damaged(path, error) from error
    try:
        return _torch_load(path, weights_only=False)
    except Exception as error:  # arbitrary code ran: any failure is the file's
        raise InputError(
            f"{path} could not be unpickled: {type(error).__name__}: {error}",
            f"say where its code is: PYTHONPATH=FOLDER compress ...; or {RESAVE}",
        ) from error


def pickle_globals(path: Path, form: Form) -> list[str]:
    """Names that unpickling `path` would import and that plain tensors do not need; the file is not run."""
    if form == "torch zip":
        try:
            with torch.serialization.safe_globals(_harmless()):
                return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
        except (ValueError, RuntimeError, pickle.UnpicklingError):
            return []
    found: set[str] = set()
    with path.open("rb") as file:
        # A legacy file is a row of pickles (magic number, protocol, system, object), then raw data.
        for _ in range(4):
            try:
                named = [arg for op, arg, _ in pickletools.genops(file) if op.name == "GLOBAL"]
            except ValueError:
                break
            found |= {str(arg).replace(" ", ".") for arg in named}
    known = {each[1] if isinstance(each, tuple) else f"{each.__module__}.{each.__qualname__}" for each in _harmless()}
    return sorted(name for name in found - known if not _plain(name))


def would_import(path: Path) -> list[str]:
    """What loading the file under ``trust_pickle`` imports and may run; nothing for files that need no trust."""
    form = sniff(path)
    return pickle_globals(path, form) if form in ("torch zip", "torch legacy") else []


def _plain(name: str) -> bool:
    # torch.FloatStorage and its kin were never classes with behaviour of the file's own
    if name.startswith("torch."):
        return name.startswith("torch._utils.") or name.endswith("Storage") or name == "torch.Size"
    return name in ("collections.OrderedDict", "collections.defaultdict")


def _torch_load(path: Path, *, weights_only: bool) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about torch's own storages, and about how the file was made
        if not weights_only:
            return torch.load(path, map_location="cpu", weights_only=False)
        with torch.serialization.safe_globals(_harmless()):
            return torch.load(path, map_location="cpu", weights_only=True)


def _harmless() -> list[Any]:
    """Classes that hold values and do nothing: numbers and arrays of NumPy, bags of settings, dates, paths."""
    arrays = importlib.import_module("numpy._core.multiarray")
    numpy = [
        *(np.ndarray, np.dtype),
        *((getattr(arrays, name), f"numpy.{core}.multiarray.{name}")
          for name in ("scalar", "_reconstruct") for core in ("core", "_core")),
        *(type(np.dtype(kind)) for kind in ("?", "b", "B", "h", "H", "i", "I", "l", "L", "e", "f", "d", "U", "S")),
    ]  # fmt: skip
    paths = [pathlib.PosixPath, pathlib.PurePosixPath, pathlib.PureWindowsPath]
    dates = [datetime.date, datetime.datetime, datetime.timedelta]
    return [*numpy, *paths, *dates, argparse.Namespace, types.SimpleNamespace]
