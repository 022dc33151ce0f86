"""Tiny configurations of the known model families, six blocks each, with every per-block rule that they can have."""

from typing import Any

import torch
import transformers as hf

from replaceme_core.calibration.calibration import CalibrationSet

SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 320,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_GPT: dict[str, Any] = {
    "n_embd": 32,
    "n_layer": 6,
    "n_head": 4,
    "vocab_size": 320,
    "n_positions": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_OPT: dict[str, Any] = {"ffn_dim": 48, "word_embed_proj_dim": 32}
_SMALL_EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_FALCON = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "bos_token_id", "eos_token_id")
_MIXED = ["full_attention", "sliding_attention", "full_attention", "sliding_attention", "sliding_attention", "full_attention"]
_NEXT = ["linear_attention", "full_attention", "linear_attention", "full_attention", "linear_attention", "full_attention"]


def _like(name: str, **more: Any) -> Any:
    """A configuration class with the common shape."""
    return getattr(hf, name)(**(SHAPE | more))


def _sliding(name: str, **more: Any) -> Any:
    """The same with blocks of different attention."""
    return _like(name, sliding_window=8, layer_types=list(_MIXED), **more)


FAMILIES: dict[str, Any] = {
    "llama": lambda: _like("LlamaConfig", mlp_bias=True),
    "mistral": lambda: _like("MistralConfig", head_dim=8, sliding_window=8),
    "phi3": lambda: _like("Phi3Config"),
    "gemma": lambda: _like("GemmaConfig", head_dim=8),
    "glm": lambda: _like("GlmConfig", head_dim=8),
    "olmo": lambda: _like("OlmoConfig"),
    "seed_oss": lambda: _like("SeedOssConfig", head_dim=8),
    "arcee": lambda: _like("ArceeConfig"),
    "helium": lambda: _like("HeliumConfig", head_dim=8),
    "nemotron": lambda: _like("NemotronConfig"),
    "ernie4_5": lambda: _like("Ernie4_5Config", head_dim=8),
    "qwen2": lambda: _sliding("Qwen2Config", use_sliding_window=True),
    "qwen3": lambda: _sliding("Qwen3Config", use_sliding_window=True, head_dim=8),
    "smollm3": lambda: _sliding("SmolLM3Config", use_sliding_window=True, no_rope_layers=[1, 0, 1, 1, 0, 1]),
    "ministral": lambda: _sliding("MinistralConfig", head_dim=8),
    "granite": lambda: _like("GraniteConfig", residual_multiplier=0.5),
    "starcoder2": lambda: _like("Starcoder2Config"),
    "persimmon": lambda: _like("PersimmonConfig"),
    "gpt2": lambda: hf.GPT2Config(**_GPT),
    "gpt2_scaled": lambda: hf.GPT2Config(**_GPT, scale_attn_by_inverse_layer_idx=True),
    "gpt_neo": lambda: hf.GPTNeoConfig(
        **{k: SHAPE[k] for k in ("hidden_size", "vocab_size", "max_position_embeddings", "bos_token_id", "eos_token_id")},
        num_layers=6,
        num_heads=4,
        attention_types=[[["global", "local"], 3]],
        window_size=8,
    ),
    "gpt_bigcode": lambda: hf.GPTBigCodeConfig(**_GPT),
    "opt": lambda: _like("OPTConfig", **_OPT),
    "opt_post_norm": lambda: _like("OPTConfig", **_OPT, do_layer_norm_before=False),
    "bloom": lambda: hf.BloomConfig(hidden_size=32, n_layer=6, n_head=4, vocab_size=320),
    "mpt": lambda: hf.MptConfig(d_model=32, n_layers=6, n_heads=4, vocab_size=320, max_seq_len=256),
    "gpt_neox": lambda: _like("GPTNeoXConfig"),
    "falcon": lambda: hf.FalconConfig(**{k: SHAPE[k] for k in _FALCON}),
    "gptj": lambda: hf.GPTJConfig(**_GPT, rotary_dim=4),
    "codegen": lambda: hf.CodeGenConfig(**_GPT, rotary_dim=4),
    "phi": lambda: _like("PhiConfig"),
    "cohere": lambda: _like("CohereConfig"),
    "cohere2": lambda: _sliding("Cohere2Config"),
    "stablelm": lambda: _like("StableLmConfig", use_parallel_residual=True),
    "mixtral": lambda: _like("MixtralConfig", num_local_experts=4),
    "olmoe": lambda: _like("OlmoeConfig", num_experts=4, num_experts_per_tok=2),
    "phimoe": lambda: _like("PhimoeConfig", num_local_experts=4),
    "granitemoe": lambda: _like("GraniteMoeConfig", num_local_experts=4, residual_multiplier=0.5),
    "qwen2_moe": lambda: _sliding(
        "Qwen2MoeConfig", use_sliding_window=True, **_SMALL_EXPERTS, shared_expert_intermediate_size=24, mlp_only_layers=[1, 3]
    ),
    "qwen3_moe": lambda: _like("Qwen3MoeConfig", **_SMALL_EXPERTS, head_dim=8, decoder_sparse_step=2),
    "deepseek_v3": lambda: _like(
        "DeepseekV3Config",
        num_key_value_heads=4,
        n_routed_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        n_group=1,
        topk_group=1,
        first_k_dense_replace=2,
        q_lora_rank=16,
        kv_lora_rank=16,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=8,
    ),
    "qwen3_next": lambda: _like(
        "Qwen3NextConfig",
        **_SMALL_EXPERTS,
        head_dim=8,
        shared_expert_intermediate_size=24,
        linear_num_value_heads=4,
        linear_num_key_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        layer_types=list(_NEXT),
    ),
    "gpt_oss": lambda: _sliding("GptOssConfig", head_dim=8, num_local_experts=4, num_experts_per_tok=2),
    "llama4": lambda: _like(
        "Llama4TextConfig",
        head_dim=8,
        num_local_experts=4,
        intermediate_size_mlp=48,
        interleave_moe_layer_step=2,
        no_rope_layers=[1, 0, 1, 1, 0, 1],
        layer_types=[name.replace("sliding", "chunked") for name in _MIXED],
        attention_chunk_size=8,
        floor_scale=4,
    ),
    "gemma2": lambda: _sliding("Gemma2Config", head_dim=8),
    "gemma3": lambda: _sliding("Gemma3TextConfig", head_dim=8),
    "olmo2": lambda: _like("Olmo2Config"),
    "olmo3": lambda: _sliding("Olmo3Config"),
    "glm4": lambda: _like("Glm4Config", head_dim=8),
    "exaone4": lambda: _sliding("Exaone4Config"),
}
REFUSED = ("opt_post_norm",)
UNKNOWN = {"apertus": lambda: _like("ApertusConfig"), "jais2": lambda: _like("Jais2Config")}


def random_tokens(one_in: int) -> CalibrationSet:
    """Thirty random sequences for models of these configurations; one in so many is held out."""
    generator = torch.Generator().manual_seed(1)
    return _sequences(torch.randint(8, 30, (30,), generator=generator).tolist(), one_in, generator)


def even_tokens(one_in: int) -> CalibrationSet:
    """The same of four lengths, two of which fit into one batch with a little padding: a pass has four batches instead of eleven, each as long."""
    generator = torch.Generator().manual_seed(1)
    return _sequences([(9, 17, 18, 29)[kind] for kind in torch.randint(0, 4, (30,), generator=generator).tolist()], one_in, generator)


def _sequences(lengths: list[int], one_in: int, generator: torch.Generator) -> CalibrationSet:
    sequences = [torch.randint(3, 320, (n,), generator=generator) for n in lengths]
    return CalibrationSet("random", sequences, [i % one_in == 0 for i in range(len(lengths))], "random", [])
