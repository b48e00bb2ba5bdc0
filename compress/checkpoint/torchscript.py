"""The weights in a TorchScript archive, read without loading its code.

The archive (``torch.jit.save``) holds the module as a pickle of objects of the classes that its code defines. Here those
classes are nothing but bags of attributes, storages are raw bytes, and no other class is known.
"""

from __future__ import annotations

import collections
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from compress.checkpoint.forms import damaged
from compress.errors import InputError


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
        self.read: dict[str, torch.UntypedStorage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """What a name in the pickle stands for."""
        if module.startswith("__torch__"):
            return _Object
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return torch._utils._rebuild_tensor_v2
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch" and name.endswith("Storage"):
            return getattr(torch, name)
        if module == "torch.jit._pickle":  # lists of numbers, and containers with the type of their elements
            return lambda value, *_: value
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is no part of a module")

    def persistent_load(self, pid: Any) -> Any:
        """A storage by its number."""
        _, kind, key, _, count = pid
        if key not in self.read:
            content = bytearray(self.archive.read(f"{self.storages}{key}"))
            self.read[key] = torch.frombuffer(content, dtype=torch.uint8).untyped_storage() if content else (
                torch.UntypedStorage(0)
            )  # fmt: skip
        if self.read[key].nbytes() < count * torch._utils._element_size(kind.dtype):
            raise pickle.UnpicklingError(f"the storage {key} is shorter than said")
        return cast(Any, torch.storage.TypedStorage(wrap_storage=self.read[key], dtype=kind.dtype, _internal=True))


def _tensors(value: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, each in vars(value).items() if isinstance(value, _Object) else ():
        if isinstance(each, Tensor):
            yield f"{prefix}{name}", each
        elif isinstance(each, _Object):
            yield from _tensors(each, f"{prefix}{name}.")
