"""The known model families, as rows. Figures and traps behind them were measured on tiny random models (tests/core/models/test_families.py).

Paths are inside one block. Where a family mixes dense and sparse blocks, `writers` lists the parts of both and each block
has some of them. `written` is the module whose output is M (times `scale`).
"""

from replaceme_core.models.architecture.family import Family

_DOWN = ("mlp.down_proj",)
_PRE = "the MLP's output is added to the residual stream as it is"
_PARALLEL = "attention and MLP are added to the residual stream side by side"
_INSIDE = "the MLP adds the residual itself, after its output projection"
_SCALED = "the MLP's output is scaled by residual_multiplier, which the pass accounts for"
_EXPERTS = "every expert's output projection takes the transform, so that any routing gives the same sum"
_POST = "a norm follows the output projection: only a diagonal transform merges, into that norm's gain"
_PIXELS = "images: the MLP's output is added to the residual stream as it is; beside a text tower only the vision tower is cut"
_NO_CLS = "images: as CLIP; there is no CLS token, so that the distance 'last' is that of the first patch"
_LAYER_SCALE = "images: a layer scale stands between the output projection and the residual stream"
_LISTS = ("layer_types",)

_SHARED = ("mlp.down_proj", "mlp.experts.down_proj", "mlp.shared_expert.down_proj", "mlp.shared_experts.down_proj")

FAMILIES: tuple[Family, ...] = (
    Family("llama", ("llama", "mistral", "seed_oss", "arcee", "helium", "nemotron", "ernie4_5"), "model.layers", _DOWN, _PRE),
    Family("phi3, gemma 1, glm, olmo 1", ("phi3", "gemma", "glm", "olmo"), "model.layers", _DOWN, _PRE),
    Family("qwen2, qwen3, ministral", ("qwen2", "qwen3", "ministral"), "model.layers", _DOWN, _PRE, layer_lists=_LISTS),
    Family("smollm3", ("smollm3",), "model.layers", _DOWN, _PRE, layer_lists=("layer_types", "no_rope_layers")),
    Family("granite", ("granite",), "model.layers", _DOWN, _SCALED, scale="residual_multiplier"),
    Family("starcoder2", ("starcoder2",), "model.layers", ("mlp.c_proj",), _PRE),
    Family("persimmon", ("persimmon",), "model.layers", ("mlp.dense_4h_to_h",), _PRE),
    Family("gpt2, gpt_bigcode", ("gpt2", "gpt_bigcode"), "transformer.h", ("mlp.c_proj",), _PRE),
    Family("gpt_neo", ("gpt_neo",), "transformer.h", ("mlp.c_proj",), _PRE, layer_lists=("attention_layers",)),
    Family("opt", ("opt",), "model.decoder.layers", ("fc2",), "there is no MLP module; fc2 ends the block (pre-norm sizes only)"),
    Family("bloom", ("bloom",), "transformer.h", ("mlp.dense_4h_to_h",), _INSIDE),
    Family("mpt", ("mpt",), "transformer.blocks", ("ffn.down_proj",), _INSIDE),
    Family("gpt_neox", ("gpt_neox",), "gpt_neox.layers", ("mlp.dense_4h_to_h",), _PARALLEL),
    Family("falcon", ("falcon",), "transformer.h", ("mlp.dense_4h_to_h",), _PARALLEL),
    Family("gptj, codegen", ("gptj", "codegen"), "transformer.h", ("mlp.fc_out",), _PARALLEL),
    Family("phi 1 and 2", ("phi",), "model.layers", ("mlp.fc2",), _PARALLEL),
    Family("cohere, stablelm", ("cohere", "stablelm"), "model.layers", _DOWN, _PARALLEL),
    Family("cohere2", ("cohere2",), "model.layers", _DOWN, _PARALLEL, layer_lists=_LISTS),
    Family("mixtral, olmoe, phimoe", ("mixtral", "olmoe", "phimoe"), "model.layers", ("mlp.experts.down_proj",), _EXPERTS, written="mlp"),
    Family(
        "granitemoe",
        ("granitemoe",),
        "model.layers",
        ("block_sparse_moe.experts.down_proj",),
        _EXPERTS,
        written="block_sparse_moe",
        scale="residual_multiplier",
    ),
    Family(
        "qwen2_moe, qwen3_moe, qwen3_next",
        ("qwen2_moe", "qwen3_moe", "qwen3_next"),
        "model.layers",
        _SHARED,
        _EXPERTS,
        written="mlp",
        layer_lists=_LISTS,
    ),
    Family("deepseek_v3", ("deepseek_v3",), "model.layers", _SHARED, _EXPERTS, written="mlp"),
    Family(
        "gpt_oss",
        ("gpt_oss",),
        "model.layers",
        ("mlp.experts.down_proj",),
        _EXPERTS,
        written="mlp",
        experts="inner_first",
        layer_lists=_LISTS,
    ),
    Family(
        "llama4 (text)",
        ("llama4_text",),
        "model.layers",
        ("feed_forward.down_proj", "feed_forward.experts.down_proj", "feed_forward.shared_expert.down_proj"),
        _EXPERTS,
        written="feed_forward",
        experts="inner_first",
        layer_lists=("layer_types", "no_rope_layers"),
    ),
    Family(
        "gemma 2 and 3",
        ("gemma2", "gemma3_text"),
        "model.layers",
        ("post_feedforward_layernorm",),
        _POST,
        merge="diagonal",
        gain_offset=1.0,
        layer_lists=_LISTS,
    ),
    Family(
        "olmo 2 and 3, exaone4",
        ("olmo2", "olmo3", "exaone4"),
        "model.layers",
        ("post_feedforward_layernorm",),
        _POST,
        merge="diagonal",
        layer_lists=_LISTS,
    ),
    Family("glm4", ("glm4",), "model.layers", ("post_mlp_layernorm",), _POST, merge="diagonal"),
    Family("vit", ("vit",), "vit.layers", ("mlp.fc2",), _PIXELS, inputs="images", tower="vit"),
    Family("deit", ("deit",), "deit.layers", ("mlp.fc2",), _PIXELS, inputs="images", tower="deit"),
    Family(
        "clip (vision)",
        ("clip", "clip_vision_model"),
        "vision_model.encoder.layers",
        ("mlp.fc2",),
        _PIXELS,
        inputs="images",
        tower="vision_model",
    ),
    Family(
        "siglip (vision)",
        ("siglip", "siglip_vision_model"),
        "vision_model.encoder.layers",
        ("mlp.fc2",),
        _NO_CLS,
        inputs="images",
        tower="vision_model",
    ),
    Family("dinov2", ("dinov2",), "dinov2.encoder.layer", ("mlp.fc2",), _LAYER_SCALE, merge="refused", inputs="images", tower="dinov2"),
)


def markdown_table() -> str:
    """The table of the documentation (docs/reference/families.md)."""
    rows = [
        f"| {', '.join(f.model_types)} | `{f.blocks}` | {', '.join(f'`{w}`' for w in f.writers)} | {f.merge} | {f.reason} |"
        for f in FAMILIES
    ]
    return "\n".join(["| architectures | blocks | output projection | merge | why |", "|---|---|---|---|---|", *rows])
