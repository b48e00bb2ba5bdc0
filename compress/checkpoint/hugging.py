"""Models of the transformers library, from a folder with ``config.json`` and weights. The library is optional."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from compress.checkpoint.arch import Built
from compress.checkpoint.userfile import call_user
from compress.errors import InputError
from compress.graph.quiet import quiet
from compress.inputs import InputType

_TOKENS = 16  # in the example input of a language model


def from_folder(path: Path, config: Mapping[str, Any]) -> Built:
    """The model of the folder, built and filled by transformers; code that lies in the folder is not run.

    Raises:
        InputError: transformers is not installed, does not know the model, or fails.
    """
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names and isinstance(names[0], str) else ""
    said = f"{name or 'a model'} ({config.get('model_type', 'of no said type')})"
    try:
        import transformers
    except ImportError as error:
        raise InputError(
            f"{path} is a Hugging Face folder of {said}, whose code is in transformers, which is not installed",
            "pip install transformers; or say what builds it: --arch models.py:build",
        ) from error
    kind = getattr(transformers, name, None) if name.isidentifier() else None
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise InputError(
            f"{path}: transformers {getattr(transformers, '__version__', '')} has no {said}",
            "say what builds it: --arch models.py:build",
        )
    with quiet():
        module = call_user(
            kind.from_pretrained,  # type: ignore[attr-defined]
            str(path), local_files_only=True, trust_remote_code=False, what=f"transformers.{name}",
        )  # fmt: skip
    return Built(module.float(), f"transformers:{name}", (f"{name}, as config.json says, built by transformers",))


def usual_input(config: Mapping[str, Any]) -> tuple[tuple[int, ...], InputType] | None:
    """The first input of the model: images where the config has an image size, tokens where it has a vocabulary."""
    size, channels, words = (config.get(key) for key in ("image_size", "num_channels", "vocab_size"))
    if isinstance(size, int):
        return (channels if isinstance(channels, int) else 3, size, size), InputType()
    if isinstance(words, int) and words > 1:
        return (_TOKENS,), InputType("int64", words)
    return None


def preprocessing(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What ``preprocessor_config.json`` says of images, as a checkpoint would: ``mean``, ``std`` and ``input_size``."""
    found: dict[str, Any] = {}
    if settings.get("do_normalize", True):
        found |= {key: settings[f"image_{key}"] for key in ("mean", "std") if f"image_{key}" in settings}
    cropped = settings.get("do_center_crop") and "crop_size" in settings
    size = settings.get("crop_size" if cropped else "size")
    if isinstance(size, Mapping):
        size = [size.get("height", size.get("shortest_edge")), size.get("width", size.get("shortest_edge"))]
    sides = size if isinstance(size, list) else [size, size]
    if all(isinstance(side, int) for side in sides):
        found["input_size"] = [len(found.get("mean", (0, 0, 0))), *sides]
    return found
