"""A person's own questions, a JSONL file without any YAML: multiple choice or cloze.

{"question": "Where is the key?", "choices": ["barn", "park"], "answer": 1}     answer: the number of a choice from 0, or its text
{"text": "The capital of France is", "answer": "Paris"}                         cloze: the model must go on with the answer
"""

import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

from replaceme_core.errors import EvaluationError
from replaceme_core.storage.cache import cache_folder, write_atomically

_FORMS = '{"question": .., "choices": [..], "answer": ..} (multiple choice) or {"text": .., "answer": ..} (cloze)'


def task_of(path: Path) -> dict[str, Any]:
    """lm-eval's description of the task in a file. Raises `EvaluationError` with file and line."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EvaluationError(f"{path} cannot be read ({error.strerror}).") from error
    rows = read(path.name, data)
    reader, written = _as_read(rows)
    kept = cache_folder() / "questions" / f"{hashlib.sha256(data).hexdigest()[:16]}.{'jsonl' if reader == 'json' else reader}"
    try:
        write_atomically(kept, written)
    except OSError as error:
        raise EvaluationError(f"The questions of {path.name} could not be copied to {kept.parent} ({error.strerror}).") from error
    task: dict[str, Any] = {
        "task": f"own_{re.sub(r'[^A-Za-z0-9]+', '_', path.stem).strip('_') or 'questions'}",
        "dataset_path": reader,
        "dataset_kwargs": {"data_files": {"test": str(kept)}},
        "test_split": "test",
        "doc_to_text": "question",
        "target_delimiter": " ",
        "metadata": {"version": kept.stem},
    }
    if "choices" in rows[0]:
        choice = {"output_type": "multiple_choice", "doc_to_choice": "choices", "doc_to_target": "answer"}
        return task | choice | {"metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}]}
    # lm-eval puts no delimiter before the target of a log-likelihood, so that the space belongs to the target
    cloze = {"output_type": "loglikelihood", "doc_to_target": "{{' ' + answer}}", "target_delimiter": ""}
    return task | cloze | {"metric_list": [{"metric": "acc"}, {"metric": "perplexity"}]}


def _as_read(rows: list[dict[str, Any]]) -> tuple[str, bytes]:
    """Which reader of datasets keeps all texts as texts, and the rows as a file for it.

    That of JSON makes times of a column of texts that all look like dates; parquet says what is a text.
    """
    import pyarrow
    import pyarrow.json
    import pyarrow.parquet

    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
    whole = pyarrow.json.ReadOptions(use_threads=False, block_size=len(lines) + 1)
    guessed = [field.type for field in pyarrow.json.read_json(io.BytesIO(lines), whole).schema]
    if not any(pyarrow.types.is_temporal(getattr(kind, "value_type", kind)) for kind in guessed):
        return "json", lines
    of = {str: pyarrow.string(), int: pyarrow.int64(), list: pyarrow.list_(pyarrow.string())}
    table = pyarrow.Table.from_pylist(rows, pyarrow.schema([(key, of[type(value)]) for key, value in rows[0].items()]))
    pyarrow.parquet.write_table(table, written := io.BytesIO())
    return "parquet", written.getvalue()


def read(name: str, data: bytes) -> list[dict[str, Any]]:
    """The rows of a file, all of one kind, answers as numbers of choices. Raises `EvaluationError` with file and line."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = data[: error.start].count(b"\n") + 1
        raise EvaluationError(f"{name}, line {at}: byte {error.start} is not UTF-8; save the file as UTF-8 text.") from None
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        if line.strip():
            where = f"{name}, line {number}"
            row = _row(where, line)
            if rows and ("choices" in row) != ("choices" in rows[0]):
                raise EvaluationError(f"{where}: the file mixes multiple choice and cloze; put each kind in a file of its own.")
            rows.append(row)
    if not rows:
        raise EvaluationError(f"{name} holds no question; each line is {_FORMS}.")
    return rows


def _row(where: str, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise EvaluationError(f"{where} is not JSON ({getattr(error, 'msg', 'nested too deeply')}); each line is {_FORMS}.") from None
    if not isinstance(record, dict) or "answer" not in record or not ("question" in record or "text" in record):
        said = f"it has {', '.join(map(str, record)) or 'no keys'}" if isinstance(record, dict) else f"it is a {type(record).__name__}"
        raise EvaluationError(f"{where}: a line is {_FORMS}; {said}.")
    if "choices" in record or "question" in record:
        return _choice(where, record)
    question, answer = _words(where, "text", record["text"]), _words(where, "answer", record["answer"])
    blank = re.search(r"_{2,}", question)
    if blank and question[blank.end() :].strip(" .?!"):
        raise EvaluationError(
            f"{where}: the blank must end the text, because the model only reads what comes before it; rephrase the line."
        )
    return {"question": question[: blank.start()].rstrip() if blank else question.rstrip(), "answer": answer}


def _choice(where: str, record: dict[str, Any]) -> dict[str, Any]:
    choices, answer = record.get("choices"), record["answer"]
    if not isinstance(choices, list) or len(choices) < 2:
        raise EvaluationError(f"{where}: 'choices' must be a list of two or more texts.")
    texts = [_words(where, f"choice {number}", choice) for number, choice in enumerate(choices)]
    if len(set(texts)) < len(texts):
        raise EvaluationError(f"{where}: two choices are the same; the question has no one right answer.")
    if isinstance(answer, str) and answer.strip() in texts:
        answer = texts.index(answer.strip())
    if type(answer) is not int or not 0 <= answer < len(texts):
        raise EvaluationError(
            f"{where}: 'answer' is {json.dumps(answer)}; give the text of a choice or its number, 0 to {len(texts) - 1} (the first is 0)."
        )
    return {"question": _words(where, "question", record.get("question", record.get("text"))), "choices": texts, "answer": answer}


def _words(where: str, key: str, value: Any) -> str:
    """Text that is not blank and can be written as UTF-8."""
    if not isinstance(value, str) or not value.strip():
        raise EvaluationError(f"{where}: '{key}' must be a text that is not blank, not {json.dumps(value)[:60]}.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise EvaluationError(f"{where}: '{key}' holds a lone surrogate, which is no text; remove it.") from None
    return value.strip()
