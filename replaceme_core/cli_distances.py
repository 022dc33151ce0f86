"""`distances`: how little each span of blocks changes the stream."""

import math
from typing import Any

import click

from replaceme_core.cli_options import JSON, calibrated, measured_by, show


@click.command()
@measured_by
@JSON
def distances(as_json: bool, **options: Any) -> None:
    """The cosine distance between every pair of boundaries."""
    _plan, handle, _tokens, measured = calibrated(options, [], ())
    found = measured.distances
    data = {
        "n_blocks": handle.n_blocks,
        "n_tokens": measured.n_tokens,
        "n_sequences": found["all"].n_sequences,
        "cosine_all": _rows(found["all"].values),
        "cosine_last": _rows(found["last"].values),
    }
    show(data, as_json, lambda: "\n".join(" ".join("   .   " if v is None else f"{v:7.4f}" for v in row) for row in data["cosine_all"]))


def _rows(values: Any) -> list[list[float | None]]:
    return [[None if math.isnan(v) else v for v in row] for row in values.tolist()]
