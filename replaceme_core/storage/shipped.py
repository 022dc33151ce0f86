"""What is shipped beside the library, in `assets`: the demo, presets, the plan's schema."""

from pathlib import Path

ASSETS = Path(__file__).resolve().parent.parent.parent / "assets"
DEMO = ASSETS / "demo"
"""model, calibration, tasks and held-out text of the demo"""
SMOLLM2 = ASSETS / "smollm2"
"""calibration text that SmolLM2-135M-Instruct wrote itself, with a manifest that says how"""
PRESETS = ASSETS / "presets"
