"""The state of a training on disk, so that it can go on where it was cut off."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from compress.errors import InputError

SCHEMA = "compress.training/2"


class StateFile:
    """``state.pt`` in a folder of its own: whole or not there, and only good for the run that wrote it.

    Args:
        folder: Made when something is saved.
        identity: What the run is, as JSON values: settings, model, data. A run that differs cannot go on from it.
        every: Steps between two saves; the end of an epoch always saves.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], every: int = 500) -> None:
        self.folder, self.path, self.every = folder, folder / "state.pt", every
        self._identity = json.loads(json.dumps(identity, default=str))

    @property
    def exists(self) -> bool:
        return self.path.is_file()

    def save(self, content: Mapping[str, Any]) -> None:
        """Write tensors, numbers, texts and containers of them under another name and rename.

        Raises:
            InputError: The folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=self.folder, prefix=".state.")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    torch.save({"schema": SCHEMA, "identity": json.dumps(self._identity), **content}, file)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(name, self.path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise InputError(f"{self.folder} cannot be written: {error}", "choose another --output") from error

    def load(self) -> dict[str, Any]:
        """What was saved.

        Raises:
            InputError: There is nothing, it is damaged, or it is the state of another run.
        """
        if not self.exists:
            raise InputError(f"there is no interrupted training in {self.folder}", "leave out --resume")
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            found = json.loads(content["identity"])
            known = content["schema"] == SCHEMA
        except (OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError, pickle.UnpicklingError,
                zipfile.BadZipFile) as error:  # fmt: skip
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise InputError(f"{self.path} is damaged: {reason}", "leave out --resume to start anew") from error
        if not known:
            raise InputError(f"{self.path} was written by another version", "leave out --resume to start anew")
        changed = sorted(differences(found, self._identity))
        if changed:
            raise InputError(
                f"{self.path} is of another run: {', '.join(changed[:5])}",
                "repeat the command as it was, or leave out --resume to start anew",
            )
        return dict(content)

    def remove(self) -> None:
        """Delete the file and its folder; what others put there stays."""
        for leftover in (self.path, *self.folder.glob(".state.*")):
            leftover.unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            shutil.rmtree(self.folder, ignore_errors=True)


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Where two JSON values differ: "training.lr (0.1, now 0.2)"."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted(one.keys() | other.keys())
        return [d for key in keys for d in differences(one.get(key), other.get(key), f"{where}.{key}".lstrip("."))]
    return [] if one == other else [f"{where} ({one}, now {other})"]
