from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from compress.errors import ModelError
from compress.export.precision import lowered


class Casts(nn.Module):
    """Names a type in its code, holds a constant, and gives several outputs."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.words = nn.Embedding(5, 4)
        self.register_buffer("scale", torch.tensor([2.0]), persistent=False)

    def forward(self, x: Tensor, index: Tensor) -> dict[str, Tensor]:
        y = self.layer((x + self.words(index)).to(torch.float32)) * self.scale
        return {"scores": y + torch.ones(3, dtype=torch.float32), "best": y.argmax(1)}


@pytest.mark.parametrize(("dtype", "error"), [(torch.float16, 5e-3), (torch.bfloat16, 5e-2)])
def test_inside_in_half_of_the_precision_and_outside_as_before(dtype: torch.dtype, error: float) -> None:
    torch.manual_seed(0)
    net = Casts().eval()
    inputs = (torch.randn(2, 4), torch.tensor([1, 3]))
    low = lowered(net, inputs, dtype)
    assert {each.dtype for each in (*low.parameters(), *low.buffers())} == {dtype}
    assert {name for name, _ in low.named_parameters()} == {name for name, _ in net.named_parameters()}
    x, index = torch.randn(6, 4), torch.randint(5, (6,))
    found, expected = low(x, index), net(x, index)
    assert found["scores"].dtype == torch.float32 and found["best"].dtype == torch.int64
    torch.testing.assert_close(found["scores"], expected["scores"], rtol=error, atol=error)
    assert (found["scores"] - expected["scores"]).abs().max() > 0
    assert {p.dtype for p in net.parameters()} == {torch.float32}


class Picky(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.inv(self.layer(x))


def test_an_operation_that_has_no_such_precision_is_named() -> None:
    with pytest.raises(ModelError, match="does not run in float16") as caught:
        lowered(Picky().eval(), (torch.randn(2, 4, 4),), torch.float16)
    assert caught.value.hint == "leave out --quantize"
