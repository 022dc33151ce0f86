"""Plain specifications of charts, checked against the schema of Vega-Lite."""

from typing import Any

import altair


def valid(spec: dict[str, Any]) -> dict[str, Any]:
    """The specification itself, if it is valid. Raises altair's error if it is not."""
    altair.Chart.from_dict(spec)
    return spec
