"""Models of the transformers library, from a folder with ``config.json`` and weights. The library is optional."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from compress.checkpoint.arch import Built
from compress.checkpoint.userfile import call_user
from compress.errors import InputError
from compress.graph.quiet import quiet
from compress.inputs import InputType

Input = tuple[tuple[int, ...], InputType]  # its shape without the batch, and its type

_TOKENS = 16  # in the example input of a language model
_DECODER = "decoder_input_ids"


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
    _without_cache(module)
    return Built(module.float(), f"transformers:{name}", (f"{name}, as config.json says, built by transformers",))


def _without_cache(module: nn.Module) -> None:
    """No keys and values among the outputs: only generation needs them, and torch cannot export all their classes."""
    for each in module.modules():
        config = getattr(each, "config", None)
        if getattr(config, "use_cache", False):
            config.use_cache = False  # type: ignore[union-attr]


def usual_inputs(config: Mapping[str, Any], parameters: Sequence[str]) -> tuple[Input, ...]:
    """The inputs of the model: the first alone, or where an encoder and a decoder read, all up to the decoder's tokens.

    Images where the config has an image size, frames of sound where it has mel bins, tokens where it has a vocabulary.

    Args:
        config: Content of ``config.json``.
        parameters: Names of what the model's forward takes, in order.
    """
    words = config.get("vocab_size")
    tokens = ((_TOKENS,), InputType("int64", words)) if isinstance(words, int) and words > 1 else None
    first = _images(config) or _frames(config) or tokens
    if first is None or not config.get("is_encoder_decoder") or tokens is None or _DECODER not in parameters:
        return () if first is None else (first,)
    mask = ((first[0][-1],), InputType("int64"))
    between = parameters[1 : parameters.index(_DECODER)]
    return (first, *(mask for _ in between), tokens) if set(between) <= {"attention_mask"} else (first,)


def _images(config: Mapping[str, Any]) -> Input | None:
    size, channels = config.get("image_size"), config.get("num_channels")
    if not isinstance(size, int):
        return None
    return (channels if isinstance(channels, int) else 3, size, size), InputType()


def _frames(config: Mapping[str, Any]) -> Input | None:
    """Two of them become one position of the encoder."""
    bins, positions = config.get("num_mel_bins"), config.get("max_source_positions")
    return ((bins, 2 * positions), InputType()) if isinstance(bins, int) and isinstance(positions, int) else None


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
