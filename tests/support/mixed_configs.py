"""Tiny configurations of families that are not in the table and whose blocks differ: dense first, sparse later, or of two kinds of mixer."""

from typing import Any

from tests.support.family_configs import _MIXED, SHAPE, _like

_EXPERTS: dict[str, Any] = {
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_group": 1,
    "topk_group": 1, "n_shared_experts": 1, "num_shared_experts": 1, "first_k_dense_replace": 2,
}  # fmt: skip
_LATENT: dict[str, Any] = {
    "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8,
}  # fmt: skip
_FIRST = ["dense", "dense", "sparse", "sparse", "sparse", "sparse"]
_SPARSE_INDEX = {"index_n_heads": 2, "index_head_dim": 8, "index_topk": 64}


def _mixed(name: str, *held: dict[str, Any], **more: Any) -> Any:
    """A configuration with what of the common entries its class names."""
    import transformers as hf

    fields = {key for base in getattr(hf, name).__mro__ for key in getattr(base, "__annotations__", {})}
    common = {key: value for part in (_EXPERTS, *held) for key, value in part.items() if key in fields}
    return _like(name, **(common | more))


MIXED: dict[str, Any] = {
    "glm4_moe": lambda: _mixed("Glm4MoeConfig", head_dim=8),
    "glm4_moe_lite": lambda: _mixed("Glm4MoeLiteConfig", _LATENT, mlp_layer_types=list(_FIRST)),
    "glm_moe_dsa": lambda: _mixed("GlmMoeDsaConfig", _LATENT, _SPARSE_INDEX),
    "deepseek_v2": lambda: _mixed("DeepseekV2Config", _LATENT),
    "deepseek_v32": lambda: _mixed("DeepseekV32Config", _LATENT, _SPARSE_INDEX),
    "ernie4_5_moe": lambda: _mixed(
        "Ernie4_5_MoeConfig", moe_k=2, moe_num_experts=4, moe_num_shared_experts=1, moe_layer_start_index=1, moe_intermediate_size=16
    ),
    "dots1": lambda: _mixed("Dots1Config", head_dim=8),
    "exaone_moe": lambda: _mixed("ExaoneMoeConfig", head_dim=8, sliding_window=8),
    "hy_v3": lambda: _mixed("HYV3Config", head_dim=8),
    "mimo_v2_flash": lambda: _mixed("MiMoV2FlashConfig", head_dim=8, v_head_dim=8, sliding_window=8),
    "laguna": lambda: _mixed("LagunaConfig", head_dim=8, shared_expert_intermediate_size=24),
    "cohere2_moe": lambda: _mixed("Cohere2MoeConfig", head_dim=8, sliding_window=8, layer_types=list(_MIXED), mlp_layer_types=list(_FIRST)),
    "lfm2_moe": lambda: _mixed("Lfm2MoeConfig", num_dense_layers=2, layer_types=["conv", "full_attention"] * 3),
    "flint": lambda: _mixed("FlintConfig", head_dim=8, mlp_only_layers=[0, 2], shared_expert_intermediate_size=24),
    "axk2": lambda: _mixed("AXK2Config", _LATENT, _SPARSE_INDEX),
    "jamba": lambda: _mixed(
        "JambaConfig", attn_layer_period=3, attn_layer_offset=1, mamba_dt_rank=4, mamba_d_state=8, use_mamba_kernels=False
    ),
}
"""accepted by measurement"""
REFUSED: dict[str, Any] = {
    "afmoe": lambda: _mixed("AfmoeConfig", head_dim=8, num_dense_layers=2, sliding_window=8),
    "axk1": lambda: _mixed("AXK1Config", _LATENT),
    "beam": lambda: _mixed("BeamConfig", head_dim=8),
}
"""a norm follows their output projection"""
NUMBERED: dict[str, Any] = {
    "bamba": lambda: _mixed(
        "BambaConfig", attn_layer_indices=[1, 4], mamba_n_heads=8, mamba_d_head=8, mamba_n_groups=1, mamba_d_state=8, mamba_expand=2
    ),
    "recurrent_gemma": lambda: _mixed("RecurrentGemmaConfig", head_dim=8, lru_width=32, attention_window_size=8, num_key_value_heads=1),
    "jamba": MIXED["jamba"],
    "diffllama": lambda: _mixed("DiffLlamaConfig"),
}
"""kinds of blocks said by numbers or periods, or a formula with the block's number"""
assert SHAPE["num_hidden_layers"] == len(_FIRST)
