"""The demo tokenizer: byte-level BPE (any text encodes), with one token for every word of the world.

A leading space is added to every text, so that a word is the same token at the start and inside a sentence.
No <bos> is prepended: training rows start with it three times in ten, so the model reads texts with and without it.
lm-eval's rolling likelihood puts one in front by itself, and would double one that the tokenizer had added.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import islice

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from demo.corpus import documents
from demo.world import vocabulary

SPECIALS = ["<pad>", "<bos>", "<eos>"]
SAMPLE = 20_000


def corpus_words() -> list[str]:
    """Every piece of text the corpus uses, as words with their leading space, each once."""
    seen: Counter[str] = Counter({f" {word}": 1 for word in vocabulary()})
    for document in islice(documents("tokenizer"), SAMPLE):
        seen.update(re.findall(r" ?\w+| ?[^\w\s]+|\n", " " + document.text))
    return sorted(seen)


def build() -> PreTrainedTokenizerFast:
    """Train on the word list alone until every word is one token (about 1,000 entries in all)."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        special_tokens=SPECIALS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # Line starts carry no space, so the list also holds bare words; only afterwards does every text get one.
    core.train_from_iterator(corpus_words(), trainer)
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        add_prefix_space=True,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
