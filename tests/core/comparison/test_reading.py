"""One text as several models read it: places, ranks, and tokens that are parts of a character."""

import pytest
from torch.nn.functional import kl_div

from replaceme_core.artifacts import ModelHandle, Variant
from replaceme_core.comparison.generation import Writer
from replaceme_core.comparison.next_token import encode, pieces
from replaceme_core.comparison.reading import read
from replaceme_core.errors import Cancelled
from tests.support.straight import log_probabilities

ODD = ["a🙃b", "شجرة خضراء", "é€–", "👩\u200d👩\u200d👧 family", "w1 w2", "line\nline\t", "\ufffd in the text", "end \ufffd"]


@pytest.mark.parametrize("text", ODD)
def test_the_pieces_of_a_text_add_up_to_it_and_break_no_character(llama: ModelHandle, text: str) -> None:
    ids = llama.tokenizer(text, add_special_tokens=False)["input_ids"]
    found = pieces(llama.tokenizer, ids)
    assert len(found) == len(ids)
    assert "".join(found) == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in found)


def test_a_text_that_ends_inside_a_character_still_has_a_piece_for_every_token(llama: ModelHandle) -> None:
    ids = llama.tokenizer("a🙃", add_special_tokens=False)["input_ids"][:-1]
    found = pieces(llama.tokenizer, ids)
    assert len(found) == len(ids)
    assert "".join(found).startswith("a")


def test_every_system_has_its_share_rank_and_kl_at_every_token(llama: ModelHandle, variant: Variant, texts: list[str]) -> None:
    found = read(llama, [variant.handle], encode(llama, texts[0]))
    ids = encode(llama, texts[0])
    assert (found.skipped, len(found.tokens)) == (0, len(ids))
    tables = [log_probabilities(handle, ids) for handle in (llama, variant.handle)]
    for row, table in zip(found.expected, tables, strict=True):
        assert row[0] is None, "nothing predicts the first token"
        for at, item in enumerate(row[1:]):
            actual = int(ids[at + 1])
            assert item.share == pytest.approx(float(table[at, actual].exp()))
            order = table[at].argsort(descending=True).tolist()
            assert item.rank == order.index(actual) + 1
            assert item.top[0][1] == pytest.approx(float(table[at].exp().max()))
    places = kl_div(tables[1], tables[0], log_target=True, reduction="none").sum(-1)
    assert [item.kl for item in found.expected[1][1:]] == pytest.approx(places.tolist(), rel=1e-6)
    assert found.mean_kl(1) == pytest.approx(float(places.mean()), rel=1e-6)
    assert found.mean_kl(0) == 0.0


def test_the_reference_decides_the_direction_of_the_kl(llama: ModelHandle, variant: Variant, texts: list[str]) -> None:
    there, back = read(llama, [variant.handle], encode(llama, texts[0])), read(variant.handle, [llama], encode(llama, texts[0]))
    ids = encode(llama, texts[0])
    left, right = log_probabilities(llama, ids), log_probabilities(variant.handle, ids)
    assert back.mean_kl(1) == pytest.approx(float(kl_div(left, right, log_target=True, reduction="none").sum(-1).mean()), rel=1e-6)
    assert back.mean_kl(1) != pytest.approx(there.mean_kl(1), rel=1e-5)


def test_only_the_last_tokens_of_a_long_text_are_read_and_the_rest_is_counted(
    llama: ModelHandle, variant: Variant, texts: list[str]
) -> None:
    whole, part = (read(llama, [variant.handle], encode(llama, texts[0]), last=last) for last in (400, 5))
    assert part.skipped == len(whole.tokens) - 5
    assert part.tokens == whole.tokens[-5:]
    assert [item.kl for item in part.expected[1]] == pytest.approx([item.kl for item in whole.expected[1][-5:]])


def test_a_reading_can_be_cancelled_between_models(llama: ModelHandle, variant: Variant) -> None:
    class StopAtOne:
        def update(self, done, _total, _unit, _what):
            if done == 1:
                raise Cancelled("stopped by the test")

    with pytest.raises(Cancelled):
        read(llama, [variant.handle], encode(llama, "w1 w2"), progress=StopAtOne())


def test_two_writers_in_turns_write_what_each_writes_alone(llama: ModelHandle, variant: Variant) -> None:
    writers = [Writer(handle, "w1 w2", 12, temperature=1.0, seed=7) for handle in (llama, variant.handle)]
    for _ in range(12):
        for writer in writers:
            if writer.ended is None:
                writer.step()
    for writer, handle in zip(writers, (llama, variant.handle), strict=True):
        alone = Writer(handle, "w1 w2", 12, temperature=1.0, seed=7)
        while alone.ended is None:
            alone.step()
        assert writer.tokens == alone.tokens
