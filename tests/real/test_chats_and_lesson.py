"""SmolLM2 as a chat model: lm-eval's own figures in its template, one BOS everywhere, held-out chats as prompts; and the lesson's figures of it."""

import json

import pytest
import torch

from demo import lesson_traces
from demo.lesson_courses import SMOLLM2
from demo.lesson_tails import Tails
from replaceme_core import solvers
from replaceme_core.artifacts import Span
from replaceme_core.calibration.calibration import prepare
from replaceme_core.comparison.chats import chat_prompt, heldout_openings, message_of
from replaceme_core.comparison.compare import encode, stream
from replaceme_core.comparison.texts import comparison_text
from replaceme_core.evaluation.evaluate import evaluate
from replaceme_core.evaluation.task_files import shipped_tasks
from replaceme_core.measurement.measure import measure
from replaceme_core.plans.plan import CalibrationSection, EvaluationSection

LIMIT = 4


@pytest.mark.parametrize("told", [{"apply_chat_template": True, "system_instruction": "Answer in a few words."}, {}], ids=["chat", "plain"])
def test_benchmarks_are_lm_evals_own_on_its_own_model(smol, told, monkeypatch):
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda _results: None)
    with smol.borrow() as model:
        theirs = lm_eval.simple_evaluate(
            model=HFLM(pretrained=model, tokenizer=smol.tokenizer, batch_size=4, device="cpu"),
            tasks=[shipped_tasks("plain")["plain_capitals"]],
            task_manager=TaskManager(include_defaults=False),
            limit=LIMIT,
            bootstrap_iters=1000,
            **told,
        )
    ours = evaluate(smol, EvaluationSection(tasks="plain:capitals", limit=LIMIT, batch_size=4, **told), reuse=False)
    assert ours.results["plain_capitals"]["acc_norm"].value == theirs["results"]["plain_capitals"]["acc_norm,none"]
    for sample, row in zip(ours.samples["plain_capitals"], theirs["samples"]["plain_capitals"], strict=True):
        assert sample.text == row["arguments"][0][0]
        assert sample.logliks == pytest.approx([answer[0] for answer in row["filtered_resps"]], abs=1e-4)
        assert sample.text.startswith("<|im_start|>system\nAnswer in a few words.") is bool(told)


def test_a_chat_is_read_with_the_tokens_of_the_template_and_answers(smol):
    prompt = chat_prompt(smol.tokenizer, ["What is the capital of France?"])
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    expected = smol.tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    for text in (prompt, str(prompt), chat_prompt(smol.tokenizer, [str(prompt)])):
        assert encode(smol, text).tolist() == expected
    assert "Paris" in "".join(stream(smol, prompt, 12))


def test_held_out_chats_are_prompts_that_end_where_it_is_to_answer(smol):
    found = prepare(CalibrationSection(source="smollm2:chats", max_tokens=2048), smol.tokenizer)
    openings = heldout_openings(found, smol.tokenizer)
    assert len(openings) == sum(found.heldout)
    assert all(text.endswith("<|im_end|>\n<|im_start|>assistant\n") for text in openings)
    rows = [row for row, out in zip(found.sequences, found.heldout, strict=True) if out]
    for text, row in zip(openings, rows, strict=True):
        ids = encode(smol, text)
        assert torch.equal(ids, row[: len(ids)]), "the very tokens of the held-out text"
        assert chat_prompt(smol.tokenizer, [message_of(text, smol.tokenizer)]) == text, (
            "its message, put in the template, is the text again"
        )


def test_the_bundled_lesson_is_measured_on_this_model(smol):
    """Removals without a fit, some of which a pass over a few tokens tells as well as a long one."""
    kept = {(row["span"], row["method"]): row for row in bundled("removals")["rows"]}
    calibration = prepare(SMOLLM2.calibration, smol.tokenizer)
    text = comparison_text(smol, SMOLLM2.path, calibration, SMOLLM2.test_tokens)
    assert bundled("matrix")["made"]["heldout_tokens"] == sum(len(row) - 1 for row in text.sequences)
    spans = [Span(14, 15), Span(20, 28)]
    few = measure(smol, calibration.first(256), spans=spans)
    tails = Tails(smol, text)
    for span in spans:
        found = lesson_traces.row(solvers.fit(few, span, "drop"), tails.measure(solvers.fit(few, span, "drop")))
        for name in ("kl", "low", "high", "perplexity", "agreement"):
            assert found[name] == pytest.approx(kept[str(span), "drop"][name], rel=1e-2), (span, name)


def test_the_bundled_texts_are_what_the_original_writes(smol):
    for row in bundled("texts")["rows"]:
        if row["method"] == "original":
            assert "".join(stream(smol, row["prompt"], SMOLLM2.new_tokens)) == row["text"]


def bundled(name):
    return json.loads((lesson_traces.TARGET / "smollm2" / f"{name}.json").read_text(encoding="utf-8"))
