"""Side by side: KL, perplexity, agreement and generation against the libraries' own figures."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn.functional import kl_div

from replaceme_core.artifacts import ModelHandle, Variant
from replaceme_core.calibration.calibration import documents
from replaceme_core.calibration.parts import TextPart
from replaceme_core.comparison.compare import (
    Writer,
    device_name,
    divergence,
    encode,
    speed,
    speeds,
    stream,
    token_differences,
)
from replaceme_core.errors import Cancelled, InputError
from replaceme_core.models.loading import make_handle
from tests.support.straight import log_probabilities

PROMPT = "w1 w2 w3"


@pytest.fixture(scope="module")
def sequences(llama: ModelHandle, texts) -> list[torch.Tensor]:
    return documents(llama.tokenizer, 1500, texts).sequences


@pytest.fixture(scope="module")
def rows(llama, variant: Variant, sequences):
    return divergence(llama, [variant.handle], sequences)


def logits(handle: ModelHandle, sequence: torch.Tensor) -> torch.Tensor:
    with handle.borrow() as model, torch.no_grad():
        return model(input_ids=sequence.unsqueeze(0)).logits[0, :-1]


def test_kl_is_that_of_torch_over_all_predicted_tokens(llama, variant, sequences, rows):
    total, count = 0.0, 0
    for sequence in sequences:
        left, right = (logits(handle, sequence).double().log_softmax(-1) for handle in (llama, variant.handle))
        total += float(kl_div(right, left, log_target=True, reduction="sum"))
        count += len(sequence) - 1
    assert rows[1].kl == pytest.approx(total / count, abs=3e-8), "float32 terms; the contract is a millionth of a nat"
    assert rows[1].kl > 1e-4, "the two models must differ for this to say anything"
    assert rows[1].n_tokens == count
    assert rows[1].n_sequences == len(sequences)


def test_perplexity_is_that_of_the_models_own_loss(llama, variant, sequences, rows):
    for row, handle in zip(rows, (llama, variant.handle), strict=True):
        total = count = 0.0
        for sequence in sequences:
            with handle.borrow() as model, torch.no_grad():
                loss = model(input_ids=sequence.unsqueeze(0), labels=sequence.unsqueeze(0)).loss
            total, count = total + float(loss) * (len(sequence) - 1), count + len(sequence) - 1
        assert row.perplexity == pytest.approx(math.exp(total / count), rel=1e-5)


def test_agreement_is_the_share_of_equal_most_likely_tokens(llama, variant, sequences, rows):
    equal = torch.cat([logits(llama, s).argmax(-1) == logits(variant.handle, s).argmax(-1) for s in sequences])
    assert rows[1].agreement == pytest.approx(float(equal.double().mean()))
    assert 0 < rows[1].agreement < 1


def test_the_original_differs_from_itself_in_nothing(rows):
    assert (rows[0].kl, rows[0].kl_low, rows[0].kl_high, rows[0].agreement) == (0.0, 0.0, 0.0, 1.0)


def test_a_second_handle_on_the_same_weights_differs_in_nothing_either(llama, sequences):
    with llama.borrow() as model:
        twin = make_handle("twin", model, llama.tokenizer, llama.family)
    found = divergence(llama, [twin], sequences)[1]
    assert found.kl == pytest.approx(0.0, abs=1e-12)
    assert found.agreement == 1.0
    assert (found.kl_low, found.kl_high) == pytest.approx((0.0, 0.0), abs=1e-12)


def test_intervals_contain_the_value_and_shrink_with_more_sequences(llama, variant, sequences, rows):
    for row in rows:
        assert row.perplexity_low <= row.perplexity <= row.perplexity_high
        assert row.kl_low <= row.kl <= row.kl_high
    few = divergence(llama, [variant.handle], sequences[:12])[1]
    assert 0 < rows[1].kl_high - rows[1].kl_low < few.kl_high - few.kl_low


def studentised(rows: list[tuple[float, int]], seed: int = 1) -> tuple[float, float]:
    """A second bootstrap-t, written out resample by resample."""
    data, generator = np.array(rows), np.random.default_rng(seed)

    def mean_and_error(picked: np.ndarray) -> tuple[float, float]:
        mean = picked[:, 0].sum() / picked[:, 1].sum()
        rest = picked[:, 0] - mean * picked[:, 1]
        return mean, np.sqrt(rest @ rest / (len(picked) - 1) / len(picked)) / picked[:, 1].mean()

    mean, error = mean_and_error(data)
    drawn = [mean_and_error(data[generator.integers(len(data), size=len(data))]) for _ in range(2000)]
    ends = np.quantile([(own - mean) / spread for own, spread in drawn], [0.975, 0.025])
    return tuple(mean - ends * error)


def test_the_interval_is_a_studentised_bootstrap_over_documents(llama, variant, sequences, rows):
    sums = []
    for sequence in sequences:
        left, right = log_probabilities(llama, sequence), log_probabilities(variant.handle, sequence)
        sums.append((float(kl_div(right, left, log_target=True, reduction="sum")), len(sequence) - 1))
    low, high = studentised(sums)
    assert rows[1].kl_low == pytest.approx(low, abs=0.1 * (high - low))
    assert rows[1].kl_high == pytest.approx(high, abs=0.1 * (high - low))


def test_the_ratio_of_perplexities_has_a_paired_interval(llama, variant, sequences, rows):
    """A second bootstrap over documents, both models on the same draw, gives nearly the same bounds."""
    lost = []
    for sequence in sequences:
        left, right = (log_probabilities(handle, sequence).gather(-1, sequence[1:].unsqueeze(-1)) for handle in (llama, variant.handle))
        lost.append((float((left - right).sum()), len(sequence) - 1))
    low, high = np.exp(studentised(lost))
    assert rows[1].ratio == pytest.approx(rows[1].perplexity / rows[0].perplexity, rel=1e-9)
    assert rows[1].ratio_low == pytest.approx(low, abs=0.1 * (high - low))
    assert rows[1].ratio_high == pytest.approx(high, abs=0.1 * (high - low))
    assert (rows[0].ratio, rows[0].ratio_low, rows[0].ratio_high) == (1.0, 1.0, 1.0)


def test_pieces_of_one_document_are_drawn_together(llama, variant, sequences):
    """The same sequences as halves of fewer documents say less: the interval is that of the sums over documents."""
    halves = [half for sequence in sequences for half in sequence.split(-(-len(sequence) // 2)) if len(half) > 1]
    numbers = [at for at, sequence in enumerate(sequences) for half in sequence.split(-(-len(sequence) // 2)) if len(half) > 1]
    paired, apart = (
        divergence(llama, [variant.handle], TextPart("test", "halves", halves, of))[1] for of in (numbers, list(range(len(halves))))
    )
    assert (paired.n_sequences, paired.n_documents) == (len(halves), len(set(numbers)))
    assert paired.kl == apart.kl
    assert (paired.kl_low, paired.kl_high) != (apart.kl_low, apart.kl_high)
    sums = {}
    for half, of in zip(halves, numbers, strict=True):
        left, right = log_probabilities(llama, half), log_probabilities(variant.handle, half)
        before = sums.get(of, (0.0, 0))
        sums[of] = (before[0] + float(kl_div(right, left, log_target=True, reduction="sum")), before[1] + len(half) - 1)
    low, high = studentised(list(sums.values()))
    assert (paired.kl_low, paired.kl_high) == pytest.approx((low, high), abs=0.1 * (high - low))


def test_every_figure_says_its_part_and_an_interval_that_is_none_says_why(llama, variant, sequences):
    plain = divergence(llama, [variant.handle], sequences[:12])[1]
    assert (plain.part, plain.text, plain.note) == ("given", "the text given", "")
    assert plain.measured_on == f"{plain.n_tokens:,} tokens of the text given (12 sequences)"
    few = divergence(llama, [variant.handle], TextPart("test", "nine", sequences[:9], list(range(9))))[1]
    assert [few.kl_low, few.kl_high, few.perplexity_low, few.perplexity_high, few.ratio_low, few.ratio_high] == [None] * 6
    assert few.kl > 0
    assert few.note == "No intervals: 9 sequence(s) are fewer than 10. Compare on more text."
    assert few.measured_on.endswith("test tokens of nine (9 sequences)")
    book = divergence(llama, [variant.handle], TextPart("test", "a book", sequences[:12], [0] * 12))[1]
    assert book.kl_low < book.kl < book.kl_high
    assert "pieces of 1 document(s), fewer than 10" in book.note
    for nothing in ([], [torch.tensor([5])]):
        with pytest.raises(InputError, match="no text to compare on"):
            divergence(llama, [variant.handle], nothing)


def test_any_system_can_be_the_reference(llama, variant, sequences, rows):
    turned = divergence(variant.handle, [llama], sequences)
    assert turned[0].kl == 0.0
    assert turned[1].perplexity == rows[0].perplexity
    assert turned[1].ratio == pytest.approx(1 / rows[1].ratio)
    assert turned[1].kl != pytest.approx(rows[1].kl, rel=1e-5), "KL has a direction"


def test_the_same_comparison_gives_the_same_intervals(llama, variant, sequences, rows):
    assert divergence(llama, [variant.handle], sequences) == rows


def test_a_comparison_can_be_cancelled_between_batches(llama, variant, sequences):
    seen = []

    class StopAtTheFirst:
        def update(self, done, total, unit, _what):
            seen.append((done, total, unit))
            if done:
                raise Cancelled("stopped by the test")

    with pytest.raises(Cancelled):
        divergence(llama, [variant.handle], sequences, StopAtTheFirst())
    assert [row[1:] for row in seen] == [(len(sequences), "sequences")] * 2
    assert seen[0][0] == 0 < seen[1][0] < len(sequences)


def test_token_differences_are_the_kl_at_each_place_and_sum_to_the_whole(llama, variant, texts):
    found = token_differences(llama, variant.handle, texts[0])
    ids = encode(llama, texts[0])
    assert len(found) == len(ids)
    assert found[0].kl == 0.0
    left, right = log_probabilities(llama, ids), log_probabilities(variant.handle, ids)
    places = kl_div(right, left, log_target=True, reduction="none").sum(-1)
    assert [d.kl for d in found[1:]] == pytest.approx(places.tolist(), rel=1e-6)
    for at, difference in enumerate(found[1:]):
        for tops, table in ((difference.top_original, left), (difference.top_other, right)):
            assert tops[0][1] == pytest.approx(float(table[at].exp().max()))
            assert [p for _, p in tops] == sorted((p for _, p in tops), reverse=True)
            assert len(tops) == 5


def generated(handle: ModelHandle, prompt: str, n: int, **options) -> list[int]:
    ids = encode(handle, prompt).unsqueeze(0)
    with handle.borrow() as model:
        out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=n, pad_token_id=0, **options)
    return out[0, ids.shape[1] :].tolist()


def test_a_greedy_stream_is_what_generate_gives(handle):
    expected = generated(handle, PROMPT, 25, do_sample=False)
    ends = {handle.tokenizer.eos_token_id}
    text = handle.tokenizer.decode([i for i in expected if i not in ends])
    assert "".join(stream(handle, PROMPT, 25)) == text.rstrip("\ufffd")


def test_a_sampled_stream_repeats_with_its_seed_and_changes_with_another(llama):
    first, again, other = ("".join(stream(llama, PROMPT, 20, temperature=1.0, seed=seed)) for seed in (3, 3, 4))
    assert first == again
    assert first != other
    assert first != "".join(stream(llama, PROMPT, 20))


def test_a_low_temperature_takes_the_likeliest_token_and_a_high_one_any(llama):
    cold, hot = ("".join(stream(llama, PROMPT, 20, temperature=temperature, seed=3)) for temperature in (1e-3, 1e3))
    assert cold == "".join(stream(llama, PROMPT, 20))
    assert hot != cold


def test_sampling_leaves_the_generators_of_the_process_alone(llama):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    list(stream(llama, PROMPT, 5, temperature=1.0))
    assert torch.equal(torch.rand(1), expected)


def chain(llama: ModelHandle, successors: dict[int, int]) -> ModelHandle:
    """A real llama whose blocks write nothing and whose head names the successor of each token: it writes a given text."""
    import copy

    with llama.borrow() as model:
        scripted = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    table = torch.nn.functional.normalize(torch.randn(320, 32, generator=generator), dim=-1)
    for block in scripted.model.layers:
        for layer in (block.mlp.down_proj, block.self_attn.o_proj):
            layer.weight.zero_()
            layer.bias.zero_()
    scripted.model.norm.weight.fill_(1.0)
    scripted.model.embed_tokens.weight.copy_(table)
    scripted.lm_head.weight.zero_()
    for token, successor in successors.items():
        scripted.lm_head.weight[successor] += table[token]
    return make_handle("scripted", scripted, llama.tokenizer, llama.family)


def byte_token(llama: ModelHandle, byte: int) -> int:
    """The token of one byte in a byte-level vocabulary: printable bytes stand for themselves, the others follow 255 in order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    symbol = chr(byte) if byte in printable else chr(256 + others.index(byte))
    token = llama.tokenizer.convert_tokens_to_ids(symbol)
    assert token != llama.tokenizer.unk_token_id
    return token


