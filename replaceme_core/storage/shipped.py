"""What is shipped beside the library, in the checkout or in the wheel: the app, and in `assets` the demo, the suites of questions, presets, the plan's schema."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

_HERE = Path(__file__).resolve().parent.parent.parent
ROOT = _HERE if (_HERE / "app.py").is_file() else _HERE / "replaceme_studio"
"""where the app is: the checkout, or what a wheel lays beside the library"""
ASSETS = ROOT / "assets"
DEMO = ASSETS / "demo"
"""model, calibration, tasks and held-out text of the demo"""
SMOLLM2 = ASSETS / "smollm2"
"""calibration text that SmolLM2-135M-Instruct wrote itself, with a manifest that says how"""
SUITES = {"demo": DEMO / "tasks", "plain": ASSETS / "tasks" / "plain"}
"""the suites of questions that need no network: the demo model's own, and plain English for any language model"""
_PRESETS = ASSETS / "presets"


@cache
def presets(kind: str) -> dict[str, dict[str, Any]]:
    """The presets of a kind ('calibration', 'suites') by name. A library copied without its assets has none."""
    path = _PRESETS / f"{kind}.yaml"
    if not path.is_file():
        return {}
    found: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found
