"""Benchmarks on a model in memory: lm-eval's tasks and our generative probe, task by task, with every finished task kept.

`suites` says what the section's `tasks` stand for, `harness` and `probe` ask, `store` keeps. What is known is not asked again, so
that a run that was stopped or cancelled goes on where it was.
"""

from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from replaceme_core.artifacts import ModelHandle
from replaceme_core.distribution import ALONE, Group
from replaceme_core.errors import EvaluationError
from replaceme_core.evaluation import chat
from replaceme_core.evaluation.kept import EntryScores, KeptScores
from replaceme_core.evaluation.paired import Paired as Paired
from replaceme_core.evaluation.paired import paired as paired
from replaceme_core.evaluation.paired import paired_overall as paired_overall
from replaceme_core.evaluation.questions import Questions
from replaceme_core.evaluation.scores import Sample as Sample
from replaceme_core.evaluation.scores import Score as Score
from replaceme_core.evaluation.scores import Scores as Scores
from replaceme_core.evaluation.scores import TaskScores, average_of
from replaceme_core.evaluation.suites import Entry, entries
from replaceme_core.guard import guarded
from replaceme_core.plans.plan import EvaluationSection
from replaceme_core.progress import SILENT, Progress

if TYPE_CHECKING:
    from replaceme_core.evaluation.harness import Harness


def list_tasks(tasks: str = "demo") -> list[str]:
    """Names of the entries that `tasks` stands for, without importing lm-eval."""
    return [entry.name for entry in entries(EvaluationSection(tasks=tasks))]


def require_text(handle: ModelHandle) -> None:
    """An `EvaluationError` for a model that lm-eval cannot question."""
    if handle.family.inputs != "text":
        raise EvaluationError(f"'{handle.name}' reads images, and the benchmarks ask questions in text; leave the evaluation out.")


def check(handle: ModelHandle, section: EvaluationSection, progress: Progress = SILENT) -> None:
    """Before hours of work: an `EvaluationError` for a model that cannot be questioned, or for tasks that are not there or cannot be asked.

    Tasks that the model answered before were there, and are not loaded.
    """
    require_text(handle)
    chat.require(handle, section)
    missing = set(known(handle, section).missing)
    asked = [entry for entry in entries(section) if entry.name in missing and not entry.probes]
    if asked:
        from replaceme_core.evaluation import harness

        harness.check(asked, section, handle.tokenizer, progress)


def known(handle: ModelHandle, section: EvaluationSection) -> Scores:
    """What was scored before with these settings, also in another session; `missing` names the rest. Runs nothing."""
    kept = KeptScores(handle, section)
    return _scores(handle, section, {entry.name: kept.entry(entry) for entry in entries(section)})


@guarded
def evaluate(
    handle: ModelHandle, section: EvaluationSection, progress: Progress = SILENT, group: Group = ALONE, reuse: bool = True
) -> Scores:
    """Runs what is missing of the suite; in a group of processes each takes a share, and all get the scores.

    Raises `EvaluationError` with the way out, `Cancelled` when progress says so; what was finished until then is kept.
    """
    require_text(handle)
    chat.require(handle, section)
    return _Run(handle, section, group, reuse).all(progress)


