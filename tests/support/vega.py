"""Plain specifications of charts, checked against the schema of Vega-Lite that altair brings along."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import altair
from jsonschema import Draft7Validator
from jsonschema.exceptions import best_match


def valid(spec: dict[str, Any]) -> dict[str, Any]:
    """The specification itself, if it is valid. Raises jsonschema's error if it is not. The rows, of any form, are left out: they take seconds."""
    error = best_match(_schema().iter_errors(spec | {"datasets": {}}))
    if error is not None:
        raise error
    return spec


@cache
def _schema() -> Draft7Validator:
    """In one piece: altair's own check of a chart goes through it once for every part of the chart, and takes six times as long."""
    place = next(Path(altair.__file__).parent.rglob("vega-lite-schema.json"))
    return Draft7Validator(json.loads(place.read_text(encoding="utf-8")))
