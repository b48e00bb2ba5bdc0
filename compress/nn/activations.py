"""SERLU, a self-normalising activation with a bump."""

from __future__ import annotations

import math

from torch import Tensor, nn

# A unit Gaussian comes out with mean 0 and variance 1.
SCALE = 1.07862
ALPHA = 2.90427
LOWEST = -SCALE * ALPHA / math.e  # at x = -1; -1.15242


def serlu(x: Tensor) -> Tensor:
    """``SCALE * x`` where x is above 0 and ``SCALE * ALPHA * x * exp(x)`` elsewhere, element by element."""
    below = x.clamp(max=0)  # so that exp cannot overflow: 0 times infinity would be no number
    return SCALE * (x.relu() + ALPHA * below * below.exp())


class SERLU(nn.Module):
    """The scaled exponentially-regularised linear unit (Zhang and Li, 2018, arXiv:1807.10117).

    Like SELU it keeps activations near mean 0 and variance 1, if weights are drawn with variance 1 / inputs; unlike
    SELU it goes back to 0 for very negative inputs. Its dropout is :class:`compress.nn.ShiftDropout`.

    Shape: any; the output has the shape of the input.
    """

    def forward(self, x: Tensor) -> Tensor:
        return serlu(x)
