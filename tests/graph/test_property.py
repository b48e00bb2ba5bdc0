"""Random small networks: whatever is stacked, the slice is exact."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

WIDTH = 8


def conv(inputs: int, outputs: int, size: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, groups=groups)


class Step(nn.Module):
    """One building block from WIDTH to WIDTH channels on images of 4 x 4 positions."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        w = WIDTH
        makers: dict[str, list[nn.Module]] = {
            "conv": [conv(w, w, 3)],
            "depthwise": [conv(w, w, 3, groups=w), conv(w, w)],
            "grouped": [conv(w, 2 * w, 1, groups=4), conv(2 * w, w, groups=2)],
            "batch norm": [nn.BatchNorm2d(w)],
            "group norm": [nn.GroupNorm(2, w)],
            "layer norm": [nn.LayerNorm(w)],
            "residual": [conv(w, 6), conv(6, w)],
            "concat": [conv(w, 6), conv(w + 6, w)],
            "split": [conv(4, 4), conv(w, w)],
            "part": [conv(4, 4)],
            "shuffle": [nn.ChannelShuffle(2)],
            "gate": [conv(w, 4), conv(4, w)],
            "glu": [conv(w, 2 * w)],
            "attention": [nn.Linear(w, 3 * w), nn.Linear(w, w)],
            "shared heads": [nn.Linear(w, w), nn.Linear(w, 4), nn.Linear(w, 4), nn.Linear(w, w)],
            "tokens": [nn.Linear(w, 12), nn.Linear(12, w)],
            "mix": [nn.Linear(16, 5), nn.Linear(5, 16)],
            "upscale": [conv(w, 4 * w)],
            "across heads": [nn.Linear(w, w), nn.LayerNorm(2)],
        }
        self.layers = nn.ModuleList(makers[kind])

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = getattr(self, "run_" + self.kind.replace(" ", "_"), self.run)(x)
        return result

    def run(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return F.relu(x) if self.kind in ("conv", "depthwise", "grouped") else x

    def run_layer_norm(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers[0](x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return y

    def run_residual(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.layers[1](F.silu(self.layers[0](x)))
        return y

    def run_concat(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers[1](torch.cat([x, self.layers[0](x)], 1))
        return y

    def run_split(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        y: Tensor = self.layers[1](torch.cat([b, torch.sigmoid(self.layers[0](a))], 1))
        return y

    def run_part(self, x: Tensor) -> Tensor:
        return torch.cat([self.layers[0](x[:, :4]), x[:, 4:]], 1)

    def run_gate(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.layers[1](F.relu(self.layers[0](x.mean((2, 3), keepdim=True)))))

    def run_glu(self, x: Tensor) -> Tensor:
        return F.glu(self.layers[0](x), 1)

    def run_attention(self, x: Tensor) -> Tensor:
        t = x.flatten(2).transpose(1, 2)
        q, k, v = self.layers[0](t).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4).unbind(0)
        y = self.layers[1](F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return (t + y).transpose(1, 2).unflatten(2, (4, 4))

    def run_shared_heads(self, x: Tensor) -> Tensor:
        t = x.flatten(2).transpose(1, 2)
        q, k, v = (f(t).unflatten(2, (n, 2)).transpose(1, 2) for f, n in zip(self.layers, (4, 2, 2), strict=False))
        y = F.scaled_dot_product_attention(q, k, v, enable_gqa=True).transpose(1, 2).flatten(2)
        out: Tensor = self.layers[3](y).transpose(1, 2).unflatten(2, (4, 4))
        return out

    def run_tokens(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers[1](F.gelu(self.layers[0](x.permute(0, 2, 3, 1)))).permute(0, 3, 1, 2)
        return x + y

    def run_mix(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers[1](F.gelu(self.layers[0](x.flatten(2))))
        return x + y.unflatten(2, (4, 4))

    def run_across_heads(self, x: Tensor) -> Tensor:
        y = self.layers[0](x.permute(0, 2, 3, 1)).unflatten(3, (2, 4)).transpose(3, 4)
        out: Tensor = x + self.layers[1](y).softmax(4).flatten(3).permute(0, 3, 1, 2)
        return out

    def run_upscale(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(F.pixel_shuffle(self.layers[0](x), 2), 2)


KINDS = [
    "conv", "depthwise", "grouped", "batch norm", "group norm", "layer norm", "residual", "concat", "split", "part",
    "shuffle", "gate", "glu", "attention", "shared heads", "tokens", "mix", "upscale", "across heads",
]  # fmt: skip


def network(kinds: list[str], flat: bool) -> nn.Module:
    head = (
        [nn.Flatten(), nn.Linear(16 * WIDTH, 3)]
        if flat
        else [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTH, 3)]
    )
    return nn.Sequential(conv(3, WIDTH), *(Step(kind) for kind in kinds), *head).eval()


@settings(max_examples=25, derandomize=True, deadline=None, database=None)
@given(
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=5),
    flat=st.booleans(),
    ratio=st.sampled_from([0.2, 0.5, 0.9]),
)
def test_any_stack_is_exact(lab: Any, kinds: list[str], flat: bool, ratio: float) -> None:
    outcome = lab.prune(lab.randomised(network(kinds, flat)), torch.randn(2, 3, 4, 4), ratio=ratio)
    assert outcome.coupling.flow.unruled == {}
    assert outcome.verification.passed, outcome.verification
    assert outcome.sliced(torch.randn(3, 3, 4, 4)).shape == (3, 3)
