"""What can be left out of an installation, and the sentence that says which extra brings it.

The library imports without any of these; what needs one says so when it is asked for.
"""

import importlib.util

from replaceme_core.errors import InputError

PACKAGE = "replaceme-studio"
EXTRAS = {
    "app": ("The app", ("streamlit", "altair", "pandas")),
    "benchmarks": ("A benchmark", ("lm_eval", "lm-eval")),
    "quantised": ("Holding a model in 4 or 8 bits", ("bitsandbytes",)),
}
"""extra -> what needs it, and the names that its packages are imported or installed by"""


def missing(error: BaseException | None) -> InputError | None:
    """The sentence for an import that failed because an extra is not installed; None for every other error."""
    while error is not None:
        name = str(getattr(error, "name", "") or "").split(".")[0] if isinstance(error, ModuleNotFoundError) else ""
        for extra, (who, names) in EXTRAS.items():
            if name in names:
                return InputError(f"{who} needs {name.replace('_', '-')}, which is not installed: {install(extra)}")
        error = error.__cause__ or error.__context__
    return None


def require(extra: str) -> None:
    """An `InputError` that says how to install what is missing of an extra."""
    who, names = EXTRAS[extra]
    for name in names:
        if "-" not in name and not there(name):
            raise InputError(f"{who} needs {name.replace('_', '-')}, which is not installed: {install(extra)}")


def there(name: str) -> bool:
    """Whether a package can be imported, without doing it."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def install(extra: str) -> str:
    """The command that brings an extra."""
    return f'pip install "{PACKAGE}[{extra}]"'
