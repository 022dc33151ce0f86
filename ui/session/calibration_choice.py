"""What the calibration form describes: the section of the plan, the tokens if they are there already, and a text that a person gave."""

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from replaceme_core.calibration.calibration import CalibrationSet
    from replaceme_core.plans.plan import CalibrationSection

MOST_BYTES = 50 * 2**20
"""of a given text that an export takes along"""


@dataclass(frozen=True, eq=False)
class GivenText:
    """An upload or pasted text. It exists in this session only, until an export writes it beside the recipe."""

    name: str
    """what the pages call it"""
    source: str
    """what the recipe calls it: the name of the file beside it"""
    data: bytes
    texts: list[str]

    @property
    def fits(self) -> bool:
        """Whether an export takes it along."""
        return len(self.data) <= MOST_BYTES


def is_same(one: GivenText | None, other: GivenText | None) -> bool:
    """Whether two sets of one section were made from the same rows: everything that is pasted has one name."""
    return one is other or (one is not None and other is not None and one.data == other.data)


def uploaded(filename: str, data: bytes, texts: list[str]) -> GivenText:
    """The file as it came, so that the recipe reads exactly the same rows."""
    return GivenText(filename, f"calibration-{re.sub(r'[^A-Za-z0-9._-]+', '-', filename)}", data, texts)


def pasted(texts: list[str]) -> GivenText:
    rows = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    return GivenText("pasted text", "calibration-pasted.jsonl", rows.encode(), texts)


@dataclass(frozen=True, eq=False)
class Chosen:
    """A described calibration set; `prepared` is None where reading it belongs into the job."""

    section: "CalibrationSection"
    prepared: "CalibrationSet | None" = None
    given: GivenText | None = None


def set_name(section: "CalibrationSection", given: GivenText | None) -> str | None:
    """What the set is called on the pages; None: as its source is."""
    if given is None:
        return None
    return f"{given.name} + {section.second_share:.0%} {section.second}" if section.second else given.name
