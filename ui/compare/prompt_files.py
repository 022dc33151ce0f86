"""A file of prompts, read strictly: a line each, or JSONL with a `prompt` (or `text`) a line."""

import json
import re

from replaceme_core.errors import InputError

MOST = 100
_LONGEST = 8000
"""characters of one prompt"""


def prompts_of(name: str, data: bytes) -> list[str]:
    """The prompts of an uploaded file. Raises `InputError` with the line that cannot be used."""
    try:
        lines = re.split(r"\r\n?|\n", data.decode("utf-8-sig"))  # not at the line breaks that JSON lets stand in a text (U+2028)
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from error
    read = _of_json if name.lower().endswith(".jsonl") else lambda line, _where: line.strip()
    found = [read(line, f"{name}, line {number}") for number, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise InputError(f"{name} holds no prompts: every line is empty.")
    if len(found) > MOST:
        raise InputError(f"{name} holds {len(found)} prompts; at most {MOST} are generated at once. Leave some out.")
    long = next((number for number, prompt in enumerate(found, start=1) if len(prompt) > _LONGEST), None)
    if long is not None:
        raise InputError(f"{name}: prompt {long} has {len(found[long - 1]):,} characters; at most {_LONGEST:,} are read.")
    return found


def _of_json(line: str, where: str) -> str:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{where} is not JSON ({error.msg}).") from error
    prompt = row.get("prompt", row.get("text")) if isinstance(row, dict) else None
    if not isinstance(prompt, str) or not prompt.strip():
        raise InputError(f'{where} has no prompt: it must look like {{"prompt": "Once upon a time"}}.')
    return prompt
