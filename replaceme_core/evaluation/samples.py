"""Items of lm-eval's sample log, in memory or from a samples_*.jsonl file, as ours."""

from typing import Any

from replaceme_core.evaluation.scores import Sample, primary_of


def of_one_filter(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A task with several filters logs every item once for each. One of them is enough, the same one whatever the order of a log."""
    names = {str(row.get("filter") or "none") for row in rows}
    chosen = "none" if "none" in names else min(names, default="none")
    return [row for row in rows if str(row.get("filter") or "none") == chosen]


def sample_of(row: dict[str, Any]) -> Sample:
    """One row of the log. Raises `KeyError`, `TypeError` or `ValueError` for a row that lm-eval did not write."""
    answers, pairs = row["filtered_resps"], _arguments(row["arguments"])
    values = {name: _plain(row[name]) for name in row.get("metrics") or _metric_keys(row) if name in row}
    main = primary_of(values)
    right = values.get(main) if main else None
    correct = bool(right) if isinstance(right, int | float) and right in (0, 1) else None  # a part of a point is neither right nor wrong
    text, doc_hash, kind = str(pairs[0][0]), str(row.get("doc_hash") or ""), str(row.get("filter") or "none")
    if len(answers) > 1 and len(pairs) == len(answers) and all(isinstance(answer, list | tuple) for answer in answers):
        logliks = [float(answer[0]) for answer in answers]
        choices = [str(pair[1]) for pair in pairs]
        answer = _answer(logliks, choices, per_character=main == "acc_norm")
        if len({pair[0] for pair in pairs}) > 1:  # the choices stand in the context, as in Winogrande
            choices, text = [str(pair[0]) for pair in pairs], str(pairs[0][1])
        target = _index(row["target"], choices)
        target = target if target is not None else answer if correct else -1
        return Sample(int(row["doc_id"]), text, choices, target, answer, correct, values, logliks, doc_hash=doc_hash, filter=kind)
    said = answers[0] if answers and isinstance(answers[0], str) else ""
    return Sample(int(row["doc_id"]), text, [], -1, -1, correct, values, [], str(row["target"]), said, doc_hash, kind)


def _answer(logliks: list[float], choices: list[str], per_character: bool) -> int:
    """The likeliest choice; per character as lm-eval counts them for acc_norm, without the space in front."""
    lengths = [max(1, len(choice.removeprefix(" "))) if per_character else 1 for choice in choices]
    return max(range(len(logliks)), key=lambda index: logliks[index] / lengths[index])


def row_of(sample: Sample) -> dict[str, Any]:
    """The item as a row of lm-eval's sample log; the document itself is not kept, only its hash."""
    import hashlib

    pairs = [[sample.text, choice] for choice in sample.choices] or [[sample.text, sample.wanted]]
    answers: list[Any] = [[loglik, False] for loglik in sample.logliks] or [sample.said]
    target = str(sample.target) if sample.choices else sample.wanted
    return {
        "doc_id": sample.doc_id,
        "doc": {},
        "target": target,
        "arguments": {f"gen_args_{i}": {f"arg_{j}": part for j, part in enumerate(pair)} for i, pair in enumerate(pairs)},
        "resps": [[answer] for answer in answers],
        "filtered_resps": answers,
        "filter": sample.filter,
        "metrics": list(sample.values),
        "doc_hash": sample.doc_hash,
        "prompt_hash": hashlib.sha256(sample.text.encode()).hexdigest(),
        "target_hash": hashlib.sha256(target.encode()).hexdigest(),
        **sample.values,
    }


def _arguments(arguments: Any) -> list[list[Any]]:
    """The (context, continuation) of each request: pairs in memory, {'gen_args_0': {'arg_0': .., 'arg_1': ..}} in a file."""
    rows = list(arguments.values()) if isinstance(arguments, dict) else arguments
    return [list(row.values()) if isinstance(row, dict) else list(row) for row in rows]


def _metric_keys(row: dict[str, Any]) -> list[str]:
    """Older logs do not list their metrics: what follows the hashes, or what is left over."""
    known = {
        "doc_id",
        "doc",
        "target",
        "arguments",
        "resps",
        "filtered_resps",
        "filter",
        "metrics",
        "doc_hash",
        "prompt_hash",
        "target_hash",
    }
    return [name for name in row if name not in known]


def _index(target: Any, choices: list[str]) -> int | None:
    """The number of the right choice, from a number, a number as text (in files), or the choice's own text."""
    if isinstance(target, int):
        return target
    text = str(target).strip()
    if text.isdigit() and int(text) < len(choices):
        return int(text)
    stripped = [choice.strip() for choice in choices]
    return stripped.index(text) if text in stripped else None


def _plain(value: Any) -> Any:
    """Numbers as Python's own, pairs as lists."""
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return value.item() if hasattr(value, "item") else value
