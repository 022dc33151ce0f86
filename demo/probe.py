"""Quick accuracy and loss on the bench side, for the training log; the app's figures come from lm-eval."""

from __future__ import annotations

from collections import defaultdict
from itertools import islice

import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from demo.corpus import documents
from demo.documents import BENCH


def pad_right(rows: list[list[int]], pad: int) -> Tensor:
    """Rows of ids as one (rows, longest) tensor; a causal model never looks at padding on the right."""
    width = max(map(len, rows))
    return torch.tensor([row + [pad] * (width - len(row)) for row in rows])


@torch.inference_mode()
def heldout_loss(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, count: int = 200) -> float:
    """Mean negative log-likelihood (nats per token, unweighted) of `count` bench-side documents."""
    texts = [d.text for d in islice(documents("probe", BENCH), count)]
    rows = sorted(([*ids, tokenizer.eos_token_id] for ids in tokenizer(texts)["input_ids"]), key=len)
    total = number = 0.0
    for k in range(0, count, 50):
        ids = pad_right(rows[k : k + 50], tokenizer.pad_token_id)
        logits = model(ids[:, :-1]).logits.flatten(0, 1)
        target = ids[:, 1:].flatten()
        keep = target != tokenizer.pad_token_id
        total += functional.cross_entropy(logits[keep], target[keep], reduction="sum").item()
        number += keep.sum().item()
    return total / number


@torch.inference_mode()
def accuracies(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, each: int = 64) -> dict[str, float]:
    """Share of `each` bench-side questions per family whose answer outranks the other choices."""
    found: dict[str, list[tuple[str, tuple[str, ...], str]]] = defaultdict(list)
    for document in islice(documents("probe", BENCH), each * 30):
        for ask in document.asks:
            if ask.family and len(ask.choices) > 1 and len(found[ask.family]) < each:
                found[ask.family].append((document.item(ask), ask.choices, ask.answer))
    scores = {}
    for family, items in sorted(found.items()):
        items.sort(key=lambda item: len(item[0]))
        right = 0
        for k in range(0, len(items), 32):
            part = items[k : k + 32]
            rows = tokenizer([text for text, _, _ in part])["input_ids"]
            hidden = model.model(pad_right(rows, tokenizer.pad_token_id)).last_hidden_state
            last = hidden[torch.arange(len(rows)), torch.tensor([len(row) - 1 for row in rows])]
            logits = model.lm_head(last)
            for row, (_, choices, answer) in zip(logits, part, strict=True):
                ids = tokenizer.convert_tokens_to_ids([f"Ġ{choice}" for choice in choices])
                right += choices[int(row[ids].argmax())] == answer
        scores[family] = round(right / len(items), 3)
    return scores