def script(llama: ModelHandle, data: bytes, end: bool = True) -> ModelHandle:
    """A model that answers 'a' with these bytes (all different), one token each."""
    tokens = [byte_token(llama, byte) for byte in b"a" + data] + ([llama.tokenizer.eos_token_id] if end else [])
    assert len(set(tokens)) == len(tokens)
    return chain(llama, dict(itertools.pairwise(tokens)))


def test_characters_of_several_bytes_arrive_whole(llama):
    text = "é€🙃z"
    pieces = list(stream(script(llama, text.encode()), "a", 30))
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)
    assert [p for p in pieces if p] == list(text)


def test_a_character_cut_off_by_the_end_of_the_text_is_not_shown_broken(llama):
    for data in ("ok–".encode()[:-1], "ok😀".encode()[:-2]):
        pieces = list(stream(script(llama, data), "a", 30))
        assert "".join(pieces) == "ok"
    pieces = list(stream(script(llama, "ok–".encode()), "a", 4))
    assert "".join(pieces) == "ok"


def test_text_after_bytes_that_are_no_character_is_still_shown(llama):
    pieces = "".join(stream(script(llama, b"o\xffk"), "a", 30))
    assert pieces.startswith("o")
    assert pieces.endswith("k")


def test_the_stream_stops_at_the_end_of_text_and_at_its_limit(llama):
    assert "".join(stream(script(llama, b"bcd"), "a", 30)) == "bcd"
    assert "".join(stream(script(llama, b"bcdefgh"), "a", 3)) == "bcd"
    assert list(stream(script(llama, b"bcd"), "a", 0)) == []


