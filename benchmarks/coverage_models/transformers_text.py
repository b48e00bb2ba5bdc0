"""Language models of Transformers that are measured: encoders, decoders, mixtures of experts."""

from __future__ import annotations

from coverage_models.transformers_configs import EXPERTS, GPT2, GROUPED, TEXT, Model, ids_and_mask

_ENCODERS = [
    Model("encoder", "BertForSequenceClassification", TEXT, {"num_labels": 3}),
    Model("encoder", "BertForMaskedLM", TEXT),
    Model("encoder", "BertForMaskedLM", TEXT, attention="eager"),
    Model("encoder", "BertForTokenClassification", TEXT, {"num_labels": 3}, ids_and_mask),
    Model("encoder, no head", "BertModel", TEXT),
    Model("encoder", "RobertaForMaskedLM", TEXT),
    Model("encoder", "RobertaForSequenceClassification", TEXT, {"num_labels": 3}),
    Model("encoder", "XLMRobertaForMaskedLM", TEXT),
    Model("encoder", "CamembertForTokenClassification", TEXT, {"num_labels": 3}),
    Model(
        "encoder",
        "DistilBertForSequenceClassification",
        {"vocab_size": 60, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "pad_token_id": 0},
    ),
    Model("encoder", "AlbertForSequenceClassification", TEXT, {"embedding_size": 20}),
    Model("encoder", "ElectraForSequenceClassification", TEXT, {"embedding_size": 20}),
    Model("encoder", "DebertaForSequenceClassification", TEXT, {"relative_attention": True, "pos_att_type": "c2p|p2c"}),
    Model(
        "encoder",
        "DebertaV2ForSequenceClassification",
        TEXT,
        {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 8, "share_att_key": True},
    ),
    Model("encoder", "MPNetForSequenceClassification", TEXT),
    Model("encoder", "ModernBertForMaskedLM", TEXT, {"local_attention": 4, "cls_token_id": 3, "sep_token_id": 4}),
    Model("encoder", "MobileBertForSequenceClassification", TEXT, {"embedding_size": 16, "intra_bottleneck_size": 16}),
    Model("encoder", "SqueezeBertForSequenceClassification", TEXT, {"embedding_size": 32}),
    Model("encoder", "ConvBertForSequenceClassification", TEXT, {"embedding_size": 20, "conv_kernel_size": 3}),
    Model("encoder", "RoFormerForSequenceClassification", TEXT, {"embedding_size": 20}),
    Model(
        "encoder", "RemBertForSequenceClassification", TEXT, {"input_embedding_size": 20, "output_embedding_size": 24}
    ),
    Model("encoder", "FNetForSequenceClassification", TEXT),
    Model("encoder", "NystromformerForSequenceClassification", TEXT, {"segment_means_seq_len": 7, "num_landmarks": 7}),
    Model("encoder", "EsmForSequenceClassification", TEXT, {"position_embedding_type": "rotary", "mask_token_id": 3}),
    Model(
        "encoder",
        "XLNetForSequenceClassification",
        {"vocab_size": 60, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48},
    ),
    Model("encoder", "LongformerForSequenceClassification", TEXT, {"attention_window": 4}),
    Model("encoder", "BigBirdForSequenceClassification", TEXT, {"attention_type": "original_full"}),
    Model(
        "encoder, no head",
        "FunnelBaseModel",
        {"vocab_size": 60, "block_sizes": [1, 1], "d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 48},
    ),
]

_DECODERS = [
    Model("decoder", "GPT2LMHeadModel", GPT2),
    Model("decoder", "GPT2LMHeadModel", GPT2, attention="eager"),
    Model("decoder", "OpenAIGPTLMHeadModel", GPT2),
    Model(
        "decoder",
        "GPTNeoForCausalLM",
        TEXT,
        {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 4},
    ),
    Model("decoder", "GPTNeoXForCausalLM", TEXT),
    Model("decoder", "GPTJForCausalLM", GPT2, {"rotary_dim": 4}),
    Model("decoder", "GPTBigCodeForCausalLM", GPT2),
    Model("decoder", "CodeGenForCausalLM", GPT2, {"rotary_dim": 4}),
    Model("decoder", "CTRLLMHeadModel", GPT2, {"dff": 48}),
    Model("decoder", "OPTForCausalLM", TEXT, {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    Model(
        "decoder",
        "XGLMForCausalLM",
        TEXT,
        {"d_model": 32, "ffn_dim": 48, "num_layers": 2, "attention_heads": 4},
    ),
    Model("decoder", "BioGptForCausalLM", TEXT),
    Model(
        "decoder",
        "BloomForCausalLM",
        {"vocab_size": 60, "hidden_size": 32, "n_layer": 2, "n_head": 4, "use_cache": False},
    ),
    Model(
        "decoder",
        "MptForCausalLM",
        {"vocab_size": 60, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 40, "use_cache": False},
    ),
    Model("decoder", "FalconForCausalLM", TEXT, {"new_decoder_architecture": True, "num_kv_heads": 2, "alibi": False}),
    Model("decoder", "PersimmonForCausalLM", TEXT),
    Model("decoder", "LlamaForCausalLM", TEXT, GROUPED),
    Model("decoder", "LlamaForCausalLM", TEXT, GROUPED, attention="eager"),
    Model("decoder", "LlamaForSequenceClassification", TEXT, GROUPED | {"num_labels": 3}),
    Model("decoder, no head", "LlamaModel", TEXT, GROUPED),
    Model("decoder", "MistralForCausalLM", TEXT, GROUPED | {"sliding_window": 4}),
    Model("decoder", "Qwen2ForCausalLM", TEXT, GROUPED),
    Model("decoder", "Qwen3ForCausalLM", TEXT, GROUPED | {"head_dim": 12}),
    Model("decoder", "GemmaForCausalLM", TEXT, GROUPED | {"head_dim": 12}),
    Model("decoder", "Gemma2ForCausalLM", TEXT, GROUPED | {"head_dim": 12, "sliding_window": 4}),
    Model("decoder", "Gemma3ForCausalLM", TEXT, GROUPED | {"head_dim": 12, "sliding_window": 4}),
    Model("decoder", "PhiForCausalLM", TEXT, GROUPED),
    Model("decoder", "Phi3ForCausalLM", TEXT, GROUPED),
    Model("decoder", "OlmoForCausalLM", TEXT, GROUPED),
    Model("decoder", "Olmo2ForCausalLM", TEXT, GROUPED),
    Model("decoder", "StableLmForCausalLM", TEXT, GROUPED),
    Model("decoder", "CohereForCausalLM", TEXT, GROUPED),
    Model("decoder", "Cohere2ForCausalLM", TEXT, GROUPED | {"sliding_window": 4}),
    Model("decoder", "Starcoder2ForCausalLM", TEXT, GROUPED),
    Model("decoder", "GraniteForCausalLM", TEXT, GROUPED),
    Model("decoder", "SmolLM3ForCausalLM", TEXT, GROUPED | {"no_rope_layers": [1, 0]}),
    Model("decoder", "GlmForCausalLM", TEXT, GROUPED | {"head_dim": 8}),
    Model("decoder", "Glm4ForCausalLM", TEXT, GROUPED | {"head_dim": 8}),
    Model("decoder", "HeliumForCausalLM", TEXT, GROUPED | {"head_dim": 8}),
    Model("decoder", "NemotronForCausalLM", TEXT, GROUPED),
    Model("decoder", "Exaone4ForCausalLM", TEXT, GROUPED | {"sliding_window": 4}),
    Model("decoder", "SeedOssForCausalLM", TEXT, GROUPED | {"head_dim": 8}),
    Model("decoder", "Ernie4_5ForCausalLM", TEXT, GROUPED | {"head_dim": 8}),
    Model("decoder", "ApertusForCausalLM", TEXT, GROUPED),
    Model("decoder", "DiffLlamaForCausalLM", TEXT, GROUPED),
    Model(
        "decoder", "Lfm2ForCausalLM", TEXT, GROUPED | {"layer_types": ["conv", "full_attention"], "block_ff_dim": 48}
    ),
]

_MIXTURES = [
    Model("mixture of experts", "MixtralForCausalLM", TEXT, GROUPED | {"num_local_experts": 4}),
    Model("mixture of experts", "Qwen2MoeForCausalLM", TEXT, EXPERTS | {"shared_expert_intermediate_size": 24}),
    Model("mixture of experts", "Qwen3MoeForCausalLM", TEXT, EXPERTS | {"head_dim": 8}),
    Model("mixture of experts", "OlmoeForCausalLM", TEXT, EXPERTS),
    Model("mixture of experts", "GraniteMoeForCausalLM", TEXT, GROUPED | {"num_local_experts": 4}),
]

TEXT_MODELS = [*_ENCODERS, *_DECODERS, *_MIXTURES]
