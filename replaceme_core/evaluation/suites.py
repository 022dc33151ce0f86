"""What a plan's `tasks` stands for: suites, lm-eval names, folders, files of own questions, the generative probe.

Entries are separated by commas; NAME@5 asks lm-eval's task NAME 5-shot.
"""

from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from replaceme_core.errors import EvaluationError
from replaceme_core.evaluation import own_items
from replaceme_core.evaluation.prefix_tree import SHARED
from replaceme_core.evaluation.probe_prompts import FAMILIES, VERSION
from replaceme_core.evaluation.scores import PROBE
from replaceme_core.evaluation.store import key_of
from replaceme_core.evaluation.task_data import contents
from replaceme_core.evaluation.task_files import folder_tasks, shipped_tasks
from replaceme_core.plans.evaluation_section import EvaluationSection
from replaceme_core.storage import shipped
from replaceme_core.storage.shipped import SUITES


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
        """Changes with the description of the task and with its data, wherever they lie; a name of lm-eval stands for its version of it."""
        if self.task is None:
            return self.name
        return f"{self.name} {contents(self.task)}"


def presets() -> dict[str, dict[str, Any]]:
    """The suites by name: title, about, tasks, limit."""
    return shipped.presets("suites")


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
        raise EvaluationError("No task is named; give 'plain', 'demo', a suite, lm-eval names, a folder or a file.")
    return found


def identity(section: EvaluationSection) -> str:
    """Short text that changes with all that is asked, and with who asks: questions in files by their contents, versions, settings."""
    asked = [(entry.identity, entry.num_fewshot, entry.limit) for entry in entries(section)]
    told: list[Any] = [section.told] if section.apply_chat_template or section.system_instruction else []
    told += [] if section.exact else [SHARED]
    return key_of(asked, section.seed, version("lm-eval"), VERSION, *told)[:16]


def _entries(text: str) -> list[Entry]:
    path = Path(text)
    if text not in SUITES and text not in presets() and text and path.exists():
        return _from_disk(path)
    found: list[Entry] = []
    for part in _parts(text):
        found += _entry(part)
    return found


def _parts(text: str) -> list[str]:
    """The entries; names after 'demo:', 'plain:' and 'probe:' belong together: in 'demo:where,find,piqa' the third is lm-eval's."""
    known = {suite: {name.removeprefix(f"{suite}_") for name in shipped_tasks(suite)} for suite in SUITES} | {"probe": set(FAMILIES)}
    parts: list[str] = []
    for part in text.split(","):
        suite = parts[-1].partition(":")[0].strip() if parts and ":" in parts[-1] else ""
        if suite in known and part.strip().removeprefix(f"{suite}_") in known[suite]:
            parts[-1] += f",{part}"
        elif part.strip():
            parts.append(part.strip())
    return parts


def _entry(part: str) -> list[Entry]:
    suite, _, names = part.partition(":")
    if suite in SUITES:
        return [Entry(spec["task"], spec) for spec in _chosen(names, shipped_tasks(suite), f"{suite}_", f"The {suite} suite")]
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
        raise EvaluationError(f"'{part}': after @ comes the number of few-shot examples, as in {name}@5.")
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
