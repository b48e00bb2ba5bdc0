"""Import the function a user names as ``file.py:function`` or ``package.module:function``."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from compress.errors import InputError
from compress.registry.words import did_you_mean


def load_callable(reference: str, *, flag: str) -> Callable[..., Any]:
    """The callable that `reference` names; its file or module is executed.

    Args:
        reference: ``file.py:function`` or ``package.module:function``. Only the user may say it: never pass
            a reference that was read from a checkpoint.
        flag: The option it came from ("--arch"), for the messages.

    Raises:
        InputError: The file, module or attribute is missing, cannot be imported, or is not callable.
    """
    where, _, attribute = reference.rpartition(":")
    if not where or not attribute:
        raise InputError(
            f"{flag} {reference}: expected file.py:function or package.module:function",
            f"for example {flag} models.py:build",
        )
    module = _import_file(Path(where), flag) if _is_file(where) else _import_name(where, flag)
    target: Any = module
    for part in attribute.split("."):
        if not hasattr(target, part):
            names = [name for name in vars(target) if callable(getattr(target, name))]
            raise InputError(f"{flag} {reference}: {where} has no {part!r}", near_or_some(part, names))
        target = getattr(target, part)
    if not callable(target):
        raise InputError(
            f"{flag} {reference}: {attribute!r} is not a function but of type {type(target).__name__}",
            f"name a function or class of {where}",
        )
    return target


def call_user(function: Callable[..., Any], *args: Any, what: str, **kwargs: Any) -> Any:
    """`function(*args, **kwargs)`; whatever it raises becomes an InputError that names `what`."""
    try:
        return function(*args, **kwargs)
    except Exception as error:  # user code: any failure is reported as the user's own
        raise InputError(f"{what} failed: {type(error).__name__}: {error}") from error


def near_or_some(name: str, known: Iterable[str]) -> str:
    """A hint with the known names nearest to a mistyped one, or with a few of them when none is near."""
    names = sorted(each for each in set(known) if not each.startswith("_"))
    some = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return did_you_mean(name, names) or (f"there are: {some}" if names else "")


def _is_file(where: str) -> bool:
    return where.endswith(".py") or "/" in where or os.sep in where


@contextmanager
def _on_path(folder: Path) -> Iterator[None]:
    """`folder` first on the import path, so that a file finds the modules beside it."""
    entry = str(folder.resolve())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        if entry in sys.path:
            sys.path.remove(entry)


def _import_file(path: Path, flag: str) -> ModuleType:
    if not path.is_file():
        near = near_or_some(path.name, [each.name for each in path.parent.glob("*.py")])
        raise InputError(f"{flag}: no such file: {path}", near)
    name = f"_compress_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{flag}: {path} is not a Python file", "name a file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and typing look their module up there
    with _on_path(path.parent):
        call_user(spec.loader.exec_module, module, what=f"importing {path}")
    return module


def _import_name(name: str, flag: str) -> ModuleType:
    with _on_path(Path.cwd()):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
                raise InputError(f"importing {name} failed: {error}") from error
            raise InputError(
                f"{flag}: no module named {name!r}",
                "install it, run from its folder, or name a file: file.py:function",
            ) from error
        except Exception as error:  # the user's module itself failed
            raise InputError(f"importing {name} failed: {type(error).__name__}: {error}") from error
