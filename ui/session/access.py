"""The shared profile: when a class shares one server, an environment variable limits what a page may load.

REPLACEME_MODELS="demo,HuggingFaceTB/SmolLM2-135M" allows these models only, and no local paths.
"""

import os
from dataclasses import dataclass

from replaceme_core.errors import ModelError

_SHIPPED = ("demo", "smollm2")
"""model paths that are names of ours"""


@dataclass(frozen=True)
class Access:
    """What the pages may offer. `models` empty: everything."""

    models: tuple[str, ...]

    @property
    def shared(self) -> bool:
        return bool(self.models)

    def require(self, path: str) -> None:
        """Raises `ModelError` for a model that this server does not offer."""
        if self.shared and path not in self.models:
            raise ModelError(f"This shared server offers only {', '.join(self.models)}; ask its owner for '{path}'.")

    def allows_source(self, source: str) -> bool:
        if not self.shared:
            return True
        if source == "hub":
            return any(name not in _SHIPPED for name in self.models)
        return source in _SHIPPED and source in self.models


def access() -> Access:
    names = os.environ.get("REPLACEME_MODELS", "")
    return Access(tuple(name.strip() for name in names.split(",") if name.strip()))
