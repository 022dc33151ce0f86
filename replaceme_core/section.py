"""What every section of a plan is: frozen, without unknown keys, with all its problems in one error, each a sentence."""

import difflib
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from replaceme_core.errors import PlanError


class Section(BaseModel):
    """A part of a plan, or the plan."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def parse(cls, data: Any, origin: str = "plan") -> Self:
        """A plan, or one section, from plain data; `origin` names it in error messages."""
        if not isinstance(data, dict):
            raise PlanError(f"{origin}: a plan is a mapping of sections ({', '.join(cls.model_fields)}), not {type(data).__name__}")
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            problems = "\n".join(f"  - {_sentence(item, cls, origin)}" for item in error.errors())
            raise PlanError(f"{origin} has {error.error_count()} problem(s):\n{problems}") from None


def _sentence(item: Any, section: Any, origin: str) -> str:
    """One pydantic error as a sentence; an unknown key gets the nearest valid name."""
    where = ".".join(str(part) for part in item["loc"]) or origin
    if item["type"] != "extra_forbidden":
        return f"{where}: {item['msg'].removeprefix('Value error, ')}"
    for part in item["loc"][:-1]:
        if isinstance(part, str):  # a number is a place in a list of sections
            section = _section_of(section.model_fields[part].annotation)
    near = difflib.get_close_matches(str(item["loc"][-1]), list(section.model_fields), n=1)
    return f"{where}: unknown key" + (f"; did you mean '{near[0]}'?" if near else f"; valid keys: {', '.join(section.model_fields)}")


def _section_of(annotation: Any) -> Any:
    """The section class inside `Section`, `Section | None` or `list[Section]`."""
    options = getattr(annotation, "__args__", (annotation,))
    return next(option for option in options if option is not type(None))
