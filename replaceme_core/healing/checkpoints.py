"""Where a healing stands, on disk: safetensors and JSON, written whole under a new name before the old one goes."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from replaceme_core.artifacts import ModelHandle
from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.errors import InputError
from replaceme_core.healing.state import State
from replaceme_core.healing_report import HealingPoint
from replaceme_core.plans.plan import HealingSection
from replaceme_core.storage.folders import staged, write_json, writing


def identity(original: ModelHandle, variant: ModelHandle, calibration: CalibrationSet, section: HealingSection) -> dict[str, Any]:
    """What a healing is: models, tokens and settings. A checkpoint goes on with the same ones only."""
    models = {"original": original.fingerprint, "variant": variant.fingerprint}
    return {**models, "calibration": calibration.fingerprint, "settings": section.model_dump(exclude_none=True)}


def write(folder: Path, identity: dict[str, Any], state: State) -> None:
    """The state as `folder`/step-N; older steps are removed once it is there."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    old = _steps(folder)
    with staged(folder / f"step-{state.step:07d}") as staging, writing(staging):
        save_file({name: tensor.contiguous() for name, tensor in state.tensors().items()}, staging / "state.safetensors")
        said = {"step": state.step, "n_tokens": state.n_tokens, "best": state.best, "seconds": state.seconds}
        write_json(staging / "state.json", {"identity": identity, **said, "points": [asdict(point) for point in state.points]})
    for path in old:
        shutil.rmtree(path)


def read(folder: Path, identity: dict[str, Any], state: State) -> None:
    """Puts the newest checkpoint into the state, if there is one. `InputError` if it is another healing's, or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    found = _steps(folder)
    if not found:
        return
    try:
        said = json.loads((found[-1] / "state.json").read_text(encoding="utf-8"))
        points = [HealingPoint(**point) for point in said["points"]]
        tensors = load_file(found[-1] / "state.safetensors")
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InputError(f"The checkpoint '{found[-1]}' cannot be read ({error}). Remove it to begin anew.") from error
    if said["identity"] != identity:
        raise InputError(
            f"The checkpoint '{found[-1]}' belongs to another healing (model, text or settings differ). Remove it to begin anew, or choose another folder."
        )
    state.restore(tensors)
    state.step, state.n_tokens, state.best, state.seconds = (said[key] for key in ("step", "n_tokens", "best", "seconds"))
    state.points = points


def points(folder: Path) -> list[HealingPoint]:
    """The curve so far of a healing that runs or was stopped; empty before its first checkpoint."""
    for path in reversed(_steps(folder)):
        try:
            said = json.loads((path / "state.json").read_text(encoding="utf-8"))
            return [HealingPoint(**point) for point in said["points"]]
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return []


def _steps(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"))
