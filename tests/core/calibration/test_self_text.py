"""Text that a model writes itself: a row of a batch is what the model writes alone, draws repeat with their seed, and nothing is written twice."""

import copy
import dataclasses
from collections import Counter

import pytest
import torch

from replaceme_core import pipeline
from replaceme_core.calibration import sampling, self_prompts, self_store, self_text
from replaceme_core.calibration.sampling import Sampling, continued, drawn
from replaceme_core.calibration.self_text import Writing, own_texts, write
from replaceme_core.errors import Cancelled, InputError, NumericsError
from replaceme_core.models.loading import load
from replaceme_core.plans.plan import CalibrationSection, ModelSection
from tests.support.tiny_models import save_tiny

TEMPLATE = (
    "{% for message in messages %}<s>{{ message['role'] }}: {{ message['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant: {% endif %}"
)
PROMPTS = [[1, 30, 7, 99, 250, 31, 8], [1, 12], [1, 200, 201, 202, 17], [1], [1, 5, 5, 300]]
LIKELIEST = Sampling(temperature=1e-6)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REPLACEME_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def chatty(llama):
    """The tiny llama with a chat template."""
    tokenizer = copy.deepcopy(llama.tokenizer)
    tokenizer.chat_template = TEMPLATE
    return dataclasses.replace(llama, tokenizer=tokenizer)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_row_of_a_batch_is_what_the_model_writes_alone(handle, monkeypatch):
    """Padding on the left, positions, and rows that leave the cache early: a third of all tokens end a text here."""
    ends = set(range(0, 320, 3))
    monkeypatch.setattr(sampling, "end_tokens", lambda _handle: ends)
    together = continued(handle, PROMPTS, 20, LIKELIEST, seeded())
    alone = [continued(handle, [prompt], 20, LIKELIEST, seeded())[0] for prompt in PROMPTS]
    assert together == alone
    assert len(set(map(len, together))) > 1
    monkeypatch.setattr(sampling, "end_tokens", lambda _handle: set())
    together = continued(handle, PROMPTS, 20, LIKELIEST, seeded())
    assert [len(row) for row in together] == [20] * 5
    assert together == [continued(handle, [prompt], 20, LIKELIEST, seeded())[0] for prompt in PROMPTS]


def test_a_row_alone_is_what_transformers_generates(handle, monkeypatch):
    monkeypatch.setattr(sampling, "end_tokens", lambda _handle: set())
    with handle.borrow() as model:
        ids = torch.tensor([PROMPTS[0]])
        theirs = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0
        )
    assert continued(handle, [PROMPTS[0]], 12, LIKELIEST, seeded())[0] == theirs[0, len(PROMPTS[0]) :].tolist()


def test_a_draw_is_the_token_that_its_number_falls_on():
    """All numbers between 0 and 1 in small steps give every token as often as its chance is, within the most likely ones."""
    logits = torch.tensor([0.5, 0.05, 0.3, 0.1, 0.05]).log()
    numbers = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    counts = Counter(drawn(logits.expand(10_000, 5), numbers, Sampling(1.0, 0.85)).tolist())
    assert counts == {0: pytest.approx(5556, abs=1), 2: pytest.approx(3333, abs=1), 3: pytest.approx(1111, abs=1)}
    colder = Counter(drawn(logits.expand(10_000, 5), numbers, Sampling(0.5, 1.0)).tolist())
    squares = torch.tensor([0.25, 0.0025, 0.09, 0.01, 0.0025]) / 0.355
    assert all(colder[token] == pytest.approx(10_000 * float(share), abs=1.5) for token, share in enumerate(squares))
    assert drawn(logits.expand(2, 5), torch.tensor([0.0, 1.0]), Sampling(1.0, 1.0)).tolist() == [
        0,
        drawn(logits[None], numbers[-1:], Sampling(1.0, 1.0)).item(),
    ]


def test_text_repeats_with_its_seed_and_no_round_is_one_of_another_seed(llama):
    first = write(llama, Writing("prose", 3000, 24, seed=3))
    assert first == write(llama, Writing("prose", 3000, 24, seed=3))
    others = write(llama, Writing("prose", 3000, 24, seed=19))
    assert len(first.rows) > self_text._BATCH
    assert len(set(first.rows)) == len(first.rows)
    assert not set(first.rows) & set(others.rows)
    assert first.n_tokens >= 3000


