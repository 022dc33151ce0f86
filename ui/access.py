"""The shared profile: when a class shares one server, an environment variable limits what a page may load.

REPLACEME_MODELS="demo,HuggingFaceTB/SmolLM2-135M" allows these models only, and no local paths.
"""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Access:
    """What the pages may offer. `models` empty: everything."""

    models: tuple[str, ...]

    @property
    def shared(self) -> bool:
        return bool(self.models)

    def allows_source(self, source: str) -> bool:
        if not self.shared:
            return True
        return source == "demo" if source != "hub" else any(name != "demo" for name in self.models)


def access() -> Access:
    names = os.environ.get("REPLACEME_MODELS", "")
    return Access(tuple(name.strip() for name in names.split(",") if name.strip()))
