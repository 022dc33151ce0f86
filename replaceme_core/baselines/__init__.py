"""The other systems of the field, one per file, each from its paper's algorithm, behind one interface.

    made = prune("shortgpt", Request(handle, calibration, n_blocks=3))
    made.handle, made.removed, made.proofs, made.seconds, made.training, made.n_parameters_removed

A baseline takes a model, a calibration set and a number of blocks, and gives back a pruned model that passed its proofs: what was
decided = hooks on the untouched original; cached = uncached generation; the shapes of all that stays. Reload = memory follows on
export. Nothing here is tuned on benchmarks. `BASELINES` is the table of names.
"""

from replaceme_core.baselines import shortgpt, uidl
from replaceme_core.baselines.depth import by
from replaceme_core.baselines.interface import Baseline, Pruned, Request
from replaceme_core.errors import InputError

__all__ = ["BASELINES", "Baseline", "Pruned", "Request", "find", "prune"]

_ROWS = (
    Baseline(
        "uidl", "UIDL", "depth", "one run of blocks, where the angle across it is least at the last token",
        "Gromov et al. 2024, The Unreasonable Ineffectiveness of the Deeper Layers", "2403.17887", by("uidl", "2403.17887", uidl.choose),
    ),
    Baseline(
        "uidl_simple", "UIDL, simple", "depth", "the deepest blocks before the last one; nothing is measured",
        "Gromov et al. 2024, section 3.4", "2403.17887", by("uidl_simple", "2403.17887", uidl.choose_simple),
    ),
    Baseline(
        "shortgpt", "ShortGPT", "depth", "the blocks that turn the stream least, wherever they stand",
        "Men et al. 2024, ShortGPT: Layers in Large Language Models are More Redundant Than You Expect", "2403.03853",
        by("shortgpt", "2403.03853", shortgpt.choose),
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