class _Run:
    """The missing entries of one section, on one model."""

    def __init__(self, handle: ModelHandle, section: EvaluationSection, group: Group, reuse: bool) -> None:
        self._handle, self._section, self._group = handle, section, group
        self._reuse = reuse and group.leads
        self._kept = KeptScores(handle, section)

    def all(self, progress: Progress) -> Scores:
        asked = entries(self._section)
        known_ones = {entry.name: self._kept.entry(entry) if self._reuse else None for entry in asked}
        found = self._group.gather(known_ones)[0]
        missing = [entry for entry in asked if found[entry.name] is None]
        if missing:
            found = {**found, **self._ask(missing, progress)}
        return _scores(self._handle, self._section, found)

    def _ask(self, missing: list[Entry], progress: Progress) -> dict[str, EntryScores]:
        """Asks the entries; every task is kept as soon as it is finished."""
        from replaceme_core.evaluation import probe
        from replaceme_core.evaluation.harness import Harness, load

        progress.update(0, 0, "", "preparing the tasks")
        asked = [entry for entry in missing if not entry.probes]
        harness = Harness(self._handle, self._section, self._group) if asked else None
        loaded: dict[str, Any] = load(asked, self._section, progress) if asked else {}
        questions = Questions(progress, self._handle.name)
        for entry in missing:
            for name, task in loaded[entry.name]["tasks"].items() if entry.name in loaded else ((entry.name, None),):
                questions.add(name, len(task.eval_docs) if task is not None else entry.limit or probe.QUESTIONS, entry.limit)
        results = {}
        for entry in missing:
            if harness is None or entry.probes:
                results[entry.name] = self._probe(entry, questions)
            else:
                results[entry.name] = self._entry(harness, entry, loaded[entry.name], questions)
            if self._group.leads:
                self._kept.keep_entry(entry, results[entry.name])
        return results

    def _probe(self, entry: Entry, questions: Questions) -> EntryScores:
        """Our own generative probe, by the leading process."""
        from replaceme_core.evaluation import probe

        scores = None
        if self._group.leads:
            scores = probe.run(self._handle, entry.name, entry.limit, self._section.seed, questions.of(entry.name))
        questions.finish(entry.name)
        return EntryScores({entry.name: self._share(entry, scores)}, {}, {})

    def _entry(self, harness: "Harness", entry: Entry, loaded: Any, questions: Questions) -> EntryScores:
        """The tasks of one entry, by lm-eval, and the figures of its groups."""
        from replaceme_core.evaluation.harness import group_scores, parts_of

        tasks = {}
        for name, task in loaded["tasks"].items():
            scores = self._kept.task(entry, name) if self._reuse else None
            if not self._group.gather(scores is not None)[0]:
                scores = harness.ask(task, entry, questions.of(name))
            tasks[name] = self._share(entry, scores)
            questions.finish(name)
        groups = group_scores(loaded, tasks)
        return EntryScores(tasks, groups, parts_of(loaded, groups))

    def _share(self, entry: Entry, scores: TaskScores | None) -> TaskScores:
        """Kept by the leading process and given to all."""
        if scores is not None:
            self._kept.keep_task(entry, scores)
        shared = self._group.gather(scores)[0]
        assert shared is not None, "the leading process has the scores"
        return shared


def _scores(handle: ModelHandle, section: EvaluationSection, found: dict[str, EntryScores | None]) -> Scores:
    """All entries as one result."""
    done = [each for each in found.values() if each is not None]
    tasks = {name: scores for each in done for name, scores in each.tasks.items()}
    results = {name: metrics for each in done for name, metrics in each.groups.items()}
    results |= {name: scores.metrics for name, scores in tasks.items()}
    settings = {
        "tasks": section.tasks,
        "num_fewshot": section.num_fewshot,
        "limit": section.limit,
        "seed": section.seed,
        "batch_size": section.batch_size,
        **section.told,
        "chat_template_sha": chat.template_hash(handle, section),
        "few_shot": {name: scores.few_shot for name, scores in tasks.items()},
        "versions": {name: scores.version for name, scores in tasks.items()},
        "lm_eval": version("lm-eval"),
        "truncated_prompts": {name: scores.truncated for name, scores in tasks.items() if scores.truncated},
        "model_fingerprint": handle.fingerprint,
        "dtype": handle.dtype,
    }
    samples = {name: scores.samples for name, scores in tasks.items()}
    parts = {name: members for each in done for name, members in each.parts.items()}
    missing = [name for name, each in found.items() if each is None]
    scores = Scores(handle.name, results, None, settings, samples, tasks, parts, missing)
    return replace(scores, average=average_of(scores))
