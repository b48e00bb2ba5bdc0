"""Small configurations that architectures of Transformers share, and how their models are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from coverage_models.case import Inputs, words

# Sizes that differ from each other, so that no two dims agree by accident.
TEXT: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "use_cache": False,
}
GROUPED = {"num_key_value_heads": 2}
GPT2 = {"vocab_size": 60, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40, "use_cache": False}
SEQ2SEQ: dict[str, Any] = {
    "vocab_size": 60,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 40,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": 2,
    "use_cache": False,
}
T5: dict[str, Any] = {
    "vocab_size": 60,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "pad_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 0,
    "use_cache": False,
}
PICTURE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
    "num_labels": 6,
}
EXPERTS = GROUPED | {"moe_intermediate_size": 24, "num_experts": 4, "num_experts_per_tok": 2}
SPEECH: dict[str, Any] = {
    "vocab_size": 30,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": (16, 16, 24),
    "conv_stride": (5, 2, 2),
    "conv_kernel": (10, 3, 3),
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "num_feat_extract_layers": 3,
}
TOWERS = {"text_config": TEXT | {"projection_dim": 20}, "vision_config": PICTURE | {"projection_dim": 20}}


def ids() -> Inputs:
    return (words(),), {}


def ids_and_mask() -> Inputs:
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[1, 5:] = 0
    return (), {"input_ids": words(), "attention_mask": mask}


def pair() -> Inputs:
    return (), {"input_ids": words(), "decoder_input_ids": words(5)}


def pixels(size: int = 32) -> Callable[[], Inputs]:
    return lambda: ((torch.randn(2, 3, size, size),), {})


def clip() -> Inputs:
    return (), {"input_ids": words(), "pixel_values": torch.randn(2, 3, 32, 32)}


def wave() -> Inputs:
    return (torch.randn(2, 800),), {}


def frames() -> Inputs:
    return (), {"pixel_values": torch.randn(2, 4, 3, 32, 32)}


def spectrum() -> Inputs:
    return (), {"input_features": torch.randn(2, 16, 40), "decoder_input_ids": words(5)}


@dataclass(frozen=True)
class Model:
    """A class of Transformers, what its configuration says beside ``base``, how it is called, and its attention."""

    family: str
    name: str
    base: Mapping[str, Any]
    extra: Mapping[str, Any] = field(default_factory=dict)
    inputs: Callable[[], Inputs] = ids
    attention: str = ""
