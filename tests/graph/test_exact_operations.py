"""Less common operations, one by one: what they leave free, and slices that are exact. Tokens: (2, 6, 16)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

Parts = dict[str, Any]


def linears(**more: Any) -> Parts:
    return {"i": nn.Linear(16, 8), "o": nn.Linear(8, 2), **more}


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


def top_tokens(m: Any, x: Any) -> Any:
    index = m.s(x).squeeze(-1).topk(2, 1).indices
    return m.o(m.i(x).gather(1, index.unsqueeze(-1).expand(-1, -1, 8)))


def rotated_pairs(m: Any, x: Any) -> Any:
    y = m.i(x)
    return m.o(torch.stack([-y[..., 1::2], y[..., ::2]], -1).flatten(-2))


def blurred(m: Any, x: Any) -> Any:
    y = m.i(x).transpose(1, 2)
    return m.o(F.conv1d(y, m.k.expand(y.shape[1], 1, 3), padding=1, groups=y.shape[1]).transpose(1, 2))


def blurred_by_copies(m: Any, x: Any) -> Any:
    y = m.i(x).transpose(1, 2)
    return m.o(F.conv1d(y, m.k.repeat(8, 1, 1), padding=1, groups=8).transpose(1, 2))


def image(m: Any, x: Any) -> Any:
    return m.i(x).transpose(1, 2).unflatten(2, (2, 3))


def patches_folded_back(m: Any, x: Any) -> Any:
    y = image(m, x)
    columns = m.mix(F.unfold(y, (2, 1), stride=(2, 1)).transpose(1, 2)).transpose(1, 2)
    return m.o(F.fold(columns, (2, 3), (2, 1), stride=(2, 1)).mean((2, 3)))


def sampled(m: Any, x: Any) -> Any:
    y = image(m, x)
    grid = F.affine_grid(m.t(x[:, 0]).view(-1, 2, 3), list(y.shape), align_corners=False)
    return m.o(F.grid_sample(y, grid, align_corners=False).mean((2, 3)))


def unpooled(m: Any, x: Any) -> Any:
    small, where = F.max_pool2d(image(m, x), (2, 1), return_indices=True)
    return m.o(F.max_unpool2d(small, where, (2, 1)).mean((2, 3)))


def spread_by(name: str, **options: Any) -> Callable[[Any, Any], Any]:
    def forward(m: Any, x: Any) -> Any:
        y = m.i(x)
        return m.o((y - y.mean(-1, keepdim=True)) / (getattr(y, name)(-1, keepdim=True, **options) + 0.1))

    return forward


def spread_and_mean(m: Any, x: Any) -> Any:
    y = m.i(x)
    variance, mean = torch.var_mean(y, -1, correction=0, keepdim=True)
    return m.o((y - mean) / torch.sqrt(variance + 0.1))


def written(name: str, **options: Any) -> Callable[[Any, Any], Any]:
    """One of the token-wise writes by index, of another layer's tokens."""

    def forward(m: Any, x: Any) -> Any:
        return m.o(getattr(torch, name)(m.i(x), 1, m.idx, m.j(x)[:, :2], **options))

    return forward


def scattered(m: Any, x: Any) -> Any:
    index = m.idx.view(1, 2, 1).expand(x.shape[0], 2, 8)
    return m.o(torch.scatter_add(m.i(x), 1, index, m.j(x)[:, :2]))


def through_frequencies(m: Any, x: Any) -> Any:
    y = torch.fft.rfft(m.i(x), dim=1, norm="ortho")
    return m.o(torch.fft.irfft(y * torch.view_as_complex(m.filter), n=6, dim=1, norm="ortho"))


def fourier_features(m: Any, x: Any) -> Any:
    return m.o(torch.view_as_real(torch.fft.fft(m.i(x), dim=1))[..., 0])


def products_of_weights(m: Any, x: Any) -> Any:
    return m.o(m.i(x) * torch.mv(m.w, m.v) / torch.dot(m.u, torch.mv(m.w, m.v)))


def batch_statistics_of_weights(m: Any, x: Any) -> Any:
    w = F.batch_norm(m.w[None], None, None, weight=m.g, training=True, eps=1e-3)
    return m.o(F.linear(m.i(x), w[0]))


