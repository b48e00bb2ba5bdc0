"""The file that a bundle was made of, found again."""

from __future__ import annotations

import tomllib
from pathlib import Path

from compress.errors import InputError
from compress.report import read_report
from compress.request import ModelSource


def original_of(model: ModelSource, *, teacher: bool = False) -> tuple[ModelSource, str]:
    """The file that a bundle names as its input, or as its teacher where it has one, and its digest.

    Raises:
        InputError: It names none, the file is not there, or its architecture is code that the user has not named.
    """
    folder = model.path if model.path.is_dir() else model.path.parent
    try:
        recipe = tomllib.loads((folder / "recipe.toml").read_text("utf-8"))
        table = recipe.get("teacher", recipe["model"]) if teacher else recipe["model"]
        path, arch = Path(table["path"]), table.get("arch")
        digest = table["sha256"] if "sha256" in table else str(read_report(folder)["input"]["sha256"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, InputError) as error:
        raise InputError("the bundle does not name its original") from error
    if not path.exists():
        raise InputError(f"the original {path} is not here")
    if arch is not None and str(arch).partition(":")[0] not in ("torchvision", "timm", "mlp") and arch != model.arch:
        raise InputError(f"the original {path} is built by {arch}, which is run only where --arch says so")
    shapes = table.get("input_shapes")
    shapes = None if shapes is None else tuple(tuple(int(n) for n in shape) for shape in shapes)
    return ModelSource(path, arch, table.get("arch_args", {}), shapes), digest
