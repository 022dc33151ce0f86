"""Train, held-out and test: split by document, of two sources in proportion, and no token of one part in another."""

import math
from itertools import accumulate

import pytest
import torch

from replaceme_core.calibration.calibration import CalibrationSet, documents, prepare
from replaceme_core.calibration.parts import SEQUENCES, SHORTEST, TextPart, beginnings, blended, hold_out, openings_of, split
from replaceme_core.errors import InputError
from replaceme_core.plans.plan import CalibrationSection

SEED = 11


def rows(lengths: list[int], first: int = 0) -> list[torch.Tensor]:
    """Documents in which every token is its own: its number says where it comes from."""
    stops = list(accumulate(lengths, initial=first))
    return [torch.arange(begin, begin + n) for begin, n in zip(stops, lengths, strict=False)]


def parts(lengths: list[int], budget: int, test: int = 1000, longest: int = 32, holdout: float = 0.1, seed: int = SEED):
    """(train, held-out, test) as lists of sequences."""
    found = split(iter(rows(lengths)), budget, test, longest, holdout, torch.Generator().manual_seed(seed))
    by_part = [[s for s, out in zip(found.sequences, found.heldout, strict=True) if out is part] for part in (False, True)]
    return *by_part, found.test


def documents_of(sequences: list[torch.Tensor], lengths: list[int]) -> set[int]:
    stops = torch.tensor(list(accumulate(lengths)))
    return {int((stops <= token).sum()) for sequence in sequences for token in sequence}


def test_no_document_is_in_two_parts_though_each_is_many_sequences():
    """Ten documents of ten sequences each: by sequences, all of them would stand on both sides."""
    lengths = [320] * 10
    train, heldout, test = parts(lengths, budget=2560)
    of = [documents_of(part, lengths) for part in (train, heldout, test)]
    assert not of[0] & of[1]
    assert not of[2] & (of[0] | of[1])
    assert [len(each) for each in of[1:]] == [1, 2]
    assert sum(map(len, heldout)) == 320


@pytest.mark.parametrize("seed", range(5))
def test_parts_of_whole_documents_come_near_the_share_that_was_asked_for(seed):
    lengths = torch.randint(20, 400, (60,), generator=torch.Generator().manual_seed(seed)).tolist()
    train, heldout, _ = parts(lengths, budget=sum(lengths), test=0, seed=seed)
    assert 0.05 <= len(heldout) / (len(train) + len(heldout)) <= 0.2


def test_a_book_holds_out_its_tail_behind_a_gap():
    """One document: there is nothing to draw. Train comes first, then held-out, then test, and a sequence is left out between any two."""
    train, heldout, test = parts([20_000], budget=20_000, test=2000)
    ends = [(min(int(s[0]) for s in part), max(int(s[-1]) for s in part) + 1) for part in (train, heldout, test)]
    assert ends[2] == (18_000, 20_000)
    assert ends[1][1] == 18_000 - 32
    assert ends[0] == (0, ends[1][0] - 32)
    assert sum(map(len, heldout)) == pytest.approx(0.1 * (20_000 - 2000), rel=0.02)
    assert ends[0][1] - sum(map(len, train)) <= 1


