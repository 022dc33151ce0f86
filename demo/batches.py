"""Training batches: one document per row, rows of like length together, so that little is padding."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from demo.corpus import documents

POOL = 512  # documents sorted by length at a time
# Names in a story cannot be predicted; the word after "?" can, and so can most words after "Again:".
ANSWER_WEIGHT, TAIL_WEIGHT = 10.0, 3.0
BOS_SHARE = 0.3  # rows that start with <bos>: lm-eval's rolling likelihood puts it there, nothing else does


def weights_of(rows: Tensor, pad: int, cues: list[int], again: int) -> Tensor:
    """Loss weight of every token as a target, (rows, tokens): 0 for padding, more for answers and repetitions."""
    weights = torch.ones(rows.shape)
    weights[(rows == again).cumsum(1) > 0] = TAIL_WEIGHT
    weights[:, 1:][torch.isin(rows[:, :-1], torch.tensor(cues))] = ANSWER_WEIGHT
    return weights * (rows != pad)


def batches(tokenizer: PreTrainedTokenizerFast, seed: str, tokens: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless (ids, weights), both (rows, length), of about `tokens` tokens; the same seed, the same batches."""
    rng = random.Random(f"{seed}/order")
    source = documents(seed)
    bos, eos, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    cues, again = cue_ids(tokenizer), tokenizer.convert_tokens_to_ids("Again")
    while True:
        texts = [document.text for document in islice(source, POOL)]
        encoded = [[*ids, eos] for ids in tokenizer(texts)["input_ids"]]
        encoded = [[bos, *ids] if rng.random() < BOS_SHARE else ids for ids in encoded]
        encoded.sort(key=len)
        groups, group = [], []
        for ids in encoded:
            if group and (len(group) + 1) * len(ids) > tokens:
                groups.append(group)
                group = []
            group.append(ids)
        rng.shuffle(groups)  # the unfinished last group, the longest rows, starts no batch of its own
        for rows in groups:
            width = max(map(len, rows))
            ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
            yield ids, weights_of(ids, pad, cues, again)


def cue_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """The tokens after which an answer stands."""
    return tokenizer.convert_tokens_to_ids(["?", "Ġ="])