def test_a_shorter_text_is_what_a_longer_one_begins_with(llama):
    longer = write(llama, Writing("prose", 1200, 24)).rows
    assert write(llama, Writing("prose", 500, 24)).rows == longer[: len(write(llama, Writing("prose", 500, 24)).rows)]


def test_the_generators_of_the_process_are_left_alone(llama, monkeypatch):
    for seeding in ("torch.manual_seed", "torch.cuda.manual_seed_all", "torch.mps.manual_seed"):
        monkeypatch.setattr(seeding, lambda _seed, seeding=seeding: pytest.fail(f"{seeding} reseeds a generator of the process"))
    before = torch.random.get_rng_state()
    write(llama, Writing("prose", 100, 24))
    assert torch.equal(before, torch.random.get_rng_state())


def test_text_is_not_bent_by_the_settings_a_model_was_published_with(llama, monkeypatch):
    plain = write(llama, Writing("prose", 200, 24))
    with llama.borrow() as model:
        monkeypatch.setattr(model.generation_config, "repetition_penalty", 5.0)
    assert write(llama, Writing("prose", 200, 24)) == plain


def test_chats_alternate_and_are_tokenised_by_the_template(chatty):
    found = write(chatty, Writing("chats", 1500, 24))
    for chat in found.rows:
        assert [turn["role"] for turn in chat] == ["user", "assistant"] * (len(chat) // 2)
        assert all(turn["content"].strip() for turn in chat)
    asked = {chat[0]["content"] for chat in found.rows}
    assert asked <= {frame.format(topic) for frame in self_prompts.QUESTIONS for topic in self_prompts.TOPICS}
    section = CalibrationSection(source="self:chats", max_tokens=600, max_length=64)
    calibration = pipeline.prepare_for(chatty, section)
    assert 540 < calibration.n_tokens <= 600, "the test part takes whole texts, so that a few tokens are missing"
    assert calibration.n_test_tokens > 0
    assert all(sequence.tolist()[:2] != [1, 1] for sequence in calibration.sequences)


def test_a_second_question_follows_only_an_answer_that_came_to_its_end(chatty, monkeypatch):
    """Answers of two lengths: one that the limit cut, and one that ended."""
    monkeypatch.setattr(
        self_text,
        "continued",
        lambda _handle, prompts, room, *_rest: [list(range(3, 3 + (room if i % 2 else 12))) for i in range(len(prompts))],
    )
    monkeypatch.setattr(self_text.self_prompts, "chats", lambda _seed: iter([["one?", "and?"]] * 64))
    turns = {
        len(chat)
        for chat, _answers in next(self_text._rounds(chatty, Writing("chats", 10**6, 24), self_text._Count(1, self_text.SILENT)))[::2]
    }
    cut = {
        len(chat)
        for chat, _answers in next(self_text._rounds(chatty, Writing("chats", 10**6, 24), self_text._Count(1, self_text.SILENT)))[1::2]
    }
    assert turns == {4}
    assert cut == {2}


def test_what_repeats_itself_is_dropped_counted_and_never_for_ever(llama_folder):
    assert self_text._is_sound(list(range(40)))
    assert not self_text._is_sound([5, 6, 7] * 20)
    assert not self_text._is_sound([5, 6, 7])
    stuck = load(ModelSection(path=str(llama_folder)))
    with stuck.borrow() as model:
        model.lm_head.weight.zero_()
        model.lm_head.bias = torch.nn.Parameter(torch.full((320,), -1e4).index_fill(0, torch.tensor([50]), 0.0), requires_grad=False)
    with pytest.raises(InputError, match=r"writes nothing that can be used: 128 texts are all but empty or repeat themselves"):
        write(stuck, Writing("prose", 100, 24))


def test_chances_that_are_not_finite_are_a_sentence(llama_folder):
    handle = load(ModelSection(path=str(llama_folder)))
    with handle.borrow() as model:
        model.lm_head.weight.fill_(torch.nan)
    with pytest.raises(NumericsError, match="not finite, so it cannot write text"):
        write(handle, Writing("prose", 100, 24))


def test_text_stays_within_the_context_of_the_model(tmp_path, monkeypatch):
    handle = load(ModelSection(path=str(save_tiny(tmp_path, "llama", max_position_embeddings=48))))
    seen = []
    monkeypatch.setattr(self_text, "continued", lambda *given: seen.extend(len(p) + given[2] for p in given[1]) or continued(*given))
    write(handle, Writing("prose", 300, 400))
    assert max(seen) <= 48


def test_chats_need_a_template_and_kinds_have_names(llama, chatty):
    with pytest.raises(InputError, match="has no chat template, so it cannot write chats; let it write prose"):
        write(llama, Writing("chats", 100, 24))
    with pytest.raises(InputError, match="writes no 'verses'; choose self:chats or self:prose"):
        own_texts(llama, CalibrationSection(source="self:verses"))
    assert self_text.writing_of(CalibrationSection(source="self"), llama.tokenizer).kind == "prose"
    assert self_text.writing_of(CalibrationSection(source="self"), chatty.tokenizer).kind == "chats"


class _Stop:
    def __init__(self, after: int) -> None:
        self.left, self.seen = after, []

    def update(self, done, total, unit, _what):
        self.seen.append((done, total, unit))
        self.left -= 1
        if self.left == 0:
            raise Cancelled("stopped")


def test_it_stops_within_a_token_says_how_far_it_is_and_leaves_the_model_free(llama):
    stop = _Stop(5)
    with pytest.raises(Cancelled):
        write(llama, Writing("prose", 10_000, 24), stop)
    assert len(stop.seen) == 5
    done = [seen for seen, total, unit in stop.seen if (total, unit) == (10_000, "tokens")]
    assert done == sorted(done)
    assert 0 < done[0] <= 32
    assert 4 * 24 < done[-1] <= 5 * 32
    with llama.borrow() as model:
        assert not model.model.layers[0]._forward_hooks


def test_what_was_written_is_found_again_by_weights_and_settings(llama, llama_folder, monkeypatch, caplog):
    section = CalibrationSection(source="self", max_tokens=600, max_length=24, seed=1)
    first = own_texts(llama, section)
    with monkeypatch.context() as patched:
        patched.setattr(self_text, "write", lambda *_args: pytest.fail("it was written before"))
        assert own_texts(llama, section) == first
        assert own_texts(load(ModelSection(path=str(llama_folder))), section) == first
        assert own_texts(llama, section.model_copy(update={"max_tokens": 300})) == first
    written = []
    monkeypatch.setattr(self_text, "write", lambda *args: written.append(args[1]) or write(*args))
    for change in ({"seed": 2}, {"max_tokens": 2000}, {"max_length": 23}):
        own_texts(llama, section.model_copy(update=change))
    with llama.borrow() as model, torch.no_grad():
        model.lm_head.weight[7] += 1e-3
    try:
        own_texts(dataclasses.replace(llama, fingerprint="other"), section)
    finally:
        with llama.borrow() as model, torch.no_grad():
            model.lm_head.weight[7] -= 1e-3
    assert len(written) == 4
    path = self_store._path(llama, self_text.writing_of(section.model_copy(update={"seed": 2}), llama.tokenizer))
    path.write_text('{"rows": [')
    own_texts(llama, section.model_copy(update={"seed": 2}))
    assert "is damaged" in caplog.text
    assert len(written) == 5


def test_a_cache_that_cannot_be_written_costs_only_the_keeping(llama, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("REPLACEME_CACHE", str(tmp_path / "file"))
    assert own_texts(llama, CalibrationSection(source="self", max_tokens=100, max_length=24))


def test_a_text_that_the_limit_cut_ends_with_its_last_whole_sentence():
    assert self_text._trimmed("One. Two. Thr", True) == "One. Two."
    assert self_text._trimmed("One. Two. Thr", False) == "One. Two. Thr"
    assert self_text._trimmed("One. Two two two two two two", True) == "One. Two two two two two two"
    assert self_text._trimmed("A beginning of ours. And the model goes", True, 20) == "A beginning of ours. And the model goes"
