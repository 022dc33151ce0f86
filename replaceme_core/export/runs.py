"""The history: runs and exports as folders, read by the app and the command line alike.

A folder counts if its report.json can be read; what a killed process left, and what is damaged, is named by `broken` and `clean`.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from replaceme_core.errors import InputError, ModelError
from replaceme_core.span import Cut, Span
from replaceme_core.storage import folders

FOLDERS = ("runs", "exports")
"""where the app and the command line write by default"""
_HEALING = ".healing"


@dataclass(frozen=True)
class RunSummary:
    """One line of the history. Figures that a folder does not have are None."""

    folder: Path
    name: str
    cut: Cut
    method: str
    heldout_error: float
    """of the fit, before any healing"""
    modified: float
    """seconds since the epoch"""
    healed: float | None = None
    """held-out KL after the healing (training), in nats per token; None: it was not healed, or healing did not lower it"""
    kl: float | None = None
    """KL to the original of what was exported, in nats per token"""
    kl_low: float | None = None
    kl_high: float | None = None
    perplexity: float | None = None
    n_tokens: int | None = None
    """of KL and perplexity"""
    part: str | None = None
    """of the text that these are tokens of: 'test'; None: a run of before there was one, on held-out text"""
    average: float | None = None
    """average accuracy of the benchmarks"""
    model: str | None = None
    """of the original, as the plan names it"""

    @property
    def span(self) -> Span:
        """The first of the cut's spans."""
        return self.cut.spans[0]

    @property
    def quality(self) -> float | None:
        """The KL that says how far the result is from the original: measured after the run, else by the healing."""
        return self.kl if self.kl is not None else self.healed


@dataclass(frozen=True)
class Curve:
    """One line of figures that a run left: its healing over the steps, or its refit over the blocks."""

    what: str
    """'healing' or 'refit'"""
    run: str
    points: tuple[tuple[float, float], ...]
    """(step, held-out KL in nats per token), or (block of the original, held-out error after its refit)"""


def curves(folder: str | Path) -> list[Curve]:
    """The curves in a folder's report; none where there are none, or where it cannot be read."""
    try:
        data = json.loads((Path(folder) / "report.json").read_text(encoding="utf-8"))
        healed = tuple((float(point["step"]), float(point["heldout"])) for point in (data.get("healing") or {}).get("points", ()))
        last = {int(step["block"]): float(step["after"]) for step in data.get("steps") or ()}  # the last part of a block is what it leaves
        named = str(Path(folder))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []
    refit = tuple((float(block), error) for block, error in sorted(last.items()))
    return [curve for curve in (Curve("healing", named, healed), Curve("refit", named, refit)) if len(curve.points) > 1]


def plan_text(folder: str | Path) -> str:
    """The plan of a run or the run config of an export, as it lies there. Raises `InputError` where there is none."""
    for name in ("plan.yaml", "recipe.yaml"):
        path = Path(folder) / name
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise InputError(f"'{folder}' holds neither plan.yaml nor recipe.yaml; it cannot be opened again.")


def list_runs(folder: str | Path = "runs") -> list[RunSummary]:
    """The runs and exports below a folder, the newest first; folders that are not whole are left out."""
    found = []
    for path in Path(folder).glob("[!.]*/report.json"):
        try:
            found.append(_summary(path.parent))
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError, InputError):
            continue
    return sorted(found, key=lambda summary: -summary.modified)


def read_run(folder: str | Path) -> RunSummary:
    """One run or export. Raises `InputError` where it cannot be read."""
    try:
        return _summary(Path(folder))
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise InputError(f"'{folder}' is not a whole run or export ({_reason(error)}); `replaceme runs` lists those that are.") from error


def differences(found: Iterable[Path]) -> dict[str, list[Any]]:
    """The entries of the plans that are not the same in all folders: 'section.key' -> one value per folder."""
    plans = [_flat(_plan(folder)) for folder in found]
    keys = dict.fromkeys(key for plan in plans for key in plan)
    rows = {key: [plan.get(key) for plan in plans] for key in keys}
    return {key: values for key, values in rows.items() if any(value != values[0] for value in values[1:])}


