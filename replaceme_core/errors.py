"""Every error the library raises on purpose, in one tree.

    ReplaceMeError                    catch this one; the app and the command line do
    ├── InputError                    what the person gave cannot be used
    │   ├── PlanError                 a plan has unknown keys or values that contradict each other
    │   ├── SpanError                 a span outside 1 <= start < end <= n_blocks
    │   ├── TextError                 a calibration file or upload cannot be read (names file and line)
    │   ├── ImageError                an image of a calibration folder cannot be read (names the file)
    │   └── ModelError                a model cannot be found, read or is of an unsuitable kind
    │       └── FamilyError           the model family is not one whose merge is known to be exact
    ├── NumericsError                 the numbers do not allow the fit (NaN, too few tokens, rank)
    ├── OutOfMemoryError              a step needed more memory than there was
    ├── ProofError                    a pruned model failed one of its checks; it must not be used
    ├── ExportError                   the export could not be written or did not verify
    ├── EvaluationError               a benchmark could not be run
    ├── UnforeseenError               something failed that no sentence was written for; it holds the words of what failed
    ├── DistributionError             several processes could not do one run together
    └── Cancelled                     the person pressed Cancel

Each message says what happened, why, and which knob to turn.
"""


class ReplaceMeError(Exception):
    """Base of all errors that a person can act on."""


class InputError(ReplaceMeError):
    """What the person gave cannot be used."""


class PlanError(InputError):
    """A plan has unknown keys or bad values; all of them are listed in the message."""


class SpanError(InputError):
    """A span does not satisfy 1 <= start < end <= n_blocks."""


class TextError(InputError):
    """A text source cannot be read; the message names the file and the line."""


class ImageError(InputError):
    """An image cannot be read, or a folder holds too few; the message names the file."""


class ModelError(InputError):
    """A model cannot be found, read, or is of an unsuitable kind."""


class FamilyError(ModelError):
    """The merge into this model family is not known to be exact."""


class NumericsError(ReplaceMeError):
    """The numbers do not allow what was asked (NaN, too few tokens, rank deficiency)."""


class OutOfMemoryError(ReplaceMeError):
    """A step needed more memory than there was; the message says which step and how it needs less."""


class ProofError(ReplaceMeError):
    """A pruned model failed one of its checks."""


class ExportError(ReplaceMeError):
    """The export could not be written, or what was written did not verify."""


class EvaluationError(ReplaceMeError):
    """A benchmark could not be run."""


class UnforeseenError(ReplaceMeError):
    """Something failed that nobody foresaw; `__cause__` is the error itself."""


class DistributionError(ReplaceMeError):
    """Several processes could not do one run together."""


class Cancelled(ReplaceMeError):
    """The person pressed Cancel."""


def quoted(error: BaseException, most: int = 300) -> str:
    """The words of somebody else's error on one line, at most so many characters of them."""
    return " ".join(str(error).split())[:most]
