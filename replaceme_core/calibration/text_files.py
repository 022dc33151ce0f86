"""Strict readers of calibration text: txt, jsonl, csv, parquet. Every error names the file, the line and the way out."""

import csv
import io
import json
import re
from typing import Any

from replaceme_core.errors import TextError
from replaceme_core.models.chat_template import has_template

Row = str | list[dict[str, str]]
"""a text, or the messages of a chat"""


class RenderedChat(str):
    """A text that holds its special tokens already: tokenising must add none."""

    __slots__ = ()


def token_ids(text: str, tokenizer: Any) -> list[int]:
    """The tokens of a text with its special tokens once.

    A chat that the template rendered holds them, so none are added; a text that was rendered before it came here begins with the
    tokenizer's own first token in letters (and may end with its last), and does not get a second one, also where blanks stand around it.
    """
    first, last = (str(getattr(tokenizer, f"{name}_token", None) or "") for name in ("bos", "eos"))
    own = not isinstance(text, RenderedChat)
    text = text.lstrip() if own and first and text.lstrip().startswith(first) else text
    ids: list[int] = tokenizer(text, verbose=False, add_special_tokens=own)["input_ids"]
    if own and last and text != text.rstrip() and text.rstrip().endswith(last) and ids[-1:] == [tokenizer.eos_token_id]:
        text = text.rstrip()  # the tokenizer put its own last token behind the blanks
        ids = tokenizer(text, verbose=False)["input_ids"]
    if first and text.startswith(first) and ids[:2] == [tokenizer.bos_token_id] * 2:
        ids = ids[1:]
    if last and text.endswith(last) and ids[-2:] == [tokenizer.eos_token_id] * 2:
        ids = ids[:-1]
    return ids


def parse(filename: str, data: bytes, column: str) -> list[Row]:
    """The rows of a file, by its ending."""
    if not data.strip():
        raise TextError(f"{filename} is empty; give a file with at least two texts.")
    ending = filename.rsplit(".", 1)[-1].lower()
    if ending == "parquet":
        rows: list[Row] = _parquet(filename, data, column)
    elif ending in ("txt", "jsonl", "csv"):
        text = _decode(filename, data)
        rows = {"txt": _lines, "jsonl": _jsonl, "csv": _csv}[ending](filename, text, column)
    else:
        raise TextError(f"{filename}: the ending '.{ending}' is not known; use .txt (one text per paragraph), .jsonl, .csv or .parquet.")
    if not rows:
        raise TextError(f"{filename} holds no text; give a file with at least two texts.")
    return rows


def render(filename: str, rows: list[Row], tokenizer: Any) -> list[str]:
    """Texts from rows; chats go through the tokenizer's chat template."""
    texts: list[str] = []
    for number, row in enumerate(rows, start=1):
        if isinstance(row, str):
            texts.append(row)
            continue
        if not has_template(tokenizer):
            raise TextError(
                f"{filename}, row {number} is a chat ('messages'), but this model's tokenizer has no chat template; give plain 'text'."
            )
        try:
            texts.append(RenderedChat(tokenizer.apply_chat_template(row, tokenize=False)))
        except Exception as error:  # templates raise what they like
            raise TextError(f"{filename}, row {number}: the chat template refuses this chat ({error}); mend or remove it.") from error
    return texts


def _decode(filename: str, data: bytes) -> str:
    if b"\x00" in data:
        raise TextError(f"{filename} is a binary file (it holds zero bytes); give UTF-8 text.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise TextError(f"{filename}, line {line}: byte {error.start} is not UTF-8; save the file as UTF-8 text.") from None


def _lines(_filename: str, text: str, _column: str) -> list[Row]:
    """Paragraphs, where blank lines separate them; lines otherwise. Other characters that Unicode counts as line ends are part of a text."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    kept = [part.strip() for part in re.split(r"\n[ \t]*\n", text) if part.strip()]
    return list(kept) if len(kept) > 1 else [line.strip() for line in text.split("\n") if line.strip()]


def _jsonl(filename: str, text: str, column: str) -> list[Row]:
    rows: list[Row] = []
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            message = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
            raise TextError(f"{filename}, line {number} is not JSON ({message}); each line must be one object.") from None
        if not isinstance(record, dict):
            raise TextError(f"{filename}, line {number} is a JSON {type(record).__name__}, not an object with the column '{column}'.")
        rows.append(_field(f"{filename}, line {number}", record, column))
    return rows


def _csv(filename: str, text: str, column: str) -> list[Row]:
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    rows: list[Row] = []
    try:
        for record in reader:
            _require_width(f"{filename}, line {reader.line_num}", record, column)
            rows.append(_field(f"{filename}, line {reader.line_num}", record, column))
    except csv.Error as error:
        raise TextError(
            f"{filename}, line {reader.reader.line_num}: {error}; quote fields that hold commas, quotes or line breaks."
        ) from None
    return rows


def _require_width(where: str, record: dict[Any, Any], column: str) -> None:
    """A `TextError` for a line with more fields than the header, whose text goes on where nobody reads, or without one for the text."""
    more = record.get(None)
    if more is not None:
        raise TextError(
            f"{where} has {len(more)} field(s) more than the header ({str(more[0]).strip()[:40]!r} ...): a text with a comma needs quotes around it; "
            "quote it, or give the file as .jsonl."
        )
    if column in record and record[column] is None:
        raise TextError(f"{where} has no field for the column '{column}'; each line needs as many fields as the header.")


def _parquet(filename: str, data: bytes, column: str) -> list[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(io.BytesIO(data))
    except (pyarrow.ArrowException, OSError) as error:
        raise TextError(f"{filename} is not a readable parquet file ({str(error).splitlines()[0]}).") from None
    if column not in table.column_names:
        raise TextError(f"{filename} has no column '{column}'; it has {', '.join(table.column_names)}. Choose one of them.")
    values = table.column(column).to_pylist()
    return [_field(f"{filename}, row {number}", {column: value}, column) for number, value in enumerate(values, start=1)]


def _field(where: str, record: dict[str, Any], column: str) -> Row:
    """The text of one record, or its messages."""
    value = record.get(column)
    if value is None and column == "text" and isinstance(record.get("messages"), list):
        return _messages(where, record["messages"])
    if column not in record:
        raise TextError(f"{where} has no column '{column}'; it has {', '.join(map(str, record))}. Choose one of them.")
    if not isinstance(value, str):
        raise TextError(f"{where}: the column '{column}' holds {type(value).__name__}, not text.")
    _require_unicode(where, value)
    if not value.strip():
        raise TextError(f"{where}: the column '{column}' is blank; remove the row.")
    return value


def _messages(where: str, messages: list[Any]) -> Row:
    for message in messages:
        if not (isinstance(message, dict) and isinstance(message.get("role"), str) and isinstance(message.get("content"), str)):
            raise TextError(f"{where}: every message needs a text 'role' and a text 'content'.")
        _require_unicode(where, message["content"])
    if not messages:
        raise TextError(f"{where}: 'messages' is empty.")
    return messages


def _require_unicode(where: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TextError(f"{where}: character {error.start} is a lone surrogate, which is no text; remove it.") from None
