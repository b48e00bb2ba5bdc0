"""Folders of results: written beside their place and moved there, so that they appear whole or not at all."""

from __future__ import annotations

import fnmatch
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from compress.errors import InputError

FIGURES = "figures"  # the one folder in a folder of results


def check_place(path: Path) -> None:
    """See that a folder can be made or replaced there: it is made beside its place and moved there.

    Raises:
        InputError: It is a file, or lies where nothing can be written.
    """
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file, and a directory is written", "choose another name")
    blocked = next((parent for parent in path.absolute().parents if parent.exists()), path)
    if not blocked.is_dir() or not os.access(blocked, os.W_OK):
        raise InputError(f"{path} cannot be made: {blocked} is not a writable directory", "choose another")


def write_folder(target: Path, content: Mapping[str, bytes | Path], *, ours: Collection[str], last: str = "") -> None:
    """Put files into a folder at once; what was written there before goes, files of others stay.

    Args:
        target: Where; made with its parents if needed.
        content: By file name what it holds, or a file to copy; pictures are ``figures/NAME``.
        ours: Patterns of the names that belong to a result of this kind.
        last: The file that is put last where there are files of others, so that it never lacks what belongs to it.

    Raises:
        InputError: The folder cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _sibling(target) as fresh:
            for name, value in content.items():
                (fresh / name).parent.mkdir(exist_ok=True)
                if isinstance(value, bytes):
                    (fresh / name).write_bytes(value)
                else:
                    shutil.copyfile(value, fresh / name)
            _put(fresh, target, ours, last)
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error.strerror or error}", "choose another --output") from error


@contextmanager
def _sibling(target: Path) -> Iterator[Path]:
    """A fresh directory beside `target` that is gone afterwards, whatever happens."""
    made = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        made.chmod(0o777 & ~_umask())
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _put(fresh: Path, target: Path, known: Collection[str], last: str) -> None:
    """Move a complete folder to its place; what is not part of a result there is not touched."""
    if not target.exists():
        fresh.rename(target)
        return
    present = _names(target)
    ours = {name for name in present if any(fnmatch.fnmatchcase(name, pattern) for pattern in known)}
    if ours == present:
        with _sibling(target) as old:
            target.rename(old / "old")
            try:
                fresh.rename(target)
            except OSError:
                (old / "old").rename(target)
                raise
        return
    # Beside files of others: one by one
    names = sorted(_names(fresh), key=lambda name: name == last)
    for name in names:
        (target / name).parent.mkdir(exist_ok=True)
        os.replace(fresh / name, target / name)
    for name in ours.difference(names):
        (target / name).unlink()


def _names(folder: Path) -> set[str]:
    """What lies in a folder; figures by their own names, as others may lie beside them."""
    found = set()
    for each in folder.iterdir():
        inside = [f"{each.name}/{f.name}" for f in each.iterdir()] if each.name == FIGURES and each.is_dir() else []
        found |= set(inside or [each.name])
    return found