FREE: dict[str, tuple[Callable[[Any, Any], Any], Callable[[], Parts], dict[str, int], bool]] = {
    "bilinear layer": (lambda m, x: m.o(m.b(m.i(x), m.j(x))), lambda: linears(
        j=nn.Linear(16, 5), b=nn.Bilinear(8, 5, 8)), {"i": 8, "j": 5, "b": 8}, True),
    "tensordot": (lambda m, x: m.o(torch.tensordot(m.i(x), m.w, dims=([-1], [1]))), lambda: linears(
        w=parameter(8, 8)), {"i": 8, "w": 8}, True),
    "distances": (lambda m, x: m.p(torch.cdist(m.i(x), m.codes.expand(x.shape[0], -1, -1))), lambda: {
        "i": nn.Linear(16, 8), "p": nn.Linear(5, 2), "codes": parameter(5, 8)}, {"i": 8, "codes": 5}, True),
    "inner products": (lambda m, x: m.o(torch.inner(m.i(x), m.w)), lambda: linears(w=parameter(8, 8)), {"i": 8}, True),
    "matrix times vector": (products_of_weights, lambda: linears(
        w=parameter(8, 5), u=parameter(8), v=parameter(5)), {"i": 8, "w": 5}, True),
    "spectral norm": (lambda m, x: m.o(m.i(m.s(x))), lambda: linears(
        s=parametrizations.spectral_norm(nn.Linear(16, 16))), {"i": 8}, False),
    "weight norm": (lambda m, x: m.o(m.w(m.i(x))), lambda: linears(
        w=parametrizations.weight_norm(nn.Linear(8, 8))), {"i": 8}, False),
    "weight norm by input": (lambda m, x: m.o(m.w(m.i(x))), lambda: linears(
        w=parametrizations.weight_norm(nn.Linear(8, 8), dim=1)), {"i": 8}, False),
    "tokens by score": (top_tokens, lambda: linears(s=nn.Linear(16, 1)), {"i": 8}, True),
    "pairs rotated": (rotated_pairs, linears, {"i.blocks": 4}, True),
    "fixed kernel expanded": (blurred, lambda: linears(k=torch.zeros(1, 1, 3)), {"i": 8}, True),
    "fixed kernel repeated": (blurred_by_copies, lambda: linears(k=torch.zeros(1, 1, 3)), {"i": 8}, True),
    "columns of an image": (lambda m, x: m.o(F.unfold(image(m, x), 2).mean(-1)), lambda: linears(
        o=nn.Linear(32, 2)), {"i": 8}, True),
    "patches folded back": (patches_folded_back, lambda: linears(
        mix=nn.Linear(16, 16)), {"i": 8, "mix.blocks": 8}, True),
    "sliding windows": (lambda m, x: m.o(m.i(x).unfold(1, 3, 1).amax(-1)), linears, {"i": 8}, True),
    "standard deviation": (spread_by("std"), linears, {"i": 8}, False),
    "variance": (spread_by("var", unbiased=False), linears, {"i": 8}, False),
    "variance and mean": (spread_and_mean, linears, {"i": 8}, False),
    "largest and smallest": (lambda m, x: m.o(m.i(x) * m.j(x).amax(-1, True) - m.j(x).amin(-1, True)), lambda: linears(
        j=nn.Linear(16, 5)), {"i": 8, "j": 5}, False),
    "largest with its position unread": (lambda m, x: m.o(m.i(x) * m.j(x).max(-1, keepdim=True)[0]), lambda: linears(
        j=nn.Linear(16, 5)), {"i": 8, "j": 5}, False),
    "cosine of an angle": (lambda m, x: m.o(m.i(x) * F.cosine_similarity(m.j(x), m.k(x), -1)[..., None]), lambda:
        linears(j=nn.Linear(16, 5), k=nn.Linear(16, 5)), {"i": 8, "j": 5}, True),
    "distance of pairs": (lambda m, x: m.o(m.i(x) * F.pairwise_distance(m.j(x), m.k(x), keepdim=True)), lambda: linears(
        j=nn.Linear(16, 5), k=nn.Linear(16, 5)), {"i": 8, "j": 5}, False),
    "sampled by a grid": (sampled, lambda: linears(t=nn.Linear(16, 6)), {"i": 8}, True),
    "unpooled": (unpooled, linears, {"i": 8}, True),
    "triangle of tokens": (lambda m, x: m.o(torch.tril(m.w) @ m.i(x)), lambda: linears(
        w=parameter(6, 6)), {"i": 8}, True),
    "diagonal of scores": (lambda m, x: m.o(m.i(x) * torch.diagonal(m.j(x) @ m.j(x).mT, dim1=1, dim2=2)[..., None]),
        lambda: linears(j=nn.Linear(16, 5)), {"i": 8, "j": 5}, True),
    "columns stacked": (lambda m, x: m.o(torch.column_stack([m.i(x[:, 0]), m.j(x[:, 1])])), lambda: linears(
        j=nn.Linear(16, 5), o=nn.Linear(13, 2)), {"i": 8, "j": 5}, True),
    "rolled features": (lambda m, x: m.o(m.i(x).roll((3, 1), (-1, 1))), linears, {"i": 8}, False),
    "running sum": (lambda m, x: m.o(m.i(x).cumsum(-1)), linears, {"i": 8}, False),
    "added by index": (written("index_add"), lambda: linears(
        j=nn.Linear(16, 8), idx=torch.tensor([3, 0])), {"i": 8}, True),
    "copied by index": (written("index_copy"), lambda: linears(
        j=nn.Linear(16, 8), idx=torch.tensor([3, 0])), {"i": 8}, True),
    "filled by index": (lambda m, x: m.o(m.i(x).index_fill(1, m.idx, 0.5)), lambda: linears(
        idx=torch.tensor([3, 0])), {"i": 8}, True),
    "scattered": (scattered, lambda: linears(j=nn.Linear(16, 8), idx=torch.tensor([3, 0])), {"i": 8}, True),
    "filter of frequencies": (through_frequencies, lambda: linears(filter=parameter(4, 8, 2)), {"i": 8}, True),
    "fourier mixing": (fourier_features, linears, {"i": 8}, True),
    "weights normalised as a batch": (batch_statistics_of_weights, lambda: linears(
        w=parameter(8, 8), g=parameter(8)), {"i": 8}, False),
    "names that PyTorch does not tag": (lambda m, x: m.o(torch.multiply(m.i(x), 2).subtract(m.j(x)).absolute()), lambda:
        linears(j=nn.Linear(16, 8)), {"i": 8}, True),
}  # fmt: skip


