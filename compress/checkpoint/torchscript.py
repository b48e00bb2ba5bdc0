"""The weights in a TorchScript archive, read without loading its code.

The archive (``torch.jit.save``) holds the module as a pickle of objects whose classes its code defines. Here those
classes are nothing but bags of attributes, storages are raw bytes, and no other class is known.
"""

from __future__ import annotations

import collections
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compress.checkpoint.forms import damaged
from compress.errors import InputError

_STORAGES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64, "ComplexDoubleStorage": torch.complex128,
}  # fmt: skip


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Parameters and buffers of the module by name, on the CPU; those that were not to be saved are among them.

    Raises:
        InputError: The archive is damaged, holds no weights, or something that is no module.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            folder = next(name for name in archive.namelist() if name.endswith("/data.pkl")).removesuffix("data.pkl")
            with archive.open(f"{folder}data.pkl") as file:
                module = _Reader(file, archive, f"{folder}data/").load()
    except (zipfile.BadZipFile, pickle.UnpicklingError, EOFError, StopIteration, KeyError, IndexError) as error:
        raise damaged(path, error) from error
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise damaged(path, error) from error
    state = dict(_tensors(module, ""))
    if not state:
        raise InputError(
            f"{path} is a TorchScript archive without weights: it was frozen, which makes them constants of its code",
            "save it without torch.jit.freeze, or export the original: torch.export.save(...)",
        )
    return state


class _Object:
    """Anything of a class that the archive's code defines."""

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            vars(self).update(state)


class _Reader(pickle.Unpickler):
    """Knows tensors, plain containers and `_Object`; everything else is refused."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, storages: str) -> None:
        super().__init__(file)
        self.archive, self.storages = archive, storages
        self.read: dict[str, Tensor] = {}  # flat

    def find_class(self, module: str, name: str) -> Any:
        """What a name in the pickle stands for."""
        if module.startswith("__torch__"):
            return _Object
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if module == "torch.jit._pickle":  # lists of numbers, and containers with the type of their elements
            return lambda value, *_: value
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is no part of a module")

    def persistent_load(self, pid: Any) -> Any:
        """A storage by its number."""
        _, dtype, key, _, _ = pid
        if key not in self.read:
            content = bytearray(self.archive.read(f"{self.storages}{key}"))
            self.read[key] = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
        return self.read[key]


def _tensor(flat: Tensor, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    return torch.as_strided(flat, size, stride, offset)  # refuses what lies outside


def _tensors(value: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, each in vars(value).items() if isinstance(value, _Object) else ():
        if isinstance(each, Tensor):
            yield f"{prefix}{name}", each
        elif isinstance(each, _Object):
            yield from _tensors(each, f"{prefix}{name}.")
