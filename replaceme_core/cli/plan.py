"""`plan`: checks a plan and prints it in full; or prints the schema that editors complete and check plans with."""

from pathlib import Path

import click

from replaceme_core.cli.options import JSON, plan_of, show
from replaceme_core.storage.shipped import ASSETS


@click.command()
@click.argument("plan", required=False)
@click.option("--schema", is_flag=True, help="the JSON schema of plans, as in assets/plan.schema.json")
@JSON
def plan(plan: str | None, schema: bool, as_json: bool) -> None:
    """Checks PLAN, a YAML file, and prints it with all its defaults. All problems are told at once.

    'demo' is a small plan for the demo model: a start for one of your own.

    \b
    Examples:
      replaceme plan demo
      replaceme plan demo --json
      replaceme plan --schema
    """
    from replaceme_core.plans.plan import PruningPlan

    if schema == (plan is not None):
        raise click.UsageError("give either a plan, or --schema")
    if plan is None:
        click.echo(PruningPlan.schema_text("ReplaceMe Studio: a plan"), nl=False)
        return
    found = plan_of(plan)
    show(found.to_data(), as_json, lambda: found.to_yaml().rstrip())


def schema_file() -> Path:
    """Where the schema is kept for editors."""
    return ASSETS / "plan.schema.json"
