"""The cut as a recipe for mergekit (its passthrough merge): the blocks that stay, without the transform."""

import yaml

from replaceme_core.span import Cut

NAME = "mergekit.yaml"
_ABOUT = """# The cut alone, for mergekit: mergekit-yaml mergekit.yaml OUT
# The transform is not part of it: the model beside this file, or transform.safetensors, has it.
# Blocks are renumbered, no more: where a model's configuration holds a rule for each block (layer_types, no_rope_layers,
# scale_attn_by_inverse_layer_idx, ...), the rules must be cut by hand, as they are in the model beside this file.
"""


def recipe(model: str, cut: Cut, n_blocks: int, dtype: str) -> str:
    """YAML. `n_blocks` are those of the original; a layer range is half-open, as a span is."""
    model = "assets/demo/model" if model == "demo" else model  # as it lies in a checkout, from where mergekit is run
    kept = cut.kept(n_blocks)
    starts = [block for block in kept if block - 1 not in kept]
    ends = [block + 1 for block in kept if block + 1 not in kept]
    slices = [{"sources": [{"model": model, "layer_range": [start, end]}]} for start, end in zip(starts, ends, strict=True)]
    return _ABOUT + yaml.safe_dump({"slices": slices, "merge_method": "passthrough", "dtype": dtype}, sort_keys=False, allow_unicode=True)