@pytest.mark.parametrize("name", FREE)
def test_slice_is_exact(lab: Any, name: str) -> None:
    forward, parts, groups, zeroing = FREE[name]
    coupling = lab.check(lab.network(forward, **parts()), torch.randn(2, 6, 16), groups=groups, zeroing=zeroing)
    assert not coupling.flow.unruled


def test_unbiased_variance_keeps_two(lab: Any) -> None:
    outcome = lab.prune(lab.network(spread_by("std"), **linears()), torch.randn(2, 6, 16), ratio=0.99)
    assert outcome.verification.passed, outcome.verification
    assert 2 <= outcome.sliced.get_parameter("i.weight").shape[0] < 8


def test_rows_that_never_go_hold_the_rows_of_the_block_beside_them(lab: Any) -> None:
    """Rows of ``v`` are read by a sum alone, so they stay; rows of ``w`` have a bias, and must keep up with them."""
    module = lab.network(
        lambda m, x: m.o(F.linear(x, torch.cat([m.w, m.v]), F.pad(m.b, (0, 3))).unflatten(-1, (2, 3)).sum(-1)),
        w=parameter(3, 16),
        b=parameter(3),
        v=parameter(3, 16),
        o=nn.Linear(2, 2),
    )
    outcome = lab.prune(module, torch.randn(2, 6, 16), ratio=0.6)
    assert outcome.coupling.group("w").size == 3
    assert outcome.verification.passed, outcome.verification
    assert outcome.sliced.get_parameter("w").shape == (3, 16)


HELD: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "gathered features": (lambda m, x: m.o(m.i(x).gather(2, m.idx.expand(x.shape[0], 6, 8))), "looked up by index"),
    "a part gathered": (
        lambda m, x: m.p(m.i(x).gather(1, m.idx[:4].expand(x.shape[0], 2, 4))),
        "only a part is looked up along this dimension",
    ),
    "frequencies of features": (
        lambda m, x: m.o(torch.fft.fft(m.i(x)).real),
        "transformed to frequencies along this dimension",
    ),
    "windows of features": (
        lambda m, x: m.p(m.i(x).unfold(2, 5, 1).mean(-1)),
        "spatial dimension that is cut into windows",
    ),
    "every third feature of eight": (lambda m, x: m.p(m.i(x)[..., ::3].repeat(1, 1, 2)[..., :4]), "taken in steps"),
    "position of the largest": (
        lambda m, x: m.o(m.i(x) * m.i(x).max(-1, keepdim=True)[1]),
        "compared or normalised along this dimension",
    ),
    "pairs under a mask": (
        lambda m, x: m.p((m.i(x)[..., None] * m.i(x)[..., None, :])[:, :, m.mask][..., :4]),
        "looked up by index",
    ),
    "smallest norm": (
        lambda m, x: m.o(m.i(x) / torch.linalg.vector_norm(m.i(x), -1.0, -1, True)),
        "compared or normalised along this dimension",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HELD)
def test_what_holds_features(lab: Any, name: str) -> None:
    forward, reason = HELD[name]
    mask = torch.ones(8, 8).triu() > 0
    module = lab.network(
        forward,
        mask=mask,
        i=nn.Linear(16, 8),
        o=nn.Linear(8, 2),
        p=nn.Linear(4, 2),
        idx=torch.tensor([3, 0, 1, 2, 5, 4, 0, 1]),
    )
    coupling = lab.check(module, torch.randn(2, 6, 16), groups={})
    assert "i" not in lab.sizes(coupling)
    assert next(f.reason for f in coupling.frozen if f.tensor == "i.weight" and f.dim == 0) == reason
