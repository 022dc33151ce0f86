"""Requests in rows give what a plain pass of each gives: branches, cached beginnings, shared blocks; what cannot is asked otherwise."""

import copy
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from replaceme_core.artifacts import Cut, ModelHandle, Span
from replaceme_core.errors import Cancelled, NumericsError
from replaceme_core.evaluation import shared_requests, store
from replaceme_core.evaluation.evaluate import evaluate, evaluate_all, known, require_all
from replaceme_core.evaluation.packed_rows import Packed
from replaceme_core.evaluation.prefix_tree import Request, plan
from replaceme_core.evaluation.shared_requests import Answers
from replaceme_core.models.architecture import families
from replaceme_core.models.loading import make_handle
from replaceme_core.plans.plan import EvaluationSection
from replaceme_core.storage.cache import CACHE
from replaceme_core.surgery import surgery
from tests.core.evaluation.test_evaluate import write_tasks
from tests.support.family_configs import FAMILIES
from tests.support.straight import log_probabilities


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty store of its own, as a new process finds it."""
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    monkeypatch.setattr(store, "_kept", {})


def some_requests(seed: int = 0) -> list[Request]:
    """Three prompts, two of them with 40 tokens in common; choices of 1 to 4 tokens, some the beginning of others; a text by itself."""
    drawn = torch.Generator().manual_seed(seed)

    def tokens(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(5, 60, (n,), generator=drawn).tolist())

    examples, choices = tokens(40), [tokens(4), tokens(1), tokens(3)]
    choices += [choices[0][:2], (*choices[0][:3], 7)]
    prompts = [examples + tokens(6), examples + tokens(9), tokens(5)]
    found = [Request((*prompt, *choice), len(choice)) for prompt in prompts for choice in choices]
    return [*found, Request(tokens(50), 49)]


def plainly(handle: ModelHandle, request: Request) -> tuple[float, bool]:
    """By a second route: one pass over one request, in float64."""
    said = log_probabilities(handle, torch.tensor(request.tokens))[-request.scored :]
    wanted = torch.tensor(request.tokens[-request.scored :])
    return float(said.gather(1, wanted[:, None]).sum()), bool((said.argmax(-1) == wanted).all())


def cut(handle: ModelHandle, span: Span) -> ModelHandle:
    with handle.borrow() as model:
        return make_handle(str(span), surgery.cut(model, handle.family, Cut.of((span,))), handle.tokenizer, handle.family)


class _Silent:
    def update(self, *_):
        pass


@pytest.mark.parametrize(("positions", "most"), [(20, None), (64, None), (400, 3), (400, None)])
def test_every_token_of_every_text_is_in_the_plan_once_at_its_place(positions, most):
    """The plan written back: each request's tokens are found along its path, and no shared beginning is laid out twice in one row."""
    requests = some_requests()
    stages, rows = [plan(requests, positions, most)], []
    while stages:
        stage = stages.pop()
        rows += [*([stage.row] if stage.row else []), *stage.rows]
        stages += stage.stages
        if stage.row:
            assert stage.row.is_chain
    asked = sorted((number, token) for row in rows for _, token, number in row.asked)
    assert asked == sorted((number, token) for number, each in enumerate(requests) for token in each.tokens[-each.scored :])
    assert sorted(number for row in rows for number in row.requests) == list(range(len(requests)))
    for row in rows:
        mask = Packed([row], row.base, keep=False)._mask(torch.float32, torch.device("cpu"))[0, 0] == 0
        assert (mask.sum(-1) == torch.tensor(row.positions) + 1).all(), "a token sees exactly what stands before it in its text, and itself"
        paths = {tuple(torch.tensor(row.tokens)[seen[row.base :]].tolist()) for seen in mask}
        assert len(paths) == len(row.tokens), "the same beginning stands once"
    if most:
        assert max(len(row.requests) for row in rows) <= most + 2, "texts that are the same but for their last token stay together"


def test_what_is_known_of_one_pass_holds_for_every_row_and_every_model(llama, monkeypatch):
    """Small rows, so that the shared examples are cached; the cut and a cut of the cut are answered on the way, with shared blocks."""
    monkeypatch.setattr(shared_requests, "POSITIONS", 30)
    handles = [llama, cut(llama, Span(2, 4)), cut(llama, Span(3, 5))]
    requests = some_requests()
    answers = Answers(handles)
    answers.begin(dict.fromkeys(range(3), _Silent()))
    first = answers.ask(0, requests, len(requests))
    together = answers._together[0, 1, 2]
    assert together.shared == [0, 2, 3]
    monkeypatch.setattr(Answers, "_run", None)  # the others are known by now
    for handle, found in zip(handles, [first, *(answers.ask(number, requests, len(requests)) for number in (1, 2))], strict=True):
        for request, (said, greedy) in zip(requests, found, strict=True):
            plain, likeliest = plainly(handle, request)
            assert said == pytest.approx(plain, abs=1e-4)
            assert greedy == likeliest


