"""Which results of a model under given settings are kept already, and under which key."""

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from replaceme_core.artifacts import ModelHandle
from replaceme_core.evaluation import store
from replaceme_core.evaluation.prefix_tree import SHARED
from replaceme_core.evaluation.probe_prompts import VERSION
from replaceme_core.evaluation.scores import Score, TaskScores
from replaceme_core.evaluation.suites import Entry
from replaceme_core.plans.evaluation_section import EvaluationSection

_PROBED = "The key is in the kitchen (7 + 5 = 12), isn't it?"
"""a text whose tokens tell tokenizers apart"""


@dataclass(frozen=True)
class EntryScores:
    """An entry of a suite with its results: its tasks, and the figures of groups with the tasks they stand for."""

    tasks: dict[str, TaskScores]
    groups: dict[str, dict[str, Score]]
    parts: dict[str, list[str]]


class KeptScores:
    """The results of one model under one evaluation section."""

    def __init__(self, handle: ModelHandle, section: EvaluationSection) -> None:
        self._weights = (handle.fingerprint, handle.dtype, handle.tokenizer(_PROBED)["input_ids"])
        self._seed = section.seed
        self._way = "" if section.exact else f" {SHARED}"
        self._told: list[Any] = [section.told] if section.apply_chat_template or section.system_instruction else []
        if section.apply_chat_template:
            self._told.append(getattr(handle.tokenizer, "chat_template", None))

    def entry(self, entry: Entry) -> EntryScores | None:
        """An entry that was finished before, whole."""
        record = store.load_entry(self._key(entry))
        if record is None:
            return None
        tasks = {name: store.load_task(key) for name, key in record["tasks"].items()}
        whole = {name: scores for name, scores in tasks.items() if scores is not None}
        return EntryScores(whole, record["groups"], record["parts"]) if len(whole) == len(tasks) else None

    def task(self, entry: Entry, task: str) -> TaskScores | None:
        return store.load_task(self._key(entry, task))

    def keep_entry(self, entry: Entry, found: EntryScores) -> None:
        groups = {name: {metric: vars(score) for metric, score in metrics.items()} for name, metrics in found.groups.items()}
        tasks = {name: self._key(entry, name) for name in found.tasks}
        store.save_entry(self._key(entry), {"tasks": tasks, "groups": groups, "parts": found.parts})

    def keep_task(self, entry: Entry, scores: TaskScores) -> None:
        store.save_task(self._key(entry, scores.task), scores)

    def _key(self, entry: Entry, task: str = "") -> str:
        """Everything that changes a result: weights, tokens, task, versions, settings; for a probe, which is asked in plain text, no chat."""
        told = [] if entry.probes else self._told
        machine: Any = f"probe {VERSION}" if entry.probes else f"lm-eval {version('lm-eval')}{self._way}"
        return store.key_of(self._weights, entry.identity, task, machine, entry.num_fewshot, entry.limit, self._seed, *told)
