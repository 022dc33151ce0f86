"""The logit lens: what a model would say next if it stopped at a boundary (nostalgebraist 2020, "interpreting GPT: the logit lens").

The stream at every boundary is handed to the model's own end, the final norm and the unembedding, with whatever scale, projection or
soft cap the family has there. So nothing about families is written down twice, and the lens of the last boundary is the model's answer.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from replaceme_core import memory
from replaceme_core.artifacts import Cut, ModelHandle
from replaceme_core.comparison.next_token import SHORTER, encode, likeliest, pieces
from replaceme_core.errors import FamilyError
from replaceme_core.models.running import capture
from replaceme_core.models.running.divergence import divergences, require_finite
from replaceme_core.progress import SILENT, Progress


@dataclass(frozen=True)
class Guess:
    """What one boundary says at one position."""

    top: list[tuple[str, float]]
    """its five most likely next tokens with their probabilities"""
    kl: float
    """KL(the model's answer || this guess) in nats; 0 at the last boundary"""


@dataclass(frozen=True)
class Lens:
    """The guesses of one model on the last tokens of a prompt."""

    tokens: list[str]
    """the tokens after which is guessed"""
    skipped: int
    """tokens of the prompt before the first of these"""
    guesses: list[list[Guess]]
    """by boundary of this model, 0 to its number of blocks, then by position"""


def look(handle: ModelHandle, prompt: str, last: int = 16, progress: Progress = SILENT) -> Lens:
    """The guesses at every boundary after each of the last `last` tokens of `prompt`.

    It costs one reading of the prompt, and as many passes over `last` single tokens as there are boundaries. Raises `InputError` for a
    prompt that is empty or too long, `FamilyError` for a model whose blocks are not known or that has no next token.
    """
    ids = encode(handle, prompt)
    chosen = slice(max(0, len(ids) - last), len(ids))
    with memory.told("for the logit lens", SHORTER), handle.borrow() as model:
        _require_head(handle)
        states = capture.read_states(model, handle.family, ids.unsqueeze(0).to(model.device), None, writers=()).boundaries
    streams = [state[0, chosen] for state in states]
    answer = answers(handle, streams[-1])
    guesses = []
    for boundary, stream in enumerate(streams):
        progress.update(boundary, len(streams), "boundaries", "logit lens")
        guesses.append(_guesses(handle, answer, answer if boundary == len(streams) - 1 else answers(handle, stream)))
    return Lens(pieces(handle.tokenizer, ids.tolist())[chosen], chosen.start, guesses)


def answers(handle: ModelHandle, streams: Tensor) -> Tensor:
    """The logits [positions, vocabulary] that the model's own end makes of streams [positions, width]; `NumericsError` if not finite.

    Its end treats every position by itself. So each stream is handed on in place of that of a sequence of one token, whose own way
    through the blocks is thrown away.
    """
    with memory.told("for the logit lens", SHORTER), handle.borrow() as model, torch.no_grad():
        any_token = torch.ones(len(streams), 1, dtype=torch.long, device=model.device)
        with capture.handed_on(model, handle.family, streams):
            logits: Tensor = model(input_ids=any_token, use_cache=False).logits[:, 0]
        require_finite(logits, handle.name)
        return logits


def original_boundaries(n_blocks: int, cut: Cut | None) -> list[int]:
    """For every boundary of a model pruned by `cut`, that of the original of `n_blocks` blocks with which it is compared.

    A boundary enters the same block in both; the joined boundary is that which leaves the removed blocks. The last leaves the model.
    """
    return [*(cut.kept(n_blocks) if cut else range(n_blocks)), n_blocks]


def _guesses(handle: ModelHandle, answer: Tensor, guess: Tensor) -> list[Guess]:
    kl = divergences(answer, guess).tolist()
    return [Guess(likeliest(handle, row), value) for row, value in zip(guess, kl, strict=True)]


def _require_head(handle: ModelHandle) -> None:
    with handle.borrow() as model:
        head = model.get_output_embeddings()
    if not handle.family.blocks:
        raise FamilyError(f"The logit lens needs to know where a model keeps its blocks, but {handle.family.reason}.")
    if handle.family.inputs != "text" or head is None:
        raise FamilyError(f"The logit lens shows next tokens, and a model of the family '{handle.family.name}' has no head that names one.")
