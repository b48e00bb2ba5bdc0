"""What of a network cannot be handled, told before any work."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import fx, nn

from compress.errors import InputError, ModelError
from compress.graph import Program
from compress.graph.double import leaves
from compress.graph.names import graph_tensors
from compress.pipeline.opening import Opened
from compress.wording import plural


def check_network(program: Program, opened: Opened) -> None:
    """See that a network can be pruned at all, and that the user's samples can be run through it.

    Raises:
        InputError: Its weights are no numbers.
        ModelError: It takes batches of one size alone, which samples cannot be run in.
    """
    bad = list(_not_finite(program.module))
    if bad:
        name, count = bad[0]
        others = f", and {plural(len(bad) - 1, 'other tensor')} with such" if len(bad) > 1 else ""
        raise InputError(
            f"{opened.loaded.path}: {name} holds {plural(count, 'number')} that {'is' if count == 1 else 'are'} not "
            f"finite{others}",
            "the training that made it has diverged, or the file is damaged: give an earlier checkpoint",
        )
    _check_samples(program, opened)


def _not_finite(module: fx.GraphModule) -> Iterator[tuple[str, int]]:
    """Trained parameters with numbers that are not finite, and other tensors with NaN, and how many they are.

    Infinity is of use elsewhere, as in the mask of an attention.
    """
    for name, tensor in graph_tensors(module).items():
        if not tensor.is_floating_point():
            continue
        trained = isinstance(tensor, nn.Parameter) and tensor.requires_grad
        bad = ~torch.isfinite(tensor) if trained else torch.isnan(tensor)
        if count := int(bad.sum()):
            yield name, count


def _check_samples(program: Program, opened: Opened) -> None:
    """See that the user's samples can be run in batches, as refits, measurements and the accuracy need it.

    Raises:
        ModelError: The network takes batches of one size alone.
    """
    if opened.data is None or program.dynamic_batch or len(program.inputs) != 1:
        return
    samples = opened.data.test.inputs[:3]
    samples = samples.expand(3, *samples.shape[1:]) if len(samples) == 1 else samples
    try:
        with torch.no_grad():
            results = leaves(program.module(samples.clone()))
    except Exception:  # the model's own operations may raise anything
        results = []
    if not any(y.dim() and len(y) == len(samples) for y in results):
        raise ModelError(
            f"{opened.loaded.path} takes batches of {int(program.inputs[0].shape[0])} alone, so the samples of --data "
            "cannot be run through it",
            "export it with a dynamic batch, give the checkpoint it was made of, or leave out --data",
        )
