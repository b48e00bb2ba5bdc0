"""Widths that hardware likes: which multiple, and at which steps a cluster keeps to it.

A multiple costs nothing in accuracy that the budget would not have cost anyway, and decides how much of the saved work
is saved time. 3x3 convolutions of 64 channels in ONNX Runtime 1.31 on one core with AVX-512, made narrower (speed-up
over the factor of saved MACs; 1 would be all of it):

=====  ====  ====  ====  ====  ====  ====  ====
width   63    60    56    48    45    40    32
share  0.67  0.81  0.72  0.93  0.62  0.65  0.89
=====  ====  ====  ====  ====  ====  ====  ====

Its kernels work on blocks of as many channels as a register holds floats: 16 with AVX-512, 8 without. On CUDA, tensor
cores ask for multiples of 8 in half precision (NVIDIA, Deep Learning Performance Guide); that was not measured here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from compress.graph import Cluster, Coupling, attribute, layer_weights, lowest

Runtime = Literal["onnxruntime-cpu", "cuda", "none"]
Ints = NDArray[np.int64]
_Dim = tuple[str, int]  # a tensor's name, and one of its dims


def multiple(round_to: int | Literal["auto"], runtime: Runtime) -> int:
    """What widths are rounded to; 1 where they are not.

    Args:
        round_to: A number, or what the runtime likes.
        runtime: Where the network is to run; this machine's CPU speaks for the one of ``onnxruntime-cpu``.
    """
    if round_to != "auto":
        return round_to
    if runtime == "onnxruntime-cpu":
        return 16 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 8
    return 8 if runtime == "cuda" else 1


def rungs(coupling: Coupling, found: Sequence[Cluster], round_to: int = 1) -> list[Ints]:
    """By cluster the steps at which it may stand, from 0 upwards, one unit at least staying.

    With ``round_to`` above 1 those at which every dim that it shortens of the weight of a layer keeps a multiple of
    it, whole dims and not units being counted: all groups of a convolution, all heads together. Of a dim that several
    clusters shorten, such as the inputs behind a concatenation, each has to keep a multiple of its own part. A
    cluster that reaches no multiple keeps to 0.
    """
    everything = [np.arange(cluster.steps) for cluster in found]
    if round_to == 1:
        return everything
    lost = [_lost(coupling, cluster) for cluster in found]
    shortened_by: dict[_Dim, int] = defaultdict(int)
    for dims in lost:
        for dim in dims:
            shortened_by[dim] += 1
    result = []
    for steps, dims in zip(everything, lost, strict=True):
        part = {dim: len(steps) * n for dim, n in dims.items()}
        # What does not go counts where nobody else shortens the dim, unless it rules every step out
        whole = {dim: part[dim] if shortened_by[dim] > 1 else _size(coupling, dim) for dim in dims}
        allowed = _multiples(steps, dims, whole, round_to)
        result.append(allowed if len(allowed) > 1 else _multiples(steps, dims, part, round_to))
    return result


def _multiples(steps: Ints, lost: Mapping[_Dim, int], widths: Mapping[_Dim, int], round_to: int) -> Ints:
    fits = np.ones(len(steps), dtype=bool)
    for dim, n in lost.items():
        fits &= (widths[dim] - steps * n) % round_to == 0
    fits[0] = True
    return steps[fits]


def _size(coupling: Coupling, dim: _Dim) -> int:
    return int(attribute(coupling.program.module, dim[0]).shape[dim[1]])


def _lost(coupling: Coupling, cluster: Cluster) -> dict[_Dim, int]:
    """By dim of the weight of a layer (of any tensor, if it reaches no such weight) what a step takes from it."""
    scores = {name: np.zeros(coupling.group(name).size) for name in cluster.groups}
    kept = coupling.kept(coupling.alive(lowest(cluster, scores, 1)))
    lost = {
        (tensor, dim): _size(coupling, (tensor, dim)) - index.shape[-1]
        for tensor, dims in kept.items()
        for dim, index in dims.items()
    }
    lost = {dim: n for dim, n in lost.items() if n}
    layers = set(layer_weights(coupling))
    return {dim: n for dim, n in lost.items() if dim[0] in layers} or lost