def test_several_rows_in_one_pass_are_what_they_are_alone(llama, monkeypatch):
    monkeypatch.setattr(shared_requests, "POSITIONS", 30)
    requests, found = some_requests(1), []
    for at_once in (1, 3):
        run = shared_requests._Run(shared_requests.Together([llama], torch.arange(5, 20)), requests, at_once, lambda _n: None)
        run.walk(plan(requests, 30), None)
        found.append([said for said, _ in run.answers()[0]])
    assert found[0] == pytest.approx(found[1], abs=1e-4)


@pytest.mark.parametrize(
    ("kind", "rows"),
    [("llama", True), ("gpt2", True), ("gemma2", False), ("mistral", False), ("bloom", False), ("qwen3_next", False)],
)
def test_whatever_the_family_answers_are_those_of_a_plain_pass_or_there_are_none(kind, rows, llama, monkeypatch):
    """Learned positions; windows shorter than the texts, a bias instead of positions, states: rows are right, or are found not to be."""
    monkeypatch.setattr(shared_requests, "POSITIONS", 30)
    torch.manual_seed(3)
    config = FAMILIES[kind]()
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    handle = make_handle(kind, model, llama.tokenizer, families.find(config))
    requests, answers = some_requests(2), Answers([handle])
    answers.begin({0: _Silent()})
    found = answers.ask(0, requests, len(requests))
    assert (found is not None) == rows
    for request, (said, _) in zip(requests, found or [], strict=False):
        assert said == pytest.approx(plainly(handle, request)[0], abs=2e-4)


def test_a_task_on_three_models_is_lm_evals_own_item_by_item_and_each_is_shown_when_it_is_done(llama, tmp_path):
    """Multiple choice with two solved examples and rolling text, on the original and two cuts at once, against lm-eval's batches."""
    folder, _ = write_tasks(tmp_path / "tasks", num_fewshot=2)
    handles = [llama, cut(llama, Span(2, 4)), cut(llama, Span(3, 5))]
    section = EvaluationSection(tasks=str(folder), limit=6, batch_size=4)
    shown: list[tuple[int, list[str]]] = []
    found = require_all(
        evaluate_all(handles, section, finished=lambda number: shown.append((number, list(known(handles[number], section).results))))
    )
    assert shown == [(n, ["toy_choice"]) for n in range(3)] + [(n, ["toy_choice", "toy_perplexity"]) for n in range(3)]
    exact = section.model_copy(update={"exact": True})
    assert known(llama, exact).missing == ["toy_choice", "toy_perplexity"], "results of one way do not stand for those of the other"
    for handle, scores in zip(handles, found, strict=True):
        theirs = evaluate(handle, exact)
        for mine, other in zip(scores.samples["toy_choice"], theirs.samples["toy_choice"], strict=True):
            assert mine.logliks == pytest.approx(other.logliks, abs=1e-3)
            assert (mine.answer, mine.correct) == (other.answer, other.correct)
        bits = [each.results["toy_perplexity"]["bits_per_byte"].value for each in (scores, theirs)]
        assert bits[0] == pytest.approx(bits[1], abs=1e-5)


def test_one_model_that_fails_leaves_the_others_and_a_cancelled_run_ends(llama, tmp_path):
    """A model of NaN: the original's answers are not lost with it; its own sentence names it."""
    folder, _ = write_tasks(tmp_path / "tasks")
    broken = replace(cut(llama, Span(2, 4)), name="broken", fingerprint="broken", _model=copy.deepcopy(llama._model))
    with torch.no_grad():
        broken._model.model.norm.weight.fill_(float("nan"))
    section = EvaluationSection(tasks=str(folder), limit=3, batch_size=4)
    whole, error = evaluate_all([llama, broken], section)
    assert not whole.missing
    assert "'broken' are not finite" in str(error)
    with pytest.raises(NumericsError, match="'broken'"):
        require_all([whole, error])
    with pytest.raises(Cancelled):
        evaluate_all([llama, broken], section, _Cancel(), reuse=False)


class _Cancel(_Silent):
    def update(self, done, *_):
        if done:
            raise Cancelled("stopped by the test")
