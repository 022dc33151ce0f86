"""`fit`: one transform, merged and exported."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import yaml

from replaceme_core.cli.bar import Bar
from replaceme_core.cli.options import JSON, calibrated, loaded, measured_by, show
from replaceme_core.errors import InputError
from replaceme_core.span import Cut


@click.command()
@measured_by
@click.option("--span", required=True, help="START:END, removes the blocks START to END-1; several: 2:4,6:8")
@click.option(
    "--method",
    show_default="as in a plan: a refit with exchanged neurons; weighted least squares where nothing can be refitted or a key of T is set",
)
@click.option("--ridge", type=click.FloatRange(0), help="relative to the mean eigenvalue; default: least held-out error")
@click.option(
    "--set", "settings", multiple=True, help="KEY=VALUE of the plan's method section, e.g. --set structure=low_rank --set rank=16"
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="folder of the pruned model")
@click.option(
    "--transform-only", is_flag=True, help="write the transform with its run config and report, no model; `export` applies it later"
)
@JSON
def fit(
    span: str,
    method: str | None,
    ridge: float | None,
    settings: tuple[str, ...],
    out: Path,
    transform_only: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Fits what stands in for a span, merges it and exports the pruned model.

    \b
    Examples:
      replaceme fit --model demo --span 6:9 --max-tokens 2048 --out exports/first
      replaceme fit --model demo --span 6:9 --max-tokens 2048 --method refit --set attention=false --out exports/refit
    """
    from replaceme_core import pipeline
    from replaceme_core.export import export
    from replaceme_core.feasible import require_fits, runs_the_model
    from replaceme_core.plans.methods import in_words
    from replaceme_core.plans.plan import MethodSection, PruningPlan
    from replaceme_core.storage.folders import require_new
    from replaceme_core.surgery import patch, surgery

    cut = Cut.parse(span)
    named = {key: value for key, value in {"name": method, "ridge": ridge}.items() if value is not None} | _settings(settings)
    patch.require_merged(MethodSection.parse(named, "the method"))
    require_new(out)
    plan, handle = loaded(options, named)
    section = plan.method
    require_fits(handle, section, cut=cut, n_spans=len(cut.spans))
    tokens, measured = calibrated(plan, handle, list(cut.spans), passes=not runs_the_model(cut, section))
    transform = pipeline.fit(handle, tokens, measured, cut, section, progress=Bar())
    recipe = plan.to_data() | {"span": cut.plain(), "method": section.model_dump(exclude_none=True)}
    name = pipeline.variant_name(handle, transform.method, cut)
    proofs: tuple[Any, ...] = ()
    if transform_only:
        export.export_transform(handle, transform, name, recipe, out)
    elif handle.checkpoint is None:
        proofs = export.export(surgery.prune(handle, transform, name, recipe), out).proofs
    else:
        proofs = export.export_merged(handle, transform, name, PruningPlan.parse(recipe), out).proofs
    report = transform.report
    data: dict[str, Any] = {"span": [cut.spans[0].start, cut.spans[0].end], "cut": str(cut), "method": transform.method, **asdict(report)}
    data |= {"proofs": {p.name: asdict(p) for p in proofs}, "out": str(out)}
    show(
        data,
        as_json,
        lambda: (
            f"{cut.describe(handle.n_blocks)}; {in_words(transform.method)}\nheld-out error {report.heldout_error:.4f} (removed, no transform: {report.removal_error:.4f}), "
            f"{report.n_tokens:,} tokens to fit, {report.n_heldout_tokens:,} held out\n"
            + "\n".join((*report.notes, *report.remarks, f"written to {out}"))
        ),
    )


def _settings(texts: tuple[str, ...]) -> dict[str, Any]:
    """KEY=VALUE, the values as YAML reads them."""
    found = {}
    for text in texts:
        key, _, value = text.partition("=")
        try:
            found[key] = yaml.safe_load(value)
        except Exception as error:  # as in section.read_yaml
            raise InputError(f"--set {text}: the value is no YAML; write KEY=VALUE, for example rank=16.") from error
    return found
