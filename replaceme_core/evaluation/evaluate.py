"""Benchmarks on a model in memory: lm-eval's tasks and our generative probe, task by task, with every finished task kept.

`suites` says what the section's `tasks` stand for, `harness` and `probe` ask, `store` keeps. What is known is not asked again, so
that a run that was stopped or cancelled goes on where it was.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from replaceme_core.artifacts import ModelHandle
from replaceme_core.distribution import ALONE, Group
from replaceme_core.errors import Cancelled, EvaluationError, ReplaceMeError
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
    (found,) = require_all(_Run([handle], section, group, reuse).all(progress))
    return found


@guarded
def evaluate_all(
    handles: Sequence[ModelHandle],
    section: EvaluationSection,
    progress: Progress = SILENT,
    group: Group = ALONE,
    reuse: bool = True,
    finished: Callable[[int], None] = lambda _number: None,
) -> list[Scores | ReplaceMeError]:
    """`evaluate` of several models, a task at a time: what they share (text, blocks) is run once for all of them.

    A model that fails gives its error in the place of its scores, and the others go on; in a group of processes models take turns, and
    the first failure ends it for those behind. `finished(number)`: an entry of one model is done and kept. Raises `Cancelled`.
    """
    if group.size == 1:
        return _Run(handles, section, group, reuse, finished).all(progress)
    found: list[Scores | ReplaceMeError] = []
    for handle in handles:
        if any(isinstance(each, ReplaceMeError) for each in found):
            found.append(EvaluationError("they were not begun after the first failure."))
            continue
        try:
            found += _Run([handle], section, group, reuse).all(progress)
        except Cancelled:
            raise
        except ReplaceMeError as error:
            found.append(error)
    return found


def require_all(found: Sequence[Scores | ReplaceMeError]) -> list[Scores]:
    """The scores of every model; or the first error among them is raised."""
    for each in found:
        if isinstance(each, ReplaceMeError):
            raise each
    return [each for each in found if isinstance(each, Scores)]


class _Run:
    """The missing entries of one section, on some models."""

    def __init__(
        self,
        handles: Sequence[ModelHandle],
        section: EvaluationSection,
        group: Group,
        reuse: bool,
        finished: Callable[[int], None] = lambda _number: None,
    ) -> None:
        for handle in handles:
            require_text(handle)
            chat.require(handle, section)
        self._handles, self._section, self._group, self._finished = handles, section, group, finished
        self._reuse = reuse and group.leads
        self._kept = [KeptScores(handle, section) for handle in handles]
        self._failed: dict[int, ReplaceMeError] = {}

    def all(self, progress: Progress) -> list[Scores | ReplaceMeError]:
        asked = entries(self._section)
        known_ones = [{entry.name: kept.entry(entry) if self._reuse else None for entry in asked} for kept in self._kept]
        found = self._group.gather(known_ones)[0]
        missing = [entry for entry in asked if any(own[entry.name] is None for own in found)]
        try:
            if missing:
                guarded(self._ask)(missing, found, progress)
        except Cancelled:
            raise
        except ReplaceMeError as error:
            if self._group.size > 1:  # the others wait for this process
                raise
            unfinished = [number for number, own in enumerate(found) if None in own.values()]
            self._failed = dict.fromkeys(unfinished, error) | self._failed
        return [
            self._failed.get(number) or _scores(handle, self._section, own)
            for number, (handle, own) in enumerate(zip(self._handles, found, strict=True))
        ]

    def _ask(self, missing: list[Entry], found: list[dict[str, EntryScores | None]], progress: Progress) -> None:
        """Asks the entries, and puts them to what is found; every task is kept as soon as it is finished."""
        from replaceme_core.evaluation.harness import Harness, load

        progress.update(0, 0, "", "preparing the tasks")
        asked = [entry for entry in missing if not entry.probes]
        loaded: dict[str, Any] = load(asked, self._section, progress) if asked else {}
        harness = Harness(self._handles, self._section, self._group) if asked else None
        lacking = {entry.name: [number for number, own in enumerate(found) if own[entry.name] is None] for entry in missing}
        questions = self._questions(missing, lacking, loaded, progress)
        for entry in missing:
            if harness is None or entry.probes:
                done = self._probe(entry, lacking[entry.name], questions)
            else:
                done = self._entry(harness, entry, lacking[entry.name], loaded[entry.name], questions)
            for number, scores in done.items():
                found[number][entry.name] = scores
                if self._group.leads:
                    self._kept[number].keep_entry(entry, scores)
                self._finished(number)

    def _questions(self, missing: list[Entry], lacking: dict[str, list[int]], loaded: dict[str, Any], progress: Progress) -> Questions:
        from replaceme_core.evaluation import probe

        questions = Questions(progress, [handle.name for handle in self._handles])
        for entry in missing:
            for name, task in loaded[entry.name]["tasks"].items() if entry.name in loaded else ((entry.name, None),):
                n_all = len(task.eval_docs) if task is not None else entry.limit or probe.QUESTIONS
                questions.add(name, n_all, entry.limit, lacking[entry.name])
        return questions

    def _probe(self, entry: Entry, numbers: list[int], questions: Questions) -> dict[int, EntryScores]:
        """Our own generative probe, by the leading process."""
        from replaceme_core.evaluation import probe

        def ask(number: int) -> TaskScores | None:
            seed, progress = self._section.seed, questions.of(entry.name, number)
            return probe.run(self._handles[number], entry.name, entry.limit, seed, progress) if self._group.leads else None

        found = self._each(entry, entry.name, numbers, questions, ask)
        return {number: EntryScores({entry.name: scores}, {}, {}) for number, scores in found.items()}

    def _entry(self, harness: "Harness", entry: Entry, numbers: list[int], loaded: Any, questions: Questions) -> dict[int, EntryScores]:
        """The tasks of one entry, by lm-eval, and the figures of its groups; of the models that answered them all."""
        from replaceme_core.evaluation.harness import group_scores, parts_of

        tasks: dict[int, dict[str, TaskScores]] = {number: {} for number in numbers}
        for name, task in loaded["tasks"].items():
            kept = {number: self._kept[number].task(entry, name) if self._reuse else None for number in numbers}
            there = self._group.gather({number: scores is not None for number, scores in kept.items()})[0]
            harness.begin({n: questions.of(name, n) for n in numbers if n not in self._failed and not there[n]})

            def ask(number: int, task: Any = task, kept: Any = kept, there: Any = there) -> TaskScores | None:
                answered: TaskScores | None = kept[number] if there[number] else harness.ask(task, entry, number)
                return answered

            for number, scores in self._each(entry, name, numbers, questions, ask).items():
                tasks[number][name] = scores
        groups = {number: group_scores(loaded, own) for number, own in tasks.items() if number not in self._failed}
        return {number: EntryScores(tasks[number], own, parts_of(loaded, own)) for number, own in groups.items()}

    def _each(
        self, entry: Entry, task: str, numbers: list[int], questions: Questions, ask: Callable[[int], TaskScores | None]
    ) -> dict[int, TaskScores]:
        """One task on the models, one after the other; an error ends what is asked of that model, and is kept."""
        found = {}
        for number in numbers:
            try:
                if number not in self._failed:
                    found[number] = self._share(entry, number, guarded(ask)(number))
            except Cancelled:
                raise
            except ReplaceMeError as error:
                if self._group.size > 1:
                    raise
                self._failed[number] = error
            questions.finish(task, number)
        return found

    def _share(self, entry: Entry, number: int, scores: TaskScores | None) -> TaskScores:
        """Kept by the leading process and given to all."""
        if scores is not None:
            self._kept[number].keep_task(entry, scores)
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
        "exact": section.exact,
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
