"""What a model can read at all: tokens that it has a row for, and as many as it was built for. Asked before a pass, where it costs nothing."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from replaceme_core.artifacts import ModelHandle
from replaceme_core.errors import InputError


def positions(model: Any) -> int | None:
    """Tokens that the model was built to read at once; None where nothing says so, as with ALiBi or a state that is carried along."""
    config = model.config.get_text_config(decoder=True)
    if getattr(config, "alibi", False):
        return None
    found = getattr(config, "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else None


def require_readable(handle: ModelHandle, sequences: Iterable[Tensor]) -> None:
    """An `InputError` for token ids without a row in the embedding, or for sequences longer than the model's positions.

    Beyond them learned positions fail inside the model, and rotary ones give figures that mean nothing, without a word.
    """
    if handle.family.inputs != "text":
        return
    with handle.borrow() as model:
        rows, most = model.get_input_embeddings().num_embeddings, positions(model)
    longest, largest = 0, -1
    for sequence in sequences:
        if len(sequence):
            longest, largest = max(longest, len(sequence)), max(largest, int(sequence.max()))
    if largest >= rows:
        raise InputError(
            f"The tokenizer gives the token {largest}, and the embedding of '{handle.name}' has rows for 0 to {rows - 1} only: the two do not belong "
            "together. Take the tokenizer that was saved with these weights, or resize the embedding (resize_token_embeddings) and save the model again."
        )
    if most is not None and longest > most:
        raise InputError(
            f"A sequence has {longest:,} tokens, and '{handle.name}' was built for {most:,} (max_position_embeddings): beyond that its figures mean "
            f"nothing. Set the sequence length (max_length) to {most} or less."
        )
