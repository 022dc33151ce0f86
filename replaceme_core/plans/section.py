"""What every section of a plan is: frozen, without unknown keys, with all its problems in one error, each a sentence."""

import copy
import difflib
import json
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from replaceme_core.errors import PlanError

_ROUNDS = 8
"""of validation at most: each one leaves out what the one before complained of"""


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
            found = _problems(cls, data, error, origin)
            problems = "\n".join(f"  - {sentence}" for sentence in found)
            raise PlanError(f"{origin} has {len(found)} problem(s):\n{problems}") from None

    @classmethod
    def schema_text(cls, title: str) -> str:
        """The JSON schema, for editors that complete and check YAML."""
        schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | cls.model_json_schema() | {"title": title}
        return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def read_yaml(path: str | Path, what: str) -> Any:
    """Plain data of a YAML file, or a `PlanError` for whatever stands in the way; `what` names it, for example 'plan'."""
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except Exception as error:  # PyYAML lets pass what its parts raise: ValueError for a date, IndexError for an empty number
        raise PlanError(f"{path} cannot be read as a YAML {what}: {error or type(error).__name__}") from error


def _problems(section: Any, data: dict[Any, Any], error: ValidationError, origin: str) -> list[str]:
    """Every problem as a sentence. Contradictions between keys show only once the keys are valid by themselves, so what is
    wrong is left out, and the rest is validated again."""
    found: dict[str, None] = {}
    seen: set[tuple[Any, ...]] = set()
    data = copy.deepcopy(data)
    for _ in range(_ROUNDS):
        fresh = [item for item in error.errors() if item["loc"] not in seen]
        found |= dict.fromkeys(_sentence(item, section, origin) for item in fresh)
        seen |= {item["loc"] for item in fresh}
        if not all(_leave_out(data, item) for item in fresh) or not fresh:
            break
        try:
            section.model_validate(data)
        except ValidationError as again:
            error = again
        else:
            break
    return list(found)


def _leave_out(data: Any, item: Any) -> bool:
    """Takes the value that a problem is about out of the data, as far down as its place can be followed; False: there is none."""
    place, last = data, None
    for part in item["loc"]:
        holds = part in place if isinstance(place, dict) else isinstance(place, list) and type(part) is int and part < len(place)
        if not holds:
            break
        last, place = (place, part), place[part]
    if item["type"] == "missing":
        if not isinstance(place, dict):
            return False
        place[item["loc"][-1]] = "missing"  # stands in, so that the rest can be judged
    elif last is not None:
        del last[0][last[1]]
    return item["type"] == "missing" or last is not None


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
