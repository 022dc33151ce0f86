"""`distances`: how little each span of blocks changes the stream."""

import math
from typing import Any

import click

from replaceme_core.cli.options import JSON, calibrated, loaded, measured_by, show


@click.command()
@measured_by
@JSON
def distances(as_json: bool, **options: Any) -> None:
    """The cosine distance between every pair of boundaries.

    \b
    Examples:
      replaceme distances --model demo --calibration demo:stories --max-tokens 2048
    """
    plan, handle = loaded(options)
    _tokens, measured = calibrated(plan, handle, [])
    data = distances_data(handle, measured)
    show(data, as_json, lambda: "\n".join(" ".join("   .   " if v is None else f"{v:7.4f}" for v in row) for row in data["cosine_all"]))


def distances_data(handle: Any, measured: Any) -> dict[str, Any]:
    """Both matrices, [boundaries, boundaries], with null below the diagonal; the length of the residual stream at every boundary (mean and geometric
    mean over tokens, the longest token, the mean of first tokens); and what they were measured on."""
    found = measured.distances
    return {
        "n_blocks": handle.n_blocks,
        "n_tokens": measured.n_tokens,
        "n_sequences": found["all"].n_sequences,
        "cosine_all": _rows(found["all"].values),
        "cosine_last": _rows(found["last"].values),
        "norms": {
            "mean": measured.norms.tolist(),
            "typical": measured.lengths.typical.tolist(),
            "largest": measured.lengths.largest.tolist(),
            "first_token": measured.lengths.first.tolist(),
        },
    }


def _rows(values: Any) -> list[list[float | None]]:
    return [[None if math.isnan(v) else v for v in row] for row in values.tolist()]
