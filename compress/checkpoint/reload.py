"""Prove that a bundle loads by itself: in a new process that cannot import what made it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.utils._pytree as pytree
from torch import Tensor

import compress
from compress.checkpoint.bundle import load_bundle
from compress.errors import CompressError
from compress.graph.double import same_draws

# Makes this package known without the directory it lies in, where a model's source may lie too
_START = """
import sys
from importlib import util
spec = util.spec_from_file_location("compress", sys.argv[1], submodule_search_locations=[sys.argv[2]])
sys.modules["compress"] = module = util.module_from_spec(spec)
spec.loader.exec_module(module)
sys.path[:0] = [path for path in sys.argv[6:] if path not in sys.path]
from compress.checkpoint.reload import run_bundle
run_bundle(*sys.argv[3:6])
"""


def reload_error(directory: str | Path, inputs: Any, expected: Any) -> float:
    """Largest relative difference between `expected` and the outputs of the bundle, loaded in a new process.

    Args:
        directory: The bundle, or its model.safetensors.
        inputs: The positional arguments: tensors, or nested containers of tensors.
        expected: What the network gave for them before it was written: a tensor or containers of tensors.

    Returns:
        max |a - b| / max(1, max |b|) over all outputs, 0.0 where there are no differences.

    Raises:
        CompressError: The new process failed; the message is its last line.
    """
    package = Path(compress.__file__).resolve()
    try:
        found = apart(_START, (package, package.parent, Path(directory).resolve()), inputs)
    except CompressError as error:
        raise CompressError(f"{directory} does not load in a new process: {error}") from error
    return largest_error(found, expected)


def apart(code: str, arguments: Sequence[str | Path], inputs: Any) -> list[Tensor]:
    """What a new process gives that can import libraries alone, none of the files of this one's directory.

    Args:
        code: What it runs. ``sys.argv`` has the arguments, a safetensors file to read the inputs from, one to write
            the outputs to, and the folders where the libraries of this process lie.
        arguments: Of the code.
        inputs: Tensors, or nested containers of tensors; in the file they are numbered in order.

    Raises:
        CompressError: It failed; the message is its last line.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder, "inputs.safetensors"), Path(folder, "outputs.safetensors")
        safetensors.torch.save_file(_numbered(inputs), given)
        done = subprocess.run(
            [sys.executable, "-I", "-W", "ignore", "-c", code, *map(str, (*arguments, given, made, *_libraries()))],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode or not made.exists():
            raise CompressError((done.stderr.strip().splitlines() or ["it said nothing"])[-1])
        return _in_order(made)


def run_bundle(path: str, inputs: str, outputs: str) -> None:
    """What the new process does: run the bundle `path` on the tensors of one file, write those of another."""
    module = load_bundle(path)
    codegen: Any = getattr(getattr(module, "graph", None), "_codegen", None)
    info = getattr(codegen, "pytree_info", None)
    args, kwargs = _in_order(Path(inputs)), {}
    if info is not None:
        nested = pytree.tree_unflatten(args, info.in_spec)
        args, kwargs = nested if info.in_spec.num_children == 2 and isinstance(nested[1], dict) else (nested, {})
    with torch.no_grad(), same_draws():
        found = module(*args, **kwargs)
    safetensors.torch.save_file(_numbered(found), outputs)


def largest_error(found: Any, expected: Any) -> float:
    """max |a - b| / max(1, max |b|) over pairs of tensors; infinite where shapes or NaNs differ."""
    pairs = list(zip(_tensors(found), _tensors(expected), strict=False))
    if len(_tensors(found)) != len(_tensors(expected)):
        return float("inf")
    worst = 0.0
    for a, b in pairs:
        if a.shape != b.shape:
            return float("inf")
        if not a.numel() or torch.equal(a, b):
            continue
        a, b = a.detach().cpu().double(), b.detach().cpu().double()
        same = (a == b) | (a.isnan() & b.isnan())
        gap = torch.where(same, 0.0, a - b).abs().max()
        scale = b[b.isfinite()].abs().max() if b.isfinite().any() else torch.tensor(0.0)
        error = float(gap) / max(1.0, float(scale))
        worst = max(worst, error if error == error else float("inf"))
    return worst


def _tensors(value: Any) -> list[Tensor]:
    return [each for each in pytree.tree_leaves(value) if isinstance(each, Tensor)]


def _numbered(value: Any) -> dict[str, Tensor]:
    """Tensors by position, in names that sort in that order."""
    return {f"{index:06d}": tensor.detach().cpu().contiguous().clone() for index, tensor in enumerate(_tensors(value))}


def _in_order(file: Path) -> list[Tensor]:
    return [tensor for _, tensor in sorted(safetensors.torch.load_file(file).items())]


def _libraries() -> list[str]:
    """Where torch and the like were found, for an isolated process that looks in fewer places."""
    return sorted({str(Path(each.__file__).resolve().parents[1]) for each in (torch, safetensors) if each.__file__})
