"""The models of the coverage benchmark, by suite."""

from __future__ import annotations

from collections.abc import Callable

from coverage_models import sample_models, timm_models, torchvision_models, transformers_models
from coverage_models.case import Case


def suites() -> dict[str, Callable[[], list[Case]]]:
    """The cases of every suite; no model is built."""
    return {
        "samples": sample_models.cases,
        "torchvision": torchvision_models.cases,
        "timm": timm_models.cases,
        "transformers": transformers_models.cases,
    }


def find(suite: str, name: str) -> Case:
    return next(case for case in suites()[suite]() if case.name == name)
