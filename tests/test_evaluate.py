"""Accuracy, its interval, and what is not a classifier."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from compress.data import Split
from compress.errors import InputError
from compress.evaluate import evaluate, wilson


class Says(nn.Module):
    """Gives its inputs back, in the packing to be tested."""

    def __init__(self, pack: Any = lambda x: x) -> None:
        super().__init__()
        self.pack = pack
        self.drop = nn.Dropout(0.9)

    def forward(self, x: torch.Tensor) -> Any:
        return self.pack(self.drop(x))


# Four samples of two classes; the third is put into the wrong one.
SCORES = torch.tensor([[2.0, 1.0], [0.0, 5.0], [3.0, 1.0], [9.0, 2.0]])
SPLIT = Split(SCORES, torch.tensor([0, 1, 1, 0]))


@pytest.mark.parametrize("batch_size", [1, 3, 4, 256])
def test_counts(batch_size: int) -> None:
    module = Says().train()
    got = evaluate(module, SPLIT, batch_size=batch_size)
    assert (got.correct, got.count, got.accuracy) == (3, 4, 0.75)
    assert [(each.correct, each.count) for each in got.per_class] == [(2, 2), (1, 2)]
    assert module.training and module.drop.training  # as it was


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_confidence_by_hand() -> None:
    # Of class 0 both are right, with gaps of 1 and 7 between their scores; of class 1 the second, with one of 5
    zero, one = evaluate(Says(), SPLIT).per_class
    assert zero.confidence == pytest.approx((sigmoid(1) + sigmoid(7)) / 2)
    assert one.confidence == pytest.approx(sigmoid(5))
    got = evaluate(Says(), SPLIT, batch_size=1)
    assert got.confidence == pytest.approx(((sigmoid(1) + sigmoid(7)) / 2 + sigmoid(5)) / 2)
    assert got.confident_classes == 2


def test_a_class_without_a_right_sample_has_no_confidence() -> None:
    got = evaluate(Says(), Split(torch.tensor([[9.0, 2.0, 1.0], [0.0, 5.0, 1.0]]), torch.tensor([2, 1])))
    assert [each.confidence is None for each in got.per_class] == [True, False, True]
    assert [(each.correct, each.count) for each in got.per_class] == [(0, 0), (1, 1), (0, 1)]
    assert got.confident_classes == 1 and got.confidence == got.per_class[1].confidence
    nothing = evaluate(Says(), Split(SCORES[:1], torch.tensor([1])))
    assert (nothing.confidence, nothing.confident_classes) == (None, 0)


def test_wilson_interval_by_hand() -> None:
    # 3 of 4: centre (0.75 + z2/8) / (1 + z2/4), z2 = 3.841459
    low, high = wilson(3, 4)
    assert (round(low, 4), round(high, 4)) == (0.3006, 0.9544)
    assert wilson(10, 10)[1] == 1.0 and wilson(0, 10)[0] == 0.0
    low, high = wilson(355, 360)
    assert (round(low, 3), round(high, 3)) == (0.968, 0.994)


@pytest.mark.parametrize(
    "pack",
    [
        lambda x: (x, "else"),
        lambda x: [x],
        lambda x: (x.argmax(1), x),
        lambda x: {"out": x},
        lambda x: {"features": x[:, :1], "logits": x},
        lambda x: x[:, :, None, None],
        lambda x: type("Output", (), {"logits": x})(),
    ],
    ids=["tuple", "list", "after classes", "dict", "named", "map of one", "object"],
)
def test_packings(pack: Any) -> None:
    assert evaluate(Says(pack), SPLIT).correct == 3


@pytest.mark.parametrize(
    ("pack", "message"),
    [
        (lambda x: x[:, :, None, None].expand(-1, -1, 4, 4), "one score per class"),
        (lambda x: x[:, :1], "one score per class"),
        (lambda x: x[0], "one score per class"),
        (lambda x: "word", "gives a str"),
        (lambda x: x @ torch.ones(3, 3), "cannot take inputs of 2"),
    ],
    ids=["segmentation", "one number", "no batch", "word", "shape"],
)
def test_no_classifier(pack: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(Says(pack), SPLIT)


def test_fewer_classes_than_labels() -> None:
    with pytest.raises(InputError, match="tells 2 classes apart, the labels go up to 4"):
        evaluate(Says(), Split(SCORES, torch.tensor([0, 1, 4, 0])))


def test_scores_that_are_no_numbers_are_wrong() -> None:
    broken = SCORES.clone()
    broken[0, 0] = torch.nan
    assert evaluate(Says(), Split(broken, SPLIT.targets)).correct == 2


def test_inputs_take_the_models_dtype() -> None:
    module = nn.Linear(2, 2).double()
    assert evaluate(module, SPLIT).count == 4
    with pytest.raises(InputError, match="batch size 0"):
        evaluate(module, SPLIT, batch_size=0)


def test_a_graph_of_low_precision_takes_float32() -> None:
    from compress.export.precision import lowered

    split = Split(torch.randn(8, 4), torch.tensor([0, 1] * 4))
    torch.manual_seed(0)
    module = nn.Linear(4, 2).eval()
    graph = lowered(module, (split.inputs[:2],), torch.float16)
    assert evaluate(graph, split).correct == evaluate(module, split).correct
