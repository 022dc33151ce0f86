"""What many texts begin with, such as the header of a chat template, in KL and perplexity."""

import math

import pytest
import torch
from torch.nn.functional import kl_div

from replaceme_core.calibration.calibration import documents
from replaceme_core.calibration.parts import TextPart, openings_of
from replaceme_core.comparison.compare import divergence
from replaceme_core.comparison.tails import Tails
from tests.support.straight import log_probabilities


@pytest.fixture(scope="module")
def sequences(llama, texts) -> list[torch.Tensor]:
    return documents(llama.tokenizer, 1500, texts).sequences


def test_it_is_context_and_not_counted(llama, variant, sequences):
    """The figures are those of a plain loop over the scored tokens, in batches that mix beginnings and later pieces."""
    header = sequences[0][:7]
    rows = [torch.cat([header, sequence]) for sequence in sequences]
    text = TextPart.of("test", "chats", rows, 10_000, 20)
    first = max(openings_of(rows))
    assert first >= 7
    assert set(text.first_scored) == {1, first}, "later pieces are scored from their second token on"
    row = divergence(llama, [variant.handle], text)[1]
    kl, likelihood, n = 0.0, 0.0, 0
    for sequence, begin in zip(text.sequences, text.first_scored, strict=True):
        left, right = (log_probabilities(handle, sequence)[begin - 1 :] for handle in (llama, variant.handle))
        kl += float(kl_div(right, left, log_target=True, reduction="sum"))
        likelihood -= float(right.gather(-1, sequence[begin:].unsqueeze(-1)).sum())
        n += len(sequence) - begin
    assert row.n_tokens == n
    assert row.kl == pytest.approx(kl / n, abs=3e-8), "float32 terms, as above"
    assert row.perplexity == pytest.approx(math.exp(likelihood / n), rel=1e-6)
    assert f"What many of these texts begin with ({first} tokens" in row.note
    tail = Tails(llama, text).measure([variant.transform])[0]
    assert (tail.quality.kl, tail.quality.n_tokens) == (pytest.approx(row.kl, rel=1e-5), n)
