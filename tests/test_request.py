from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compress.errors import InputError
from compress.request import (
    BudgetTarget,
    DataSource,
    EvalRequest,
    ExportRequest,
    MeasureRequest,
    ModelSource,
    PruneRequest,
    Settings,
)
from compress.training import Training

HERE = ModelSource(Path(__file__))
DIGITS = DataSource("digits")


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:1"])
def test_devices(device: str) -> None:
    assert Settings(device=device).device == device


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Settings(device="gpu"), "--device 'gpu' is unknown"),
        (lambda: Settings(threads=0), "--threads must be at least 1, got 0"),
        (lambda: Settings(seed=-1), "--seed must be between"),
        (lambda: ModelSource(Path("no/such/file.pt")), "no/such/file.pt does not exist"),
        (lambda: ModelSource(Path(__file__), arch_args={"a": 1}), "--arch-args needs --arch"),
        (lambda: DataSource("digits", mean=(0.5,)), "--mean and --std belong together"),
        (lambda: DataSource("digits", (0.5, 0.5), (0.5,)), "--mean has 2 values and --std 1"),
        (lambda: DataSource("digits", (0.5,), (0.0,)), "--std must be above 0, got 0"),
        (lambda: BudgetTarget("ratio", 30), "--ratio must be between 0 and 1, got 30"),
        (lambda: BudgetTarget("ratio", 0), "--ratio must be between 0 and 1, got 0"),
        (lambda: BudgetTarget("ratio", 1), "--ratio must be between 0 and 1, got 1"),
        (lambda: BudgetTarget("ratio", float("nan")), "--ratio must be between 0 and 1, got nan"),
        (lambda: BudgetTarget("macs", 0), "--macs must be above 0, got 0"),
        (lambda: BudgetTarget("bytes", float("inf")), "--bytes must be above 0, got inf"),
        (lambda: EvalRequest(HERE, DIGITS, batch_size=0), "--batch-size must be at least 1, got 0"),
        (lambda: PruneRequest(HERE, Path("out"), training=Training()), "--epochs trains on data, and there is none"),
        (lambda: MeasureRequest(HERE, runs=0), "--runs must be at least 1, got 0"),
        (lambda: MeasureRequest(HERE, warmup=-1), "--warmup must be at least 0, got -1"),
        (lambda: ExportRequest(HERE, formats=()), "no format to export to"),
        (lambda: PruneRequest(HERE, Path("out"), steps=0), "--steps must be at least 1, got 0"),
        (lambda: PruneRequest(HERE, Path("out"), round_to=0), "--round-to must be at least 1, got 0"),
        (lambda: PruneRequest(HERE, Path("out"), ratio_of=(("a*", 1.0),)), "--ratio-of a*=1: the fraction must be at"),
        (lambda: PruneRequest(HERE, Path("out"), ratio_of=(("a", 0), ("a", 0.5))), "--ratio-of a is given twice"),
        (
            lambda: PruneRequest(HERE, Path("out"), allocation="even"),  # type: ignore[arg-type]
            "--allocation 'even' is unknown",
        ),
        (
            lambda: PruneRequest(HERE, Path("out"), target="tpu"),  # type: ignore[arg-type]
            "--target 'tpu' is unknown",
        ),
        (
            lambda: PruneRequest(HERE, Path("out"), granularity="layer"),  # type: ignore[arg-type]
            "--granularity 'layer' is unknown",
        ),
    ],
)
def test_nonsense_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert str(caught.value).startswith(message)


def test_percentages_get_a_hint() -> None:
    with pytest.raises(InputError) as caught:
        BudgetTarget("ratio", 30)
    assert caught.value.hint == "--ratio 0.3 removes 30 % of the units"
