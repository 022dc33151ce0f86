"""The README.md of an export: what was cut, how it was fitted, what it scored, how to load and repeat it."""

import importlib.metadata
from string import Template

import yaml

from replaceme_core.artifacts import Proof, Variant
from replaceme_core.figures import number
from replaceme_core.healing_report import HealingReport
from replaceme_core.models.architecture import modality
from replaceme_core.plans.methods import in_words
from replaceme_core.plans.plan import CalibrationSection

_CARD = Template("""---
library_name: transformers
tags: [replaceme, depth-pruning]
---
# $name

Pruned with ReplaceMe Studio: $span, by *$method* (the method of arXiv $arxiv). The shape of every remaining block is
unchanged; no parameter was added. $n_blocks blocks and $n_parameters parameters remain.$origin

```python
from transformers import $model, $processor
model = $model.from_pretrained("path/to/this/folder")
$reader = $processor.from_pretrained("path/to/this/folder")
```

$distances## The fit

![Bars: relative error of the blocks removed without a transform, and of the fit; the same figures are in the table](errors.png)

| | |
|---|---|
| calibration | $n_tokens tokens to fit, $n_heldout held out to choose by |
| relative error of the target, held-out (these tokens chose the fit) | $heldout_error (removed, no transform: $removal_error) |
| mean cosine to the intact stream, held-out | $heldout_cosine (removed, no transform: $removal_cosine) |
| ridge, condition number | $ridge, $condition |
$healing
## Checks

Two routes of the same mathematics, on random tokens; each passed within its tolerance.

| check | relative difference | allowed | what was compared |
|---|---|---|---|
$proofs
$scores
## Run config

Repeat with $repeat.$sources

```yaml
$recipe```

Versions: $versions.
""")

_RUN = "`python -m replaceme_core run --plan recipe.yaml --out RUN_DIR`"


def model_card(variant: Variant, proofs: tuple[Proof, ...], pictures: tuple[str, ...] = ()) -> str:
    """Markdown of the card; it shows those of `card_plots.card_plots` that are named in `pictures`, which lie beside it."""
    report, cut = variant.transform.report, variant.transform.cut
    rows = [f"| {p.name} | {number(p.error)} | {number(p.tolerance)} | {p.detail} |" for p in proofs]
    inputs = modality.of(variant.handle.family)
    with variant.handle.borrow() as model:
        model_class = inputs.model_class(model.config).__name__
    return _CARD.substitute(
        name=variant.name,
        model=model_class,
        processor=inputs.processor,
        reader="processor" if variant.handle.family.inputs == "images" else "tokenizer",
        span=cut.describe(variant.handle.n_blocks + len(cut)),
        method=in_words(variant.transform.method),
        arxiv=variant.recipe.get("baseline", {}).get("arxiv", "2505.02819"),
        repeat="`replaceme_core.baselines.prune`" if "baseline" in variant.recipe else _RUN,
        origin=f" The original was read from {variant.handle.origin}." if variant.handle.origin else "",
        n_blocks=variant.handle.n_blocks,
        n_parameters=f"{variant.handle.n_parameters:,}",
        n_tokens=f"{report.n_tokens:,}",
        n_heldout=f"{report.n_heldout_tokens:,}",
        heldout_error=f"{report.heldout_error:.4f}",
        removal_error=f"{report.removal_error:.4f}",
        heldout_cosine=f"{report.heldout_cosine:.4f}",
        removal_cosine=f"{report.removal_cosine:.4f}",
        ridge=number(report.ridge, 6),
        condition=number(report.condition),
        proofs="\n".join(rows),
        distances=_distances(variant) if "distances.png" in pictures else "",
        healing=_healing(variant.healing),
        scores=_scores(variant, "scores.png" in pictures),
        sources=_sources(variant),
        recipe=yaml.safe_dump(variant.recipe, sort_keys=False, allow_unicode=True),
        versions=", ".join(f"{package} {importlib.metadata.version(package)}" for package in ("torch", "transformers")),
    )


def _healing(report: HealingReport | None) -> str:
    """What was trained after the fit, and the loss curve; the figures of the fit are those of before."""
    if report is None:
        return ""
    what = "LoRA on every linear layer of the blocks, merged" if report.kind == "lora" else "the transform alone, merged"
    if not report.lowered:
        return f"\n## Healing (training)\n\n{report.notes[0]}\n"
    rows = [
        f"| {point.step} | {point.n_tokens:,} | {'' if point.train is None else f'{point.train:.4f}'} | {point.heldout:.4f} |"
        for point in report.points
    ]
    return "\n".join(
        [
            "\n## Healing (training)\n",
            f"After the fit above the model was trained on KL(original || pruned): {what}; {report.n_trained:,} numbers moved, none was added. "
            f"{report.steps} steps of AdamW at a rate of {number(report.rate)}, {report.n_tokens:,} tokens to train on, {report.n_heldout_tokens:,} held out, "
            f"{report.seconds:.0f} s. Held-out KL per token, in nats: {report.before:.4f} before, {report.after:.4f} after (step {report.best}, "
            "chosen on these held-out tokens).\n",
            *(["`transform.safetensors` is T as it was before the training.\n"] if report.kind == "lora" else []),
            *(f"{note}\n" for note in report.notes),
            "| step | tokens | KL, train | KL, held-out |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _sources(variant: Variant) -> str:
    """What is needed beside the recipe: a text that lies there, or one that does not and must be put there."""
    said = ""
    for source in CalibrationSection.model_validate(variant.recipe.get("calibration", {})).files:
        if source in variant.files:
            said += f" The calibration text `{source}` lies beside it."
        else:
            said += (
                f" It reads `{source}`, which is not part of this folder: have it there, or beside recipe.yaml, before you repeat the run."
            )
    return said


def _distances(variant: Variant) -> str:
    """The picture that the span was chosen on, and its figure in words."""
    matrix = variant.distances
    if matrix is None:
        return ""
    spans = variant.transform.cut.spans
    said = ", ".join(f"{matrix.at(span):.4f} at {span}" for span in spans)
    return (
        "## Where it was cut\n\n"
        f"![Heatmap of the distance of every span of the original model; outlined: {', '.join(map(str, spans))}](distances.png)\n\n"
        f"1 − cosine between what enters a span and what leaves it, over {matrix.n_tokens:,} tokens of {matrix.n_sequences:,} sequences: {said} "
        "(start:end).\n\n"
    )


def _scores(variant: Variant, picture: bool) -> str:
    """A table of the scores the variant carries: {model name: Scores.to_data()}; above it their picture. And what is missing of them."""
    missing = "\n## Not measured\n\n" + "".join(f"- {sentence}\n" for sentence in variant.missing) if variant.missing else ""
    if not variant.scores:
        return missing
    drawn = "![Bars: accuracy by task with one standard error; the same figures are in the table](scores.png)\n"
    rows = ["\n## Scores\n", *([drawn] if picture else []), "| task | metric | model | value | stderr | n |", "|---|---|---|---|---|---|"]
    for key, scores in variant.scores.items():
        model = scores.get("model", key)
        for task, metrics in scores["results"].items():
            for metric, score in metrics.items():
                stderr = "" if score["stderr"] is None else f"{score['stderr']:.4f}"
                rows.append(f"| {task} | {metric} | {model} | {score['value']:.4f} | {stderr} | {score['n']} |")
    return "\n".join(rows) + "\n" + missing
