"""Calibration text streamed from hub data sets: by id, or by the short name of a preset. The only importer of `datasets`."""

import os
import re
from collections.abc import Iterator
from typing import Any

from replaceme_core.calibration.text_files import Row
from replaceme_core.errors import InputError, TextError, quoted
from replaceme_core.storage import shipped

_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


def presets() -> dict[str, dict[str, str]]:
    """Short name -> about, id, config, split, column."""
    return shipped.presets("calibration")


def stream_preset(name: str) -> Iterator[Row]:
    """The rows of a preset. Raises `InputError` for an unknown name."""
    if name not in presets():
        raise InputError(f"There is no calibration preset '{name}'; choose one of {', '.join(presets())}.")
    preset = presets()[name]
    return stream(preset["id"], preset.get("config"), preset.get("split", "train"), preset["column"])


def stream(dataset_id: str, config: str | None, split: str, column: str) -> Iterator[Row]:
    """The texts or chats of one column, fetched as they are used. Blank texts are left out."""
    from datasets import load_dataset

    try:
        rows = load_dataset(dataset_id, config, split=split, streaming=True, token=os.environ.get("HF_TOKEN"))
        for number, record in enumerate(rows, start=1):
            row = _row(f"{dataset_id}, row {number}", record, column)
            if not isinstance(row, str) or row.strip():
                yield row
    except TextError:
        raise
    except Exception as error:  # the library raises many kinds, none of them common to all
        raise InputError(f"The data set '{dataset_id}' {_said(error, config, split)}") from error


def _said(error: Exception, config: str | None, split: str) -> str:
    """What the library means, and the way out."""
    text = quoted(error)
    splits = re.search(r"Bad split: .*Available splits: \[(.*)\]", text)
    if splits:
        return f"has no split '{split}'; it has {splits[1].replace(chr(39), '')}."
    if "Config name is missing" in text or "BuilderConfig" in text:
        names = ", ".join(sorted(set(re.findall(r"'([^']+)'", str(error).partition("vailable")[2].partition("Example")[0]))))
        return (
            f"has no configuration '{config}'; it has {names}." if config else f"has several configurations; name one of {names} (config)."
        )
    if type(error).__name__ == "DatasetNotFoundError":
        if "gated" in text:
            return "is gated: accept its terms on its page of the hub, and set the environment variable HF_TOKEN."
        if "on the Hub" in text:
            return "was not found on the hub; check the spelling, and set the environment variable HF_TOKEN if it is private."
    first = text and str(error).strip().splitlines()[0]
    return (
        f"could not be streamed ({type(error).__name__}: {first}). Check the id, configuration and split, that the network is there, and HF_TOKEN if it is "
        "gated; demo sets and files work offline."
    )


def _row(where: str, record: dict[str, Any], column: str) -> Row:
    if column not in record:
        raise TextError(f"{where} has no column '{column}'; it has {', '.join(sorted(record))}.")
    value = record[column]
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(turn, dict) for turn in value):
        return [_turn(where, turn) for turn in value]
    raise TextError(f"{where}: column '{column}' holds {type(value).__name__}, neither text nor a chat.")


def _turn(where: str, turn: dict[str, Any]) -> dict[str, str]:
    """One message, from either of the two customary forms (role/content, from/value)."""
    role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
    if role not in _ROLES or not isinstance(content, str):
        raise TextError(f"{where}: a turn has the role '{role}'; known are {', '.join(_ROLES)}, each with a text.")
    return {"role": _ROLES[role], "content": content}
