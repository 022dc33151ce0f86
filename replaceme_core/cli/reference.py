"""The command names of the public ReplaceMe library, with its YAML: `run_replaceme --config FILE`, and the others.

Each of them reads `reference_config.ReferenceConfig` and does what the name says with this library's stages. The model is
loaded once. What is written loads with plain transformers, and its recipe.yaml repeats it with `replaceme run`.
"""

import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from replaceme_core.cli.bar import Bar
from replaceme_core.cli.distances import distances_data
from replaceme_core.cli.options import JSON, show
from replaceme_core.cli.runs import default_folder
from replaceme_core.cli.sentences import Sentences
from replaceme_core.errors import PlanError
from replaceme_core.storage.folders import require_new, write_json

_DISTANCES = "distances.json"


def _command(name: str, about: str, method: str | None = None) -> Callable[[Callable[[Any, Bar], Any]], click.Command]:
    """A command with --config and --json whose body takes the configuration and returns data."""

    def made(body: Callable[[Any, Bar], Any]) -> click.Command:
        @click.command(name, cls=Sentences, help=about, context_settings={"help_option_names": ["-h", "--help"]})
        @click.option("--config", required=True, type=click.Path(path_type=Path), help="YAML with the keys of the public library")
        @JSON
        def command(config: Path, as_json: bool) -> None:
            from replaceme_core.cli.reference_config import ReferenceConfig

            read = ReferenceConfig.read(config, method)
            for sentence in read.told():
                click.echo(sentence, err=True)
            if read.token is not None:
                os.environ["HF_TOKEN"] = read.token
            bar = Bar()
            data = body(read, bar)
            bar.close()
            show(data, as_json, lambda: "\n".join(f"{key:14} {value}" for key, value in data.items() if not isinstance(value, dict | list)))

        return command

    return made


@_command("run_replaceme", "Chooses the blocks by distance, fits, merges and writes the pruned model; scores it if the file names tasks.")
def run_replaceme(config: Any, bar: Bar) -> Any:
    return _prune(config, config.method_section, bar)


@_command("run_uidl", "Removes the blocks whose two ends are nearest (last token), without a transform: UIDL before its healing.")
def run_uidl(config: Any, bar: Bar) -> Any:
    return _prune(config, lambda _cut: {"name": "drop"}, bar)


@_command("get_lt_with_lstsq", "Fits the transform in closed form (method: lstsq) and merges it.")
def get_lt_with_lstsq(config: Any, bar: Bar) -> Any:
    return _prune(_of_method(config, "lstsq"), config.method_section, bar)


@_command(
    "get_lt_with_solvers", "Fits the transform by a gradient method (method: cosine, with solver and loss) and merges it.", method="cosine"
)
def get_lt_with_solvers(config: Any, bar: Bar) -> Any:
    return _prune(_of_method(config, "cosine"), config.method_section, bar)


@_command("get_distance_analysis", "The distance between every pair of boundaries, as JSON in distances_path, and the blocks it names.")
def get_distance_analysis(config: Any, bar: Bar) -> Any:
    from replaceme_core import pipeline
    from replaceme_core.measurement import measure
    from replaceme_core.models import loading

    plan = config.plan()
    handle = loading.load(plan.model, bar)
    measured = measure.measure(
        handle, pipeline.prepare_for(handle, plan.calibration, bar), plan.calibration.budget_bytes, [], bar, weightings=()
    )
    path = config.distances_file or Path(_DISTANCES)
    _save(path, distances_data(handle, measured))
    named = {} if config.layers_to_skip is None else {"spans": str(config.choose(measured.distances["last"]))}
    return {"distances_path": str(path), "n_blocks": handle.n_blocks, "n_tokens": measured.n_tokens} | named


@_command("evaluate_model", "Benchmark scores of model_path on the tasks of the file.")
def evaluate_model(config: Any, bar: Bar) -> Any:
    from replaceme_core.evaluation import evaluate
    from replaceme_core.models import loading

    plan = config.plan()
    if plan.evaluation is None:
        raise PlanError("tasks is missing: which benchmarks are to be run? 'demo' works offline.")
    scores = evaluate.evaluate(loading.load(plan.model, bar), plan.evaluation, bar)
    return scores.to_data() | _flat(scores)


def _of_method(config: Any, method: str) -> Any:
    if config.method != method:
        raise PlanError(f"method is {config.method}, and this command is for method: {method}; use run_replaceme, which reads it.")
    return config


