"""The generative probe: the model writes, and code checks what it wrote. Greedy, by the generation that the Compare page shows."""

import random
from math import sqrt
from statistics import fmean, stdev

from replaceme_core.artifacts import ModelHandle
from replaceme_core.comparison.generation import stream
from replaceme_core.evaluation.probe_prompts import FAMILIES, VERSION, Family, Prompt, repetition
from replaceme_core.evaluation.scores import PROBE, Sample, Score, TaskScores, lower_is_better
from replaceme_core.progress import Progress

QUESTIONS = 50
"""prompts of each family where no limit says otherwise"""


def run(handle: ModelHandle, task: str, limit: int | None, seed: int, progress: Progress) -> TaskScores:
    """One family on one model. Prompts depend on family, seed and position alone, so that every model reads the same ones."""
    name = task.removeprefix(PROBE)
    family, rng = FAMILIES[name], random.Random(f"{name} {seed}")
    prompts = [family.make(rng) for _ in range(limit or QUESTIONS)]
    samples = []
    for number, prompt in enumerate(prompts):
        progress.update(number, len(prompts), "questions", task)
        samples.append(_sample(handle, family, number, prompt))
    progress.update(len(prompts), len(prompts), "questions", task)
    values = [sample.values[family.metric] for sample in samples]
    score = Score(fmean(values), stdev(values) / sqrt(len(values)) if len(values) > 1 else None, len(values))
    better = {family.metric: not lower_is_better(family.metric)}
    return TaskScores(task, {family.metric: score}, samples, VERSION, 0, len(values), 0, len(values), better)


def _sample(handle: ModelHandle, family: Family, number: int, prompt: Prompt) -> Sample:
    said = _write(handle, prompt, family.tokens)
    if family.metric == "repetition":
        ids = handle.tokenizer(said, add_special_tokens=False, verbose=False)["input_ids"] if said else []
        value, correct = repetition([str(i) for i in ids]), None
    else:
        value = family.grade(prompt, said)
        correct = value == 1.0
    return Sample(number, prompt.text, [], -1, -1, correct, {family.metric: value}, [], prompt.wanted, said, prompt.text)


def _write(handle: ModelHandle, prompt: Prompt, most: int) -> str:
    """What the model goes on with, up to where the answer ends. A line break at the very start is skipped."""
    said = ""
    for piece in stream(handle, prompt.text, most):
        said += piece
        if any(end in said.lstrip() for end in prompt.ends):
            break
    return said.lstrip("\n") if prompt.ends else said
