"""Architectures of Transformers, built small from their configurations: nothing is downloaded."""

from __future__ import annotations

from torch import nn

from coverage_models.case import Case, enliven, randomise
from coverage_models.transformers_configs import Model
from coverage_models.transformers_other import OTHERS
from coverage_models.transformers_text import TEXT_MODELS

MODELS = [*TEXT_MODELS, *OTHERS]


def cases() -> list[Case]:
    return [_case(model) for model in MODELS]


def _case(model: Model) -> Case:
    name = f"{model.name} ({model.attention})" if model.attention else model.name
    return Case("transformers", name, model.family, lambda: _build(model), model.inputs)


def _build(model: Model) -> nn.Module:
    import transformers

    kind = getattr(transformers, model.name)
    config = kind.config_class(**{**model.base, **model.extra})
    if model.attention:
        config._attn_implementation = model.attention
    module: nn.Module = kind(config)
    randomise(module)
    enliven(module)
    return module
