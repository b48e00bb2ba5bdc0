"""What a file is, told by its content."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open

from compress.errors import InputError

Form = Literal[
    "torch zip", "torch legacy", "torchscript", "safetensors", "pt2", "bundle", "onnx", "index", "folder"
]

INDEX = ".index.json"  # ends the name of the file that tells in which of several files a weight lies
FOLDER_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
RESAVE = "re-save its weights where its code is at hand: torch.save(model.state_dict(), 'weights.pt')"
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the pickled magic number of torch.save before 1.6
_FOREIGN = (
    (b"\xff\xd8\xff", "a JPEG image", ""),
    (b"\x89PNG", "a PNG image", ""),
    (b"GIF8", "a GIF image", ""),
    (b"%PDF", "a PDF document", ""),
    (b"\x89HDF", "an HDF5 file (Keras or MATLAB)", "convert its weights to safetensors"),
    (b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "fetch it with: git lfs pull"),
    (b"\x93NUMPY", "a NumPy array", "save the whole state dict with torch.save or safetensors"),
)


def sniff(path: Path) -> Form:
    """The form of the file or directory at `path`, by magic numbers, never by its extension.

    Raises:
        InputError: It is missing, unreadable, empty, truncated, or something else (which is named).
    """
    if path.is_dir():
        return _sniff_folder(path)
    head = _head(path)
    if not head:
        raise InputError(f"{path} is empty (0 bytes)", "was it copied or downloaded completely?")
    if head.startswith(b"PK\x03\x04"):
        return _sniff_zip(path)
    if head.startswith(_LEGACY):
        return "torch legacy"
    if _is_onnx(path, head):
        return "onnx"
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        return "safetensors"
    if path.name.endswith(INDEX) and head.lstrip()[:1] == b"{":
        return "index"
    raise _foreign(path, head)


def _sniff_folder(path: Path) -> Form:
    """A bundle, or a folder as Hugging Face libraries write it."""
    weights = path / "model.safetensors"
    if weights.is_file() and not (path / "config.json").is_file() and not any(path.glob(f"*{INDEX}")):
        return "bundle"
    if any((path / name).is_file() for name in FOLDER_WEIGHTS) or any(path.glob(f"*{INDEX}")):
        return "folder"
    raise InputError(
        f"{path} is a directory without model.safetensors, so it is no bundle; nor has it other weights under a usual "
        f"name ({', '.join(FOLDER_WEIGHTS[1:])}, *{INDEX})",
        "name a checkpoint file in it, or a directory that compress wrote",
    )


def read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors by name (CPU) and the metadata of a safetensors file; InputError when it is damaged."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length + 8 > size:
        raise InputError(
            f"{path}: its header claims {length:,} bytes, the file has {size:,}",
            "the file is truncated or not safetensors: copy or download it again",
        )
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
            return tensors, dict(file.metadata() or {})
    except (SafetensorError, ValueError, RuntimeError, OSError) as error:
        raise InputError(
            f"{path} is not a readable safetensors file: {error}", "copy, download or save it again"
        ) from error


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(64)
    except FileNotFoundError as error:
        near = [each.name for each in path.parent.glob("*" + path.suffix)][:5] if path.suffix else []
        hint = f"in {path.parent} there are: {', '.join(sorted(near))}" if near else "check the path"
        raise InputError(f"no such file: {path}", hint) from error
    except PermissionError as error:
        raise InputError(f"{path} cannot be read: permission denied", f"check: ls -l {path}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def _sniff_zip(path: Path) -> Form:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.partition("/")[2] or name for name in archive.namelist()]
    except (zipfile.BadZipFile, EOFError, struct.error) as error:
        raise damaged(path, error) from error
    if "archive_format" in names and any(name.startswith("models/") for name in names):
        return "pt2"
    if "constants.pkl" in names:
        return "torchscript"
    if "data.pkl" in names:
        return "torch zip"
    if any(name.startswith("serialized_exported_program") for name in names):
        raise InputError(
            f"{path} is a torch.export archive in a format that torch has given up",
            "load it with the torch that wrote it, and save it again with a current one",
        )
    what = "a NumPy archive" if names and all(name.endswith(".npy") for name in names) else "a zip archive"
    raise InputError(f"{path} is {what} without a model in it", "expected a state dict, safetensors, .pt2 or a bundle")


def _is_onnx(path: Path, head: bytes) -> bool:
    """A protocol buffer that begins with the version of the format (field 1), as ONNX models do; or one by name."""
    if head[4:9] == b"\0\0\0\0{":
        return False  # the length of a safetensors header
    foreign = any(head.startswith(magic) for magic, _, _ in _FOREIGN) or head.lstrip()[:1] == b"<"
    if path.suffix == ".onnx":
        return not foreign
    return len(head) > 2 and head[0] == 0x08 and 1 <= head[1] < 0x40 and head[2] & 7 in (0, 2) and head[2] >> 3 > 1


def _foreign(path: Path, head: bytes) -> InputError:
    expected = "expected a state dict (.pt, .pth), safetensors, .pt2, .onnx or a bundle"
    for magic, what, hint in _FOREIGN:
        if head.startswith(magic):
            return InputError(f"{path} is {what}, not a checkpoint", hint or expected)
    if head.lstrip()[:5].lower() in (b"<html", b"<!doc"):
        return InputError(f"{path} is a web page, not a checkpoint", "fetch it again: the download went wrong")
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        return InputError(f"{path} is a plain pickle, which is not loaded: it can run code", RESAVE)
    return InputError(f"{path} is not a checkpoint: it begins with {head[:8]!r}", expected)


def damaged(path: Path, error: Exception) -> InputError:
    """A file that ends too early or was changed on its way."""
    detail = str(error).strip().split("\n")[0][:160] or type(error).__name__
    return InputError(f"{path} is truncated or damaged: {detail}", "copy, download or save it again")
