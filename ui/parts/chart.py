"""A finished chart on the page, in the size of the room where the page is presented to one."""

from collections.abc import Callable
from typing import Any

import streamlit as st

from ui.look.vega import Rows
from ui.session.state import presenting

TEXT, HEIGHT = 1.45, 1.3
"""how much larger a chart's letters and its height are before a room"""
_LETTERS = ("fontSize", "labelFontSize", "titleFontSize")


def show(chart: Any, place: Any = st, *, alt: str, **options: Any) -> Any:
    """Draw a finished chart (Altair's, or a plain specification) at `place`, as wide as that is.

    `alt`: what a screen reader says of it, with the main figures.
    """
    spec = enlarged(chart if isinstance(chart, dict) else chart.to_dict(validate=False))
    data = {name: rows.packed if isinstance(rows, Rows) else rows for name, rows in spec.get("datasets", {}).items()}
    return place.vega_lite_chart({**spec, "datasets": data}, width="stretch", alt=alt, **options)


def enlarged(spec: dict[str, Any]) -> dict[str, Any]:
    """A finished chart in the size of the room: higher, with larger letters. Unchanged outside presenter mode."""
    if not presenting():
        return spec
    grown = _grown(spec)
    if isinstance(grown.get("height"), int | float):
        grown["height"] = round(grown["height"] * HEIGHT)
    return grown


def _grown(part: Any) -> Any:
    """Every size of letters in a chart, but nothing of its data."""
    if isinstance(part, dict):
        return {
            key: value if key in ("datasets", "data") else round(value * TEXT, 1) if key in _LETTERS else _grown(value)
            for key, value in part.items()
        }
    return [_grown(value) for value in part] if isinstance(part, list) else part


def clicked(event: Any, selection: str, *fields: str, kind: Callable[[Any], Any] = int) -> tuple[Any, ...] | None:
    """The fields of the first selected mark, each as a `kind`; None when nothing is selected."""
    try:
        first = event["selection"][selection][0]
        return tuple(kind(first[field]) for field in fields)
    except (KeyError, IndexError, TypeError, ValueError):
        return None
