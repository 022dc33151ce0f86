"""The other systems of the field, one per file, each from its paper's algorithm, behind one interface.

    made = prune("shortgpt", Request(handle, calibration, n_blocks=3))
    made.handle, made.removed, made.proofs, made.seconds, made.training, made.n_parameters_removed

A baseline takes a model, a calibration set and a number of blocks, and gives back a pruned model that passed its checks: what was
decided = hooks on the untouched original; cached = uncached generation; the shapes of all that stays. Reload = memory follows on
export. A method that narrows blocks removes as many parameters as that number of blocks has. Nothing here
is tuned on benchmarks. `BASELINES` is the table of names.
"""

from replaceme_core.baselines import laco, llm_pruner, llm_streamline, secretly_linear, shortgpt, sleb, slicegpt, uidl
from replaceme_core.baselines.depth import by
from replaceme_core.baselines.interface import Baseline, Pruned, Request
from replaceme_core.errors import InputError

_SHORT = "Men et al. 2024, ShortGPT: Layers in Large Language Models are More Redundant Than You Expect"
_SLICE = "Ashkboos et al. 2024, SliceGPT: Compress Large Language Models by Deleting Rows and Columns"
_PRUNER = "Ma et al. 2023, LLM-Pruner: On the Structural Pruning of Large Language Models"
_ROWS = (
    Baseline(
        "uidl", "UIDL", "depth", "one run of blocks, where the angle across it is least at the last token",
        "Gromov et al. 2024, The Unreasonable Ineffectiveness of the Deeper Layers", "2403.17887", by("uidl", "2403.17887", uidl.choose),
    ),
    Baseline(
        "uidl_simple", "UIDL, simple", "depth", "the deepest blocks before the last one; nothing is measured",
        "Gromov et al. 2024, the simple strategy", "2403.17887", by("uidl_simple", "2403.17887", uidl.choose_simple),
    ),
    Baseline(
        "shortgpt", "ShortGPT", "depth", "the blocks that turn the stream least, wherever they stand",
        _SHORT, "2403.03853", by("shortgpt", "2403.03853", shortgpt.choose),
    ),
    Baseline(
        "sleb", "SLEB", "depth", "greedily the block whose removal leaves the least loss on the calibration text",
        "Song et al. 2024, SLEB: Streamlining LLMs through Redundancy Verification and Elimination of Transformer Blocks", "2402.09025",
        by("sleb", "2402.09025", sleb.choose),
    ),
    Baseline(
        "laco", "LaCo", "depth", "from the top down, blocks are merged into the one below by their weight differences",
        "Yang et al. 2024, LaCo: Large Language Model Pruning via Layer Collapse", "2402.11187", by("laco", "2402.11187", laco.choose),
    ),
    Baseline(
        "llm_streamline", "LLM-Streamline", "depth", "a window of blocks gives way to one block that is trained on its output",
        "Chen et al. 2024, Streamlining Redundant Layers to Compress Large Language Models", "2403.19135",
        by("llm_streamline", "2403.19135", llm_streamline.choose, training=True), training=True,
    ),
    Baseline(
        "secretly_linear", "Secretly linear", "depth", "the most linear blocks, each replaced by its best matrix",
        "Razzhigaev et al. 2024, Your Transformer is Secretly Linear", "2405.12250",
        by("secretly_linear", "2405.12250", secretly_linear.choose), plain=False,
    ),
    Baseline(
        "slicegpt", "SliceGPT", "width", "the stream is turned into its principal axes at every norm, and the least axes are cut off",
        _SLICE, "2401.15024", slicegpt.by(one=False), plain=False,
    ),
    Baseline(
        "slicegpt_one", "SliceGPT, one rotation", "width", "the same with one rotation for all blocks, so that a plain model is left",
        _SLICE, "2401.15024", slicegpt.by(one=True),
    ),
    Baseline(
        "llm_pruner", "LLM-Pruner", "width", "in the middle blocks, the heads and MLP channels of least |gradient x weight| go",
        _PRUNER, "2305.11627", llm_pruner.by(uniform=False), plain=False,
    ),
    Baseline(
        "llm_pruner_uniform", "LLM-Pruner, uniform", "width", "the same in all blocks alike, so that a plain model is left",
        _PRUNER, "2305.11627", llm_pruner.by(uniform=True),
    ),
)  # fmt: skip
BASELINES: dict[str, Baseline] = {row.name: row for row in _ROWS}


def find(name: str) -> Baseline:
    """The row of a name, or an `InputError` that lists them."""
    if name not in BASELINES:
        raise InputError(f"There is no baseline '{name}'; choose one of {', '.join(BASELINES)}.")
    return BASELINES[name]


def prune(name: str, request: Request) -> Pruned:
    """The model pruned by the baseline of that name; the original stays as it is."""
    return find(name).make(request)