def test_three_long_documents_hold_out_the_tail_of_each():
    lengths = [5000, 5000, 5000]
    train, heldout, test = parts(lengths, budget=15_000, test=1500)
    assert [documents_of(part, lengths) for part in (train, heldout, test)] == [{0, 1, 2}] * 3
    assert sum(map(len, test)) == 1500
    for part in (train, heldout):
        spans = [[int(t) for s in part for t in s if t // 5000 == number] for number in range(3)]
        assert all(span == [] or max(span) - min(span) + 1 - len(span) <= 1 for span in map(sorted, spans)), "contiguous"


def test_the_sequences_of_long_documents_are_mixed_so_that_a_beginning_is_fair():
    train, heldout, _ = parts([20_000], budget=20_000, test=0)
    found = split(iter(rows([20_000])), 20_000, 0, 32, 0.1, torch.Generator().manual_seed(SEED))
    first = found.heldout[: len(found.heldout) // 4]
    assert 0.03 < sum(first) / len(first) < 0.2
    starts = [int(s[0]) for s in found.sequences[: len(found.sequences) // 4]]
    assert max(starts) > 15_000
    assert len(train) + len(heldout) == len(found.sequences)


def test_short_documents_stay_as_they_were_drawn():
    """One sequence each: the order of the rows is the order of the sequences, as before there was a test part."""
    found = split(iter(rows([20] * 200)), 1000, 1000, 32, 0.1, torch.Generator().manual_seed(SEED))
    assert torch.equal(torch.cat(found.sequences), torch.arange(1000))
    assert torch.equal(torch.cat(found.test), torch.arange(1000, 2000))
    assert sum(found.heldout) == 5


@pytest.mark.parametrize("lengths", [[20] * 3, [5, 5, 25], [3, 3, 30], [25, 5, 5, 5]])
def test_a_few_short_documents_are_not_cut(lengths):
    for seed in range(6):
        found = parts(lengths, budget=1000, seed=seed)
        assert all(found), "each part has one at least"
        assert sorted(len(s) for part in found for s in part) == sorted(lengths)


def test_two_short_documents_have_no_test_part():
    train, heldout, test = parts([20, 20], budget=1000)
    assert (len(train), len(heldout), test) == (1, 1, [])


def test_a_test_part_takes_a_fifth_of_a_short_text_at_most():
    lengths = [30] * 100
    train, heldout, test = parts(lengths, budget=100_000, test=8192)
    assert sum(map(len, test)) <= 0.2 * 3000
    assert sum(map(len, test)) >= 0.1 * 3000
    assert sum(map(len, train + heldout + test)) == 3000


def test_copies_of_a_document_are_in_one_part():
    texts = rows([20] * 20) * 3
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0)).tolist()
    found = split(iter([texts[i] for i in order]), 10_000, 200, 32, 0.2, torch.Generator().manual_seed(1))
    own = {key: {tuple(s.tolist()) for s in part} for key, part in (
        ("train", [s for s, out in zip(found.sequences, found.heldout, strict=True) if not out]),
        ("held-out", [s for s, out in zip(found.sequences, found.heldout, strict=True) if out]),
        ("test", found.test),
    )}  # fmt: skip
    assert all(own.values())
    assert not own["train"] & own["held-out"]
    assert not own["test"] & (own["train"] | own["held-out"])


def test_further_documents_that_were_read_before_are_not_test_text():
    texts = rows([20] * 50)
    repeated = [*texts[:30], *texts[:30], *texts[30:]]
    first, _, enough = beginnings(iter(repeated[30:]), 400, repeated[:30])
    assert {int(row[0]) // 20 for row in first} == set(range(30, 50))
    assert enough


@pytest.mark.parametrize("n_tokens", [512, 1024, 4096, 8192])
@pytest.mark.parametrize("kind", ["many short", "many long", "a book"])
def test_there_are_thirty_sequences_or_more_of_as_many_documents_as_there_are(n_tokens, kind):
    lengths = {"many short": [60] * 400, "many long": [2000] * 80, "a book": [30_000]}[kind]
    text = TextPart.of("test", "text", rows(lengths), n_tokens)
    assert text.n_tokens == n_tokens
    assert len(text.sequences) >= min(SEQUENCES, n_tokens // SHORTEST)
    if kind != "a book":
        assert len(set(text.documents)) == len(text.sequences), "the beginning of another document each"
    assert documents_of(text.sequences, lengths) == set(text.documents)
    every = torch.cat(text.sequences)
    assert len(every.unique()) == len(every), "no token twice"


def test_short_text_is_read_to_its_end():
    lengths = [40, 70, 33, 50]
    text = TextPart.of("test", "text", rows(lengths), 10_000)
    assert text.n_tokens >= sum(lengths) - 4 * (SHORTEST // 2)
    assert max(map(len, text.sequences)) == SHORTEST


def test_two_sources_are_mixed_so_that_every_beginning_holds_both_in_proportion():
    sources = [rows([20] * 300), rows([60] * 30)]
    order = blended(sources)
    assert [at for source, at in order if source == 0] == list(range(300)), "each in its own order"
    for cut in (20, 50, 100, 200):
        tokens = [sum(len(sources[s][at]) for s, at in order[:cut] if s == which) for which in (0, 1)]
        assert tokens[1] / sum(tokens) == pytest.approx(1800 / 7800, abs=60 / sum(tokens))


@pytest.fixture
def mixed(llama, tmp_path) -> CalibrationSet:
    """A quarter of words of the second source."""
    for name, words in (("first", "w1 w2 w3"), ("second", "w7 w8 w9")):
        text = [f"{words} w{20 + i} w{40 + i % 70}" for i in range(120)]
        (tmp_path / f"{name}.txt").write_text("\n".join(text))
    section = CalibrationSection(
        source=str(tmp_path / "first.txt"), second=str(tmp_path / "second.txt"), second_share=0.25, max_tokens=800, test_tokens=400
    )
    return prepare(section, llama.tokenizer)


def second_share(sequences: list[torch.Tensor], llama) -> float:
    of = [sum(len(s) for s in sequences if llama.tokenizer.decode(s).replace("<s>", "").strip().startswith(word)) for word in ("w1", "w7")]
    return of[1] / sum(of)


def test_every_part_of_a_mixture_holds_the_second_source_and_so_does_every_beginning(mixed, llama):
    assert second_share(mixed.sequences, llama) == pytest.approx(0.25, abs=0.02)
    assert second_share(mixed.test, llama) == pytest.approx(0.25, abs=0.05)
    for out in (False, True):
        part = [s for s, own in zip(mixed.sequences, mixed.heldout, strict=True) if own is out]
        assert second_share(part, llama) == pytest.approx(0.25, abs=0.12), "one document is the least"
    for most in (100, 200, 400):
        short = mixed.first(most)
        assert set(short.heldout) == {True, False}
        assert second_share(short.sequences, llama) == pytest.approx(0.25, abs=0.13)
        assert [source.n_sequences for source in short.sources] == [short.second.count(False), short.second.count(True)]
    assert second_share(mixed.test_text(150).sequences, llama) == pytest.approx(0.25, abs=0.1)


def test_a_budget_of_streams_takes_both_sources(mixed, llama):
    """A refit whose memory holds a part of the tokens: before, it took the first source alone."""
    from replaceme_core.refit.refit import _affordable
    from replaceme_core.refit.streams import stream_bytes

    kept, notes = _affordable(mixed, llama, 300 * stream_bytes(llama.width, 4), 1)
    assert 150 < kept.n_tokens <= 300
    assert second_share(kept.sequences, llama) == pytest.approx(0.25, abs=0.13)
    assert set(kept.heldout) == {True, False}
    assert f"{kept.n_tokens:,} of {mixed.n_tokens:,} tokens" in notes[0]


def test_the_test_part_is_in_neither_the_pass_nor_the_fingerprint(llama, texts):
    without, having = (
        prepare(CalibrationSection(max_tokens=300, max_length=32, test_tokens=n), llama.tokenizer, texts, "texts") for n in (0, 400)
    )
    assert without.fingerprint == having.fingerprint
    assert without.n_tokens == having.n_tokens == 300
    assert (without.n_test_tokens, having.n_test_tokens > 300) == (0, True)
    read = {tuple(s.tolist()) for s in having.sequences}
    beginnings_read = {key[:n] for key in read for n in range(2, len(key) + 1)}
    assert not {tuple(s.tolist()) for s in having.test_text(400).sequences} & beginnings_read


def test_a_set_without_a_test_part_says_how_to_get_one(llama, texts):
    section = CalibrationSection(max_tokens=300, max_length=32, test_tokens=0)
    with pytest.raises(InputError, match=r"'texts' has no test part.*raise test_tokens"):
        prepare(section, llama.tokenizer, texts, "texts").test_text(100)


def test_parts_say_what_they_are(llama, texts):
    found = prepare(CalibrationSection(max_tokens=300, max_length=32), llama.tokenizer, texts, "texts")
    assert str(found.test_text(100)) == "test part of texts"
    assert str(found.heldout_text(100)) == "held-out part of texts"
    assert (documents(llama.tokenizer, 100).part, documents(llama.tokenizer, 100, texts, "a.txt").part) == ("test", "given")
    assert str(documents(llama.tokenizer, 100, texts, "a.txt")) == "a.txt"
    held = found.heldout_text(10_000)
    assert held.n_tokens <= found.n_heldout_tokens
    heldout = {int(t) for s, out in zip(found.sequences, found.heldout, strict=True) if out for t in s}
    assert {int(t) for s in held.sequences for t in s} <= heldout


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.99])
def test_images_are_held_out_one_by_one_and_copies_together(share):
    keys = [b"a", b"b", b"c", b"c", b"d", b"e", b"f", b"g", b"h", b"i"]
    for seed in range(5):
        out = hold_out(keys, share, torch.Generator().manual_seed(seed))
        assert 1 <= sum(out) <= 9
        assert out[2] == out[3]
        assert abs(sum(out) - share * 10) <= 2
    assert sum(hold_out([b"x"] * 4, 0.25, torch.Generator().manual_seed(0))) == 1
    assert math.isclose(sum(hold_out([b"x", b"y"], 0.9, torch.Generator().manual_seed(0))), 1)


def chats(header: int, lengths: list[int]) -> list[torch.Tensor]:
    """Rows that begin with the same tokens, and differ from the next one on."""
    return [torch.cat([torch.arange(header) + 900_000, row]) for row in rows(lengths)]


@pytest.mark.parametrize("n_tokens", [512, 1024, 8192])
def test_what_all_rows_begin_with_is_read_and_neither_scored_nor_counted(n_tokens):
    header, lengths = 24, [250] * 60
    text, bare = (TextPart.of("test", "text", of, n_tokens) for of in (chats(header, lengths), rows(lengths)))
    assert len(text.sequences) == len(bare.sequences)
    assert text.documents == bare.documents
    assert {len(s) - len(b) for s, b in zip(text.sequences[:-1], bare.sequences[:-1], strict=True)} <= {header, header - 1, 0}
    for sequence, first in zip(text.sequences, text.first_scored, strict=True):
        begins = bool(sequence[0] == 900_000)
        assert first == (header if begins else 1)
        assert (sequence[first:] < 900_000).all(), "the header is not scored"
    assert float(text.n_scored.sum()) == pytest.approx(n_tokens, rel=0.05)
    assert bare.first_scored == [1] * len(bare.sequences)


def test_a_calibration_sets_test_rows_have_their_header_on_top():
    header = 24
    found = split(iter(chats(header, [250] * 400)), 10_000, 1024, 256, 0.1, torch.Generator().manual_seed(0))
    assert len(found.test) >= SEQUENCES
    assert {len(row) for row in found.test} == {header - 1 + SHORTEST}


def test_rows_that_are_copies_or_one_alone_have_no_header():
    same = torch.arange(40)
    assert openings_of([]) == []
    assert openings_of([same, same.clone()]) == [1, 1]
    assert openings_of([same, same + 1]) == [1, 1]
    assert openings_of([same, torch.cat([same[:3], same + 100])]) == [1, 1], "texts may begin with the same words"
    assert openings_of([same, torch.cat([same[:4], same + 100])]) == [4, 4]
    assert openings_of([same, same[:30]]) == [29, 29], "something is to be scored"
    others = rows([40] * 40, first=1000)
    assert openings_of([same, torch.cat([same[:9], same + 100]), *others]) == [1] * 42, "two of many are chance"


def test_one_of_two_sources_may_have_a_header():
    prose, headed = rows([250] * 30, first=100_000), chats(24, [250] * 30)
    mixed = [row for pair in zip(prose, headed, strict=True) for row in pair]
    text = TextPart.of("test", "a mixture", mixed, 1024)
    assert len(text.sequences) >= SEQUENCES
    for sequence, first in zip(text.sequences, text.first_scored, strict=True):
        assert first == (24 if sequence[0] == 900_000 else 1)
    assert float(text.n_scored.sum()) == pytest.approx(1024, rel=0.05)
