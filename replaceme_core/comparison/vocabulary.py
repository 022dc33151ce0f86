"""Which tokens two models both know: their next-token probabilities are compared on these, and not at all where they mean different things by them."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from replaceme_core.artifacts import ModelHandle
from replaceme_core.errors import InputError


def common(reference: ModelHandle, others: Sequence[ModelHandle]) -> tuple[int | None, str]:
    """(number of tokens to compare on, a sentence on it): the least vocabulary where the others extend it. None: all are the same.

    Raises `InputError` where the tokenizers disagree about a token that all of them have.
    """
    for other in others:
        _require_agreement(reference, other)
    sizes = {handle.name: _size(handle) for handle in (reference, *others)}
    least = min(sizes.values())
    if max(sizes.values()) == least:
        return None, ""
    wider = ", ".join(f"'{name}' has {size - least:,} more" for name, size in sizes.items() if size > least)
    return (
        least,
        f"Compared on the {least:,} tokens that all models have; {wider}, whose probabilities are left out and the rest scaled to 1.",
    )


def require_shared(sequences: Iterable[Tensor], size: int | None) -> None:
    """An `InputError` for text with a token beyond the `size` that all models have (see `common`)."""
    largest = max((int(sequence.max()) for sequence in sequences if len(sequence)), default=-1)
    if size is not None and largest >= size:
        raise InputError(
            f"The text holds the token {largest}, which only some of the models have (they share {size:,}). Compare on text without the added tokens."
        )


def _size(handle: ModelHandle) -> int:
    """Of the output head; a model may have rows that no token uses."""
    with handle.borrow() as model:
        head = model.get_output_embeddings()
        table = model.get_input_embeddings() if head is None else head
        return int(table.weight.shape[0] if getattr(table.weight, "ndim", 0) == 2 and hasattr(table, "weight") else table.out_features)


def _require_agreement(reference: ModelHandle, other: ModelHandle) -> None:
    first, second = reference.tokenizer, other.tokenizer
    if first is second or not all(hasattr(each, "get_vocab") for each in (first, second)):
        return
    words, others = (_by_id(each) for each in (first, second))
    wrong = next((number for number in sorted(words.keys() & others.keys()) if words[number] != others[number]), None)
    if wrong is not None:
        raise InputError(
            f"'{reference.name}' and '{other.name}' have different tokenizers (token {wrong} is {words[wrong]!r} for one and {others[wrong]!r} for the "
            "other), so their next-token probabilities are of different things. Compare models that share a tokenizer."
        )


def _by_id(tokenizer: Any) -> dict[int, str]:
    return {number: word for word, number in tokenizer.get_vocab().items()}
