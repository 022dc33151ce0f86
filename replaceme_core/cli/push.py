"""`push`: puts an export or a run on the hub, private unless said otherwise."""

from pathlib import Path

import click

from replaceme_core.cli.bar import Bar
from replaceme_core.cli.options import JSON, show


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("name")
@click.option("--public", is_flag=True, help="everybody may read it; default: only you, and whom you let in on its page")
@click.option("--dry-run", "dry", is_flag=True, help="only say which files would go and what the card would say; no login is needed")
@JSON
def push(folder: Path, name: str, public: bool, dry: bool, as_json: bool) -> None:
    """Puts an export, or the model of a run, on the Hugging Face hub as NAME (OWNER/NAME).

    The login is the environment variable HF_TOKEN or the one of `hf auth login`. A push that was stopped goes on when it is repeated.

    \b
    Examples:
      replaceme fit --model demo --span 6:9 --max-tokens 2048 --out exports/first
      replaceme push exports/first me/first --dry-run

    Without --dry-run it is sent.
    """
    import yaml

    from replaceme_core.export import push as stage

    parcel = stage.packed(folder, name, private=not public)
    data = stage.plain(parcel)
    if dry:
        sizes = "\n".join(f"{size:>14,}  {path}" for path, size in data["files"].items())
        said = yaml.safe_dump(data["card"], sort_keys=False, allow_unicode=True)
        show(
            data,
            as_json,
            lambda: "\n".join([f"{sizes}\n", said, *parcel.notes, f"nothing was sent; it would be {'public' if public else 'private'}"]),
        )
        return
    for note in parcel.notes:
        click.echo(note, err=True)
    bar = Bar()
    done = stage.push(parcel, bar)
    bar.close()
    show(
        data | {"url": done.url, "commit": done.commit}, as_json, lambda: f"{done.n_files} files, {done.n_bytes / 1e6:,.1f} MB: {done.url}"
    )