def _prune(config: Any, method_of: Callable[[Any], dict[str, Any]], bar: Bar) -> Any:
    """Load, measure, choose, fit, and write the model (with its scores) or the transform alone."""
    from replaceme_core import pipeline
    from replaceme_core.evaluation import evaluate
    from replaceme_core.export import export
    from replaceme_core.models import loading
    from replaceme_core.plans.plan import MethodSection, PruningPlan
    from replaceme_core.surgery import checkpoint, surgery

    plan = config.plan()
    out = Path(config.save_path) if config.save_path else default_folder(f"{Path(config.model_path).name}-{method_of(None)['name']}")
    require_new(out)
    handle = loading.load(plan.model, bar)
    checkpoint.require_rewritable(handle)
    tokens = pipeline.prepare_for(handle, plan.calibration, bar)
    cut, measured, section = _measured(config, plan, handle, tokens, lambda cut: MethodSection.parse(method_of(cut), "the method"), bar)
    transform = pipeline.fit(handle, tokens, measured, cut, section, plan.calibration.budget_bytes, bar)
    recipe = PruningPlan.parse(config.plan(cut).to_data() | {"method": section.model_dump(exclude_none=True)}).to_data()
    name = pipeline.variant_name(handle, transform.method, cut)
    data = {"out": str(out), "span": str(cut), "removes": cut.describe(handle.n_blocks), "method": transform.method}
    data |= {"heldout_error": transform.report.heldout_error, "report": asdict(transform.report)}
    if config.transform_alone:
        export.export_transform(handle, transform, name, recipe, out)
        return data
    if handle.checkpoint is None:
        variant = surgery.prune(handle, transform, name, recipe)
    else:
        variant = export.export_merged(handle, transform, name, PruningPlan.parse(recipe), out, bar)
    if plan.evaluation is not None:
        scores = evaluate.require_all(evaluate.evaluate_all((handle, variant.handle), plan.evaluation, bar))
        variant = replace(variant, scores={score.model: score.to_data() for score in scores})
        data |= {"scores": [score.to_data() for score in scores], **_flat(scores[1])}
    if handle.checkpoint is None:
        export.export(variant, out, progress=bar)
    else:
        export.save_record(variant, out, variant.proofs)
    return data


def _measured(config: Any, plan: Any, handle: Any, tokens: Any, section_of: Callable[[Any], Any], bar: Bar) -> tuple[Any, Any, Any]:
    """(cut, measurement or None, method section): one pass where the budget holds every span of that length, else two."""
    from replaceme_core import pipeline
    from replaceme_core.measurement.budget import choices, weightings_of
    from replaceme_core.measurement.measure import measure

    budget, measured = plan.calibration.budget_bytes, None
    path = config.distances_file
    if path is not None and path.is_file():
        distances = _read(path, handle.n_blocks)
    else:
        weightings = weightings_of(section_of(None))
        fits = any(c.keep == config.layers_to_skip and c.fits(budget) for c in choices(handle.n_blocks, handle.width, weightings))
        keep = {"keep": config.layers_to_skip} if fits else {}
        measured = measure(handle, tokens, budget, None if fits else [], bar, weightings=weightings, **keep)
        distances = measured.distances["last"]
        if path is not None:
            _save(path, distances_data(handle, measured))
    cut = config.choose(distances)
    section = section_of(cut)
    if pipeline.runs_the_model(cut, section):
        return cut, None, section
    if measured is None or cut.spans[0] not in measured.spans():
        measured = measure(handle, tokens, budget, list(cut.spans), bar, weightings=weightings_of(section))
    return cut, measured, section


def _save(path: Path, data: dict[str, Any]) -> None:
    """Whole or not at all."""
    from replaceme_core.storage.folders import explain

    partly = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(partly, data)
        partly.replace(path)
    except OSError as error:
        partly.unlink(missing_ok=True)
        raise explain(error, path) from error


def _read(path: Path, n_blocks: int) -> Any:
    """The last token's distances of a file that was saved before, for a model of `n_blocks`."""
    import json
    import math

    import torch

    from replaceme_core.artifacts import DistanceMatrix

    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        rows = [[math.nan if value is None else float(value) for value in row] for row in data["cosine_last"]]
        values = torch.tensor(rows, dtype=torch.float64)
        if values.shape != (n_blocks + 1, n_blocks + 1):
            raise ValueError(f"it is of a model of {len(rows) - 1} blocks, this one has {n_blocks}")
        if not values[tuple(torch.triu_indices(*values.shape))].isfinite().all():
            raise ValueError("a distance on or above the diagonal is missing")
        return DistanceMatrix(values, "last", int(data["n_tokens"]), int(data["n_sequences"]), torch.full_like(values, math.nan))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise PlanError(
            f"distances_path '{path}' holds no distances for this model ({error or type(error).__name__}); pickles are never read. "
            "Remove it, or name another file, and it is measured anew."
        ) from error


def _flat(scores: Any) -> dict[str, Any]:
    """Figures by task, for people."""
    return {f"{task}.{metric}": score.value for task, metrics in scores.results.items() for metric, score in metrics.items()}
