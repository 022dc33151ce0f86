"""A fit may follow its calibration text: what it and plain removal cost on a text unlike it, and the sentence that says which is better.

The second text is the prose of the plain suite (assets/tasks/plain), about nothing in particular; no calibration set holds it.
"""

from replaceme_core.artifacts import ModelHandle
from replaceme_core.calibration.calibration import plain_prose
from replaceme_core.comparison.compare import Divergence, attempts
from replaceme_core.comparison.intervals import bracketed
from replaceme_core.errors import NumericsError
from replaceme_core.progress import SILENT, Portion, Progress

TOKENS = 1024


def verdict(original: ModelHandle, fitted: ModelHandle, removed: ModelHandle, progress: Progress = SILENT) -> tuple[bool, str]:
    """Whether the fit has the lower KL to the original on the second text than removal without a transform; and both in a sentence.

    The three share a vocabulary. A model whose logits are not finite there is the worse one.
    """
    text = plain_prose(original.tokenizer, TOKENS)
    step = Portion(progress, 0, text.n_tokens, text.n_tokens, "tokens", "fit and plain removal on a second text")
    _, fit, removal = attempts(original, [fitted, removed], text, step)
    if isinstance(fit, NumericsError):
        return False, f"On a second text ({text}) the fitted model fails: {fit}"
    better = isinstance(removal, NumericsError) or fit.kl < removal.kl
    other = "there are no finite logits" if isinstance(removal, NumericsError) else _figures(removal)
    ends = (
        "the fit carries over"
        if better
        else "the fit is WORSE than plain removal there. It follows its calibration text: use more calibration tokens (max_tokens), a text of "
        "more kinds, a larger ridge, or the method 'drop'"
    )
    return better, (
        f"On a second text, unlike the calibration set ({fit.n_tokens:,} tokens of {text}): KL {_figures(fit)}; removed without a transform "
        f"{other}; {ends}."
    )


def _figures(row: Divergence) -> str:
    return bracketed(row.kl, row.kl_low, row.kl_high, ".3f")
