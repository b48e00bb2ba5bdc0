from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.parametrize("op", ["max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "upsample_nearest2d"])
def test_channels_pass_and_positions_stay(bench: Any, op: str) -> None:
    out = bench(op, (1, 4, 2, 2), self=bench.tensor(1, 4, 3, 3, along=[1, 2]))
    assert bench.along(out, 1) == [[1, 2, 3, 4]]
    assert bench.pinned == [5, 6, 7]


def test_padded_channels_get_labels_of_their_own(bench: Any) -> None:
    """The padded identity shortcut: two channels in front, one behind."""
    x = bench.tensor(1, 4, 3, 3, along=[1])
    args = {"self": x, "pad": [0, 0, 0, 0, 2, 1]}
    out = bench("pad", (1, 7, 3, 3), **args)
    assert bench.along(out, 1) == [[5, 6, 1, 2, 3, 4, 7]]
    changes = bench.rewrite([8, 2], "pad", (1, 7, 3, 3), **args)  # the second call made labels 8 9 | 10
    assert changes == {"pad": [0, 0, 0, 0, 1, 1]}


@pytest.mark.parametrize("more", [{"mode": "reflect", "pad": [1, 1]}, {"pad": [-1, 0]}])
def test_other_padding_of_a_labelled_dim_pins(bench: Any, more: Any) -> None:
    size = 4 + sum(more["pad"])
    bench("pad", (1, size), self=bench.tensor(1, 4, along=[1]), **more)
    assert bench.pinned == [1, 2, 3, 4]


def test_spatial_padding_leaves_channels_alone(bench: Any) -> None:
    args = {"self": bench.tensor(1, 4, 3, along=[1]), "pad": [1, 1]}
    assert bench.along(bench("pad", (1, 4, 5), **args), 1) == [[1, 2, 3, 4]]
    assert bench.rewrite([1], "pad", (1, 4, 5), **args) == {"pad": [1, 1]}


def test_pixel_shuffle_removes_whole_blocks(bench: Any) -> None:
    """8 channels to 2 of twice the size: the four channels of a block go together."""
    out = bench("pixel_shuffle", (1, 2, 6, 6), self=bench.tensor(1, 8, 3, 3, along=[1]), upscale_factor=2)
    (blocks,) = bench.along(out, 1)
    assert len(blocks) == 2
    assert bench.reasons == {"becomes a spatial position in pixel_shuffle"}


def test_pixel_unshuffle_repeats_each_channel(bench: Any) -> None:
    out = bench("pixel_unshuffle", (1, 8, 2, 2), self=bench.tensor(1, 2, 4, 4, along=[1]), downscale_factor=2)
    assert bench.along(out, 1) == [[1, 1, 1, 1, 2, 2, 2, 2]]


def test_channel_shuffle_deals_blocks_like_cards(bench: Any) -> None:
    """Channels a0 a1 | b0 b1 become a0 b0 a1 b1: index labels are aligned, block labels alternate."""
    args = {"self": bench.tensor(1, 4, 3, along=[1]), "groups": 2}
    out = bench("channel_shuffle", (1, 4, 3), **args)
    inner, blocks = sorted(bench.along(out, 1), key=lambda labels: labels[0] == labels[1], reverse=True)
    assert blocks[0] == blocks[2] != blocks[1] == blocks[3]
    assert inner[0] == inner[1] != inner[2] == inner[3]
    assert bench.rewrite([3, 4, blocks[1]], "channel_shuffle", (1, 4, 3), **args) == {"groups": 1}