@pytest.mark.parametrize("prompt", ["", "  \n"])
def test_an_empty_prompt_is_an_error_that_asks_for_words(llama, prompt):
    for call in (lambda: list(stream(llama, prompt)), lambda: token_differences(llama, llama, prompt)):
        with pytest.raises(InputError, match="The prompt is empty; write a few words"):
            call()


def test_a_prompt_longer_than_the_context_is_an_error_with_both_numbers(llama):
    prompt = "w1 " * 300
    n = len(llama.tokenizer(prompt)["input_ids"])
    for call in (lambda: list(stream(llama, prompt)), lambda: token_differences(llama, llama, prompt)):
        with pytest.raises(InputError, match=rf"The prompt has {n} tokens, the model reads at most 256; shorten it"):
            call()


def test_a_stream_ends_at_the_end_of_the_context(llama):
    """The model was built for 256 positions: what it would write beyond them is not shown."""
    prompt = "a" * 250
    used = len(encode(llama, prompt))
    assert used < 256
    pieces = sum(1 for _ in stream(chain(llama, {byte_token(llama, ord("a")): byte_token(llama, ord("a"))}), prompt, 60))
    assert used + pieces <= 256


def test_a_writer_says_why_it_ended(llama):
    def ended(handle, prompt, n):
        writer = Writer(handle, prompt, n)
        while writer.ended is None:
            writer.step()
        return writer.ended, len(writer.tokens)

    assert ended(script(llama, b"bcd"), "a", 30) == ("end of text", 3)
    assert ended(script(llama, b"bcdefgh"), "a", 3) == ("limit", 3)
    assert ended(script(llama, b"bcd"), "a", 0) == ("limit", 0)
    endless = chain(llama, {byte_token(llama, ord("a")): byte_token(llama, ord("a"))})
    used = len(encode(llama, "a" * 250))
    assert ended(endless, "a" * 250, 60) == ("context full", 256 - used)