def broken(folder: str | Path) -> list[tuple[Path, str]]:
    """What lies below a folder and is of no use, each with the reason: leftovers of killed processes, and damaged runs.

    Only folders that are ours beyond doubt are judged (see `owned`), because `clean` removes what is named here; a checkpoint of a healing
    is none of them, because its run goes on from it.
    """
    from replaceme_core.export.owned import is_ours  # reads headers of tensor files, which a list of runs does not wait for

    base = Path(folder)
    found = [(path, "left by a process that was killed while it wrote") for path in folders.leftovers(base)]
    for path in sorted(base.glob("[!.]*/")):
        reason = _damage(path) if is_ours(path) else ""
        found += [(path, reason)] if reason else []
    return found


def checkpoints(folder: str | Path) -> list[Path]:
    """Where stopped healings (training) below a folder would go on."""
    return sorted(path for path in Path(folder).glob(f".*{_HEALING}") if path.is_dir() and _holds_steps(path))


def _holds_steps(folder: Path) -> bool:
    """Whether nothing lies in a folder but the steps that a healing writes, whole or half."""
    return all(path.is_dir() and path.name.lstrip(".").startswith("step-") for path in folder.iterdir())


def clean(paths: Iterable[Path]) -> list[Path]:
    """Removes folders that `broken` or `checkpoints` named, but not one that a process has begun to write since; returns those that are gone."""
    return [path for path in paths if folders.remove(path)]


def _summary(folder: Path) -> RunSummary:
    path = folder / "report.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    cut = Cut.of([Span(*map(int, data["span"])), *(Span(*map(int, pair)) for pair in data.get("more") or [])])
    healing = data.get("healing") or {}
    figures: dict[str, Any] = {}
    compared = _optional(folder / "comparison.json")
    if isinstance(compared, list) and len(compared) > 1:
        figures = {key: compared[1].get(key) for key in ("kl", "kl_low", "kl_high", "perplexity", "n_tokens", "part")}
    scores = _optional(folder / "scores.json")
    if isinstance(scores, list):  # those of the original stand first, and may be all that there are
        figures["average"] = next((found.get("average") for found in scores if found.get("model") == data["name"]), None)
    lowered = min(point["heldout"] for point in healing["points"]) if healing and healing["best"] > 0 else None
    return RunSummary(
        folder=folder,
        name=str(data["name"]),
        cut=cut,
        method=str(data["method"]),
        heldout_error=float(data["report"]["heldout_error"]),
        modified=path.stat().st_mtime,
        healed=lowered,
        model=_plan(folder).get("model", {}).get("path"),
        **figures,
    )


def _optional(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _plan(folder: Path) -> dict[str, Any]:
    """The plan of a run or the recipe of an export; empty where there is none."""
    for name in ("plan.yaml", "recipe.yaml"):
        if (folder / name).is_file():
            try:
                data = yaml.safe_load((folder / name).read_text(encoding="utf-8"))
            except yaml.YAMLError as error:
                raise ValueError(f"{name} is no YAML: {error}") from error
            return data if isinstance(data, dict) else {}
    return {}


def _flat(plan: dict[str, Any]) -> dict[str, Any]:
    sections = {name: section if isinstance(section, dict) else {"": section} for name, section in plan.items()}
    return {f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()}


def _damage(folder: Path) -> str:
    """Why a run, an export or a transform is not whole; empty where it is."""
    from replaceme_core.storage.tensor_files import entries

    try:
        _summary(folder)
        model = folder / "model" if (folder / "plan.yaml").is_file() else folder
        if model != folder or (model / "config.json").is_file():
            json.loads((model / "config.json").read_text(encoding="utf-8"))
            entries(model)
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError, InputError, ModelError) as error:
        return _reason(error)
    return ""


def _reason(error: Exception) -> str:
    """In words: a file that is missing, or what is wrong with one."""
    if isinstance(error, FileNotFoundError):
        return f"'{Path(str(error.filename)).name}' is missing"
    if isinstance(error, KeyError):
        return f"its report has no entry {error}"
    if isinstance(error, json.JSONDecodeError):
        return f"a JSON file of it is damaged ({error})"
    return " ".join(str(error).split()) or type(error).__name__
