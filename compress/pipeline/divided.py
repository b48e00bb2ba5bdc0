"""The training samples divided: those that judge results, and those that methods, refits and trainings may see."""

from __future__ import annotations

from dataclasses import replace

import torch

from compress.data import Data, Split
from compress.recover.samples import divided


def without_judges(data: Data | None, share: float) -> Data | None:
    """The data without the share of its training samples that judges."""
    if data is None or data.train is None or not share:
        return data
    return replace(data, train=divided(data.train, share)[0])


def some(split: Split, count: int) -> Split:
    """At most so many samples, always the same ones, from everywhere in the split."""
    if len(split) <= count:
        return split
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))[:count].sort().values
    return Split(split.inputs[order], split.targets[order])