def test_speed_reports_positive_medians_and_the_true_sizes(llama, variant):
    found = [speed(handle, prompt_tokens=16, new_tokens=4) for handle in (llama, variant.handle)]
    for row, handle in zip(found, (llama, variant.handle), strict=True):
        assert row.prefill_ms > 0
        assert row.decode_tokens_per_s > 0
        assert row.repeats >= 3
        assert (row.n_parameters, row.n_bytes) == (handle.n_parameters, handle.n_bytes)
        assert row.prefill_range[0] <= row.prefill_ms <= row.prefill_range[1]
        assert row.decode_range[0] <= row.decode_tokens_per_s <= row.decode_range[1]
        assert (row.prompt_tokens, row.new_tokens) == (16, 4)
        with handle.borrow() as model:
            assert row.device == device_name(model)
    assert found[1].n_bytes < found[0].n_bytes


def test_the_cache_is_counted_as_the_model_keeps_it(llama, variant):
    """Keys and values of 2 heads of 8 features in float32, for every token that was read, in every block."""
    for handle in (llama, variant.handle):
        assert speed(handle, prompt_tokens=16, new_tokens=4).cache_bytes == 2 * 2 * 8 * 4 * (16 + 4) * handle.n_blocks


def test_several_models_are_timed_in_turns_and_can_be_cancelled(llama, variant):
    seen = []

    class StopAtFive:
        def update(self, done, total, _unit, what):
            seen.append((done, total, what))
            if done == 5:
                raise Cancelled("stopped by the test")

    with pytest.raises(Cancelled):
        speeds([llama, variant.handle], 8, 2, StopAtFive())
    names = [f"timing {llama.name}", f"timing {variant.handle.name}"]
    assert seen == [(at, 12, names[at % 2]) for at in range(6)]


def test_speed_fits_its_prompt_into_a_short_context(llama):
    assert speed(llama, prompt_tokens=10_000, new_tokens=4).prefill_ms > 0
