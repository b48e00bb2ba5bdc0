"""Networks of 64 inputs or 8 x 8 pixels and 10 classes with the activations of `compress.nn`."""

from __future__ import annotations

from torch import nn

from compress.nn import SERLU, ChannelOut, Maxout, ShiftDropout


def maxout() -> nn.Module:
    hidden = (nn.Linear(64, 40), Maxout(4), nn.Linear(10, 24), Maxout(2))
    return nn.Sequential(*hidden, nn.Dropout(0.5), nn.Linear(12, 10))


def channel_out() -> nn.Module:
    hidden = (nn.Linear(64, 40), ChannelOut(4), nn.Linear(40, 24), nn.BatchNorm1d(24), ChannelOut(2, absmax=True))
    return nn.Sequential(*hidden, nn.Linear(24, 10))


def convolutions() -> nn.Module:
    first = (nn.Conv2d(1, 24, 3, padding=1), nn.BatchNorm2d(24), Maxout(3))
    second = (nn.Conv2d(8, 24, 3, stride=2, padding=1), ChannelOut(4), nn.Flatten())
    return nn.Sequential(*first, *second, nn.Linear(24 * 16, 20), SERLU(), ShiftDropout(0.2), nn.Linear(20, 10))
