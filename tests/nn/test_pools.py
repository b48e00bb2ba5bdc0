from __future__ import annotations

import pytest
import torch
from torch import nn

from compress.nn import ChannelOut, Maxout


def test_maxout_by_hand() -> None:
    x = torch.tensor([[1.0, 4.0, -3.0, 2.0, -5.0, -6.0]])
    assert Maxout(2)(x).tolist() == [[4.0, 2.0, -5.0]]
    assert Maxout(3)(x).tolist() == [[4.0, 2.0]]
    assert torch.equal(Maxout(1)(x), x)


def test_maxout_with_a_piece_of_zeros_is_relu() -> None:
    """linear(5, 6) with every second unit zero, against relu of the other units."""
    linear = nn.Linear(5, 6)
    with torch.no_grad():
        linear.weight[1::2] = 0
        linear.bias[1::2] = 0
    x = torch.randn(20, 5)
    torch.testing.assert_close(Maxout(2)(linear(x)), linear(x)[:, ::2].relu())


def test_channel_out_by_hand() -> None:
    x = torch.tensor([[1.0, 4.0, -3.0, 2.0, -5.0, -6.0]])
    assert ChannelOut(2)(x).tolist() == [[0.0, 4.0, 0.0, 2.0, -5.0, 0.0]]
    assert ChannelOut(3)(x).tolist() == [[0.0, 4.0, 0.0, 2.0, 0.0, 0.0]]
    assert ChannelOut(2, absmax=True)(x).tolist() == [[0.0, 4.0, -3.0, 0.0, 0.0, -6.0]]
    assert ChannelOut(3, absmax=True)(x).tolist() == [[0.0, 4.0, 0.0, 0.0, 0.0, -6.0]]


def test_ties_go_to_the_first() -> None:
    x = torch.tensor([[3.0, 3.0, -2.0, 2.0], [0.0, 0.0, 2.0, -2.0]])
    assert ChannelOut(2)(x).tolist() == [[3.0, 0.0, 0.0, 2.0], [0.0, 0.0, 2.0, 0.0]]
    assert ChannelOut(2, absmax=True)(x).tolist() == [[3.0, 0.0, -2.0, 0.0], [0.0, 0.0, 2.0, 0.0]]


@pytest.mark.parametrize("absmax", [False, True])
@pytest.mark.parametrize("pool", [2, 3, 4])
def test_one_of_every_pool_passes(pool: int, absmax: bool) -> None:
    x = torch.randn(50, 24)
    y = ChannelOut(pool, absmax)(x)
    assert ((y != 0).sum(1) == 24 // pool).all()
    assert torch.equal(y[y != 0], x[y != 0])
    passed = y.unflatten(1, (-1, pool)).sum(2)
    assert torch.equal(passed.abs() if absmax else passed, Maxout(pool)(x.abs() if absmax else x))


@pytest.mark.parametrize("shape", [(2, 12), (2, 12, 5), (2, 12, 3, 4), (2, 12, 2, 3, 2)])
def test_channels_come_second(shape: tuple[int, ...]) -> None:
    """At every position as if it were alone."""
    x = torch.randn(shape)
    flat = x.flatten(2) if x.dim() > 2 else x[..., None]
    for module in (Maxout(3), ChannelOut(3), ChannelOut(3, absmax=True)):
        alone = torch.stack([module(flat[..., i]) for i in range(flat.shape[2])], -1)
        assert torch.equal(module(x), alone.reshape(2, -1, *shape[2:]))


def test_another_dim() -> None:
    x = torch.randn(2, 5, 12)
    for one, other in ((Maxout(3, dim=-1), Maxout(3)), (ChannelOut(3, dim=-1), ChannelOut(3))):
        assert torch.equal(one(x), other(x.transpose(1, 2)).transpose(1, 2))


def test_gradients() -> None:
    x = torch.randn(3, 12, dtype=torch.float64, requires_grad=True)
    for module in (Maxout(3), ChannelOut(3), ChannelOut(3, absmax=True)):
        assert torch.autograd.gradcheck(module, x)


def test_wrong_sizes() -> None:
    for module in (Maxout(5), ChannelOut(5)):
        with pytest.raises(ValueError, match="dim 1 has 12 indices, which makes no whole pools of 5"):
            module(torch.zeros(2, 12))
    with pytest.raises(ValueError, match="pool must be at least 1"):
        Maxout(0)
