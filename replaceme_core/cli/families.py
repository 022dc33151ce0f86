"""`families`: which model families can be pruned, and how the transform merges."""

import click

from replaceme_core.cli.options import JSON, show


@click.command()
@click.option("--markdown", is_flag=True, help="the table of the documentation")
@JSON
def families(markdown: bool, as_json: bool) -> None:
    """Which model families can be pruned, and how the transform merges.

    \b
    Examples:
      replaceme families
      replaceme families --json
    """
    from replaceme_core.models.architecture.families import FAMILIES
    from replaceme_core.models.architecture.family_table import markdown_table

    if markdown:
        click.echo(markdown_table())
        return
    rows = [{"family": t, "writer": f.writer, "merge": f.merge, "reason": f.reason} for f in FAMILIES for t in f.model_types]
    show(rows, as_json, lambda: "\n".join(f"{r['family']:14} {r['merge']:8} {r['writer']:24} {r['reason']}" for r in rows))
