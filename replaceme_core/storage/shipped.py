"""What is shipped beside the library, in `assets`: the demo, presets, the plan's schema."""

from pathlib import Path

ASSETS = Path(__file__).resolve().parent.parent.parent / "assets"
DEMO = ASSETS / "demo"
"""model, calibration, tasks and held-out text of the demo"""
PRESETS = ASSETS / "presets"
