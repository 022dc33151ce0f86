"""The text that figures are measured on: test text, which nothing else reads; for the demo model its own documents."""

from replaceme_core.artifacts import ModelHandle
from replaceme_core.calibration.calibration import CalibrationSet, documents
from replaceme_core.calibration.parts import TextPart

TOKENS = 4096
_DEMO = "demo"


def comparison_text(handle: ModelHandle, path: str, calibration: CalibrationSet, n_tokens: int = TOKENS) -> TextPart:
    """About `n_tokens` for a model that was loaded from `path`: the demo's documents, else the test part of the calibration set.

    Raises `InputError` where the set has no such part.
    """
    return documents(handle.tokenizer, n_tokens) if path == _DEMO else calibration.test_text(n_tokens)
