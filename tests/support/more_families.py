"""The families beyond the first four: what their config.json holds that Llama's doesn't."""

from typing import Any

_PARTIAL = {"partial_rotary_factor": 0.5}
_LONGROPE = {"type": "longrope", "short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [2.0, 3.0, 4.0, 5.0]}
_LAYER_NORM = {"rms_norm_eps": ..., "layer_norm_eps": 1e-5}
_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 16.0,
    "original_max_position_embeddings": 64,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale_all_dim": 1.0,
    "mscale": 1.0,
    "llama_4_scaling_beta": 0.1,
}
MORE_FAMILIES: dict[str, dict[str, Any]] = {
    "apertus": {
        "architectures": ["ApertusForCausalLM"],
        "hidden_act": "xielu",
        "attention_bias": False,
        "rope_scaling": _LLAMA3,
    },
    "arcee": {"architectures": ["ArceeForCausalLM"], "hidden_act": "relu2", "attention_bias": False, "mlp_bias": False},
    "cohere": {
        "architectures": ["CohereForCausalLM"],
        **_LAYER_NORM,
        "logit_scale": 0.25,
        "use_qk_norm": True,
        "tie_word_embeddings": True,
    },
    "ernie4_5": {
        "architectures": ["Ernie4_5ForCausalLM"],
        "head_dim": 32,
        "use_bias": False,
        "tie_word_embeddings": True,
    },
    "exaone4": {
        "architectures": ["Exaone4ForCausalLM"],
        "sliding_window": None,
        "sliding_window_pattern": None,
        "layer_types": ["full_attention"] * 4,
    },
    "gemma": {
        "architectures": ["GemmaForCausalLM"],
        "head_dim": 32,
        "hidden_act": "gelu_pytorch_tanh",
        "tie_word_embeddings": True,
    },
    "glm": {"architectures": ["GlmForCausalLM"], "head_dim": 32, "attention_bias": True, **_PARTIAL},
    "glm4": {"architectures": ["Glm4ForCausalLM"], "head_dim": 32, "attention_bias": True, **_PARTIAL},
    "granite": {
        "architectures": ["GraniteForCausalLM"],
        "attention_multiplier": 0.17,
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.5,
        "logits_scaling": 4.0,
    },
    "helium": {"architectures": ["HeliumForCausalLM"], "head_dim": 16},
    "hunyuan_v1_dense": {
        "architectures": ["HunYuanDenseV1ForCausalLM"],
        "head_dim": 16,
        "rope_scaling": {"type": "dynamic", "factor": 1.0, "alpha": 50.0},
    },
    "ministral3": {
        "architectures": ["Ministral3ForCausalLM"],
        "head_dim": 32,
        "sliding_window": None,
        "rope_theta": ...,
        "rope_scaling": ...,
        "rope_parameters": _YARN,
    },
    "mistral": {"architectures": ["MistralForCausalLM"], "sliding_window": None},
    "olmo": {"architectures": ["OlmoForCausalLM"], "rms_norm_eps": ..., "clip_qkv": 8.0},
    "olmo2": {"architectures": ["Olmo2ForCausalLM"], "num_key_value_heads": 4},
    "phi": {
        "architectures": ["PhiForCausalLM"],
        **_LAYER_NORM,
        **_PARTIAL,
        "num_key_value_heads": None,
        "hidden_act": "gelu_new",
        "qk_layernorm": False,
        "resid_pdrop": 0.0,
    },
    "phi3": {
        "architectures": ["Phi3ForCausalLM"],
        **_PARTIAL,
        "rope_scaling": _LONGROPE,
        "original_max_position_embeddings": 2048,
        "sliding_window": 8192,
    },
    "seed_oss": {
        "architectures": ["SeedOssForCausalLM"],
        "head_dim": 32,
        "attention_bias": True,
        "attention_out_bias": False,
        "residual_dropout": 0.1,
    },
    "smollm3": {
        "architectures": ["SmolLM3ForCausalLM"],
        "no_rope_layers": [1, 1, 1, 0],
        "no_rope_layer_interval": 4,
        "use_sliding_window": False,
        "sliding_window": None,
        "layer_types": ["full_attention"] * 4,
        "tie_word_embeddings": True,
    },
    "starcoder2": {
        "architectures": ["Starcoder2ForCausalLM"],
        "rms_norm_eps": ...,
        "norm_epsilon": 1e-5,
        "hidden_act": "gelu_pytorch_tanh",
        "sliding_window": None,
        "use_bias": True,
    },
}
