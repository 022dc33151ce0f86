"""What a plan's `tasks` stands for: suites, lm-eval names, folders, files of own questions, the generative probe.

Entries are separated by commas; NAME@5 asks lm-eval's task NAME with five solved examples before each question.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from replaceme_core.errors import EvaluationError
from replaceme_core.evaluation import own_items
from replaceme_core.evaluation.probe_prompts import FAMILIES
from replaceme_core.evaluation.scores import PROBE
from replaceme_core.evaluation.task_files import demo_tasks, folder_tasks
from replaceme_core.plans.evaluation_section import EvaluationSection

_PRESETS = Path(__file__).resolve().parent.parent.parent / "assets" / "presets" / "suites.yaml"


@dataclass(frozen=True)
class Entry:
    """One task, group or probe family. `task`: lm-eval's description, for tasks that come from files."""

    name: str
    task: dict[str, Any] | None = None
    num_fewshot: int | None = None
    limit: int | None = None

    @property
    def probes(self) -> bool:
        """Whether our own generative probe asks it."""
        return self.name.startswith(PROBE) and self.task is None

    @property
    def identity(self) -> str:
        """Changes with the description of the task and with its data; a name of lm-eval stands for its version of it."""
        if self.task is None:
            return self.name
        digest = hashlib.sha256(json.dumps(self.task, sort_keys=True, default=str).encode())
        for path in _files((self.task.get("dataset_kwargs") or {}).get("data_files")):
            if path.is_file():
                digest.update(path.read_bytes())
        return f"{self.name} {digest.hexdigest()[:24]}"


@cache
def presets() -> dict[str, dict[str, Any]]:
    """The suites by name: title, about, tasks, limit. An installation of the library alone, without the checkout, has none."""
    if not _PRESETS.is_file():
        return {}
    found: dict[str, dict[str, Any]] = yaml.safe_load(_PRESETS.read_text(encoding="utf-8"))
    return found


def entries(section: EvaluationSection) -> list[Entry]:
    """What is asked, in order, with the section's limit and number of examples. Raises `EvaluationError`."""
    found: list[Entry] = []
    for entry in _entries(section.tasks.strip()):
        fewshot = entry.num_fewshot if section.num_fewshot is None else section.num_fewshot
        entry = replace(entry, limit=section.limit or entry.limit, num_fewshot=None if entry.probes else fewshot)
        if entry.name in {other.name for other in found}:
            raise EvaluationError(f"The task '{entry.name}' is named twice in '{section.tasks}'; name it once.")
        found.append(entry)
    if not found:
        raise EvaluationError("No task is named; give 'demo', a suite, lm-eval names, a folder or a file.")
    return found


def _entries(text: str) -> list[Entry]:
    path = Path(text)
    if text != "demo" and text not in presets() and text and path.exists():
        return _from_disk(path)
    found: list[Entry] = []
    for part in _parts(text):
        found += _entry(part)
    return found


def _parts(text: str) -> list[str]:
    """The entries; names after 'demo:' and 'probe:' belong together: in 'demo:where,find,piqa' the third is lm-eval's."""
    known = {"demo": {name.removeprefix("demo_") for name in demo_tasks()}, "probe": set(FAMILIES)}
    parts: list[str] = []
    for part in text.split(","):
        suite = parts[-1].partition(":")[0].strip() if parts and ":" in parts[-1] else ""
        if suite in known and part.strip().removeprefix("demo_") in known[suite]:
            parts[-1] += f",{part}"
        elif part.strip():
            parts.append(part.strip())
    return parts


def _entry(part: str) -> list[Entry]:
    suite, _, names = part.partition(":")
    if suite == "demo":
        return [Entry(spec["task"], spec) for spec in _chosen(names, demo_tasks(), "demo_", "The demo suite")]
    if suite == "probe":
        return [Entry(name) for name in _chosen(names, {PROBE + family: PROBE + family for family in FAMILIES}, PROBE, "The probe")]
    if part in presets():
        preset = presets()[part]
        return [replace(entry, limit=preset.get("limit")) for name in preset["tasks"] for entry in _entry(name)]
    if Path(part).exists():
        return _from_disk(Path(part))
    if part.endswith((".jsonl", ".yaml", "/")) or part.startswith(("/", "./", "../", "~")):
        raise EvaluationError(f"'{part}' does not exist; give a folder of lm-eval YAML tasks, or a JSONL file of questions.")
    return [_named(part)]


def _named(part: str) -> Entry:
    name, at, shots = part.partition("@")
    if at and not shots.isdigit():
        raise EvaluationError(f"'{part}': after @ comes the number of solved examples, as in {name}@5.")
    return Entry(name.strip(), None, int(shots) if at else None)


def _from_disk(path: Path) -> list[Entry]:
    if path.is_dir():
        return [Entry(spec["task"], spec) for spec in folder_tasks(path)]
    if path.suffix == ".jsonl":
        task = own_items.task_of(path)
        return [Entry(task["task"], task)]
    raise EvaluationError(f"'{path}' is neither a folder of lm-eval YAML tasks nor a .jsonl file of questions.")


def _chosen(names: str, known: dict[str, Any], prefix: str, suite: str) -> list[Any]:
    """All that are known, or those named, with or without their prefix."""
    wanted = [prefix + name.strip().removeprefix(prefix) for name in names.split(",") if name.strip()]
    missing = [name.removeprefix(prefix) for name in wanted if name not in known]
    if missing:
        raise EvaluationError(f"{suite} has no task '{', '.join(missing)}'; it has {', '.join(n.removeprefix(prefix) for n in known)}.")
    return [known[name] for name in wanted] if wanted else list(known.values())


def _files(names: Any) -> list[Path]:
    """The data files of a task that are on this machine."""
    if isinstance(names, dict):
        return [path for each in names.values() for path in _files(each)]
    if isinstance(names, list):
        return [path for each in names for path in _files(each)]
    return [Path(names)] if isinstance(names, str) else []
