"""Refits: replayed blocks equal the model's own pass, every family passes its proofs, no step does harm on held-out tokens."""

import copy
import functools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from replaceme_core import pipeline, refit
from replaceme_core.artifacts import Cut, LinearTransform, ModelHandle, Span
from replaceme_core.calibration.batches import batches, inputs_of
from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.errors import FamilyError, InputError, ModelError, NumericsError
from replaceme_core.export import export
from replaceme_core.measurement.measure import measure
from replaceme_core.models.architecture import families
from replaceme_core.models.architecture.families import blocks_of
from replaceme_core.models.loading import make_handle
from replaceme_core.models.running import capture
from replaceme_core.plans.plan import MethodSection, PruningPlan
from replaceme_core.refit import streams, walk
from replaceme_core.surgery import surgery
from tests.core.models.test_families import MERGEABLE, handle_of
from tests.support.family_configs import even_tokens, random_tokens

SPAN = Span(2, 4)
intact = functools.cache(handle_of)
"""a model of a family for tests that must leave it as it is"""


@pytest.fixture(scope="module")
def tokens() -> CalibrationSet:
    return random_tokens(3)


def heldout_error(handle: ModelHandle, other: ModelHandle, boundary: int, own: int, tokens: CalibrationSet, power: int = 2) -> float:
    """Second route: whole forward passes of both models, one sequence at a time, fp64; token weights 1/|target|^power."""
    missed = aimed = 0.0
    for sequence, out in zip(tokens.sequences, tokens.heldout, strict=True):
        if out:
            with handle.borrow() as model, other.borrow() as pruned:
                goal = capture.read_states(model, handle.family, sequence[None], None).boundaries[boundary][0].double()
                found = capture.read_states(pruned, other.family, sequence[None], None).boundaries[own][0].double()
            weight = goal.norm(dim=-1) ** -power
            missed += float(weight @ (found - goal).square().sum(-1))
            aimed += float(weight @ goal.square().sum(-1))
    return missed / aimed


@pytest.fixture(scope="module")
def even() -> CalibrationSet:
    """In few batches, for every family."""
    return even_tokens(3)


@pytest.mark.parametrize("name", MERGEABLE)
def test_blocks_called_one_by_one_give_the_models_own_stream(name, even):
    handle = intact(name)
    batch = next(b for b in batches(even.lengths, 200) if len({even.lengths[i] for i in b}) > 1 or len(b) > 1)
    inputs, mask = inputs_of(even, batch)
    with handle.borrow() as model, torch.no_grad():
        whole = capture.read_states(model, handle.family, inputs, mask).boundaries
        calls, streams = capture.read_calls(model, handle.family, inputs, mask, {0, 6})
        stream = streams[0]
        for block, call in zip(blocks_of(model, handle.family), calls, strict=True):
            before = stream.clone()
            following = call.run(block, stream)
            assert torch.equal(stream, before)
            stream = following
    real = mask.bool()
    assert torch.equal(streams[6][real], whole[6][real])
    assert torch.allclose(stream[real], whole[6][real], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MERGEABLE)
def test_every_family_is_refitted_and_proved(name, even):
    handle = intact(name)
    if handle.family.merge == "diagonal":
        with pytest.raises(FamilyError, match="a norm stands behind every layer"):
            refit.fit(handle, even, SPAN, "sequential_refit")
        return
    with handle.borrow() as model:
        before = copy.deepcopy(model.state_dict())
    fitted = refit.fit(handle, even, SPAN, MethodSection(name="sequential_refit", lookahead=1))
    variant = surgery.prune(handle, fitted, name)
    assert fitted.weights
    assert all(proof.passed for proof in variant.proofs)
    assert {step.block for step in fitted.steps} <= {0, 1, 4, 5}
    assert all(step.after < step.before for step in fitted.steps)
    with handle.borrow() as model:
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["llama", "gpt2", "mixtral", "gemma2", "falcon"])
def test_gradient_steps_lower_the_held_out_error_of_every_kind_of_block(name, tokens):
    handle = handle_of(name)
    fitted = refit.fit(handle, tokens, SPAN, MethodSection(name="deep_refit", lookahead=0, max_iterations=5))
    steps = [step for step in fitted.steps if step.ridge is None]
    assert steps
    assert all(step.after <= step.before for step in steps)
    assert all(proof.passed for proof in surgery.prune(handle, fitted, name).proofs)


@pytest.mark.parametrize("method", ["refit", "local_refit", "exchange_refit", "sequential_refit"])
@pytest.mark.parametrize("span", [Span(2, 4), Span(1, 3), Span(4, 6)])
def test_the_reported_errors_are_those_of_the_merged_model(method, span, tokens):
    handle = handle_of("llama")
    section = MethodSection(name=method, lookahead=0) if method == "sequential_refit" else MethodSection(name=method)
    fitted = refit.fit(handle, tokens, span, section)
    pruned = surgery.prune(handle, fitted, "x").handle
    at_cut = heldout_error(handle, pruned, span.end, span.start, tokens)
    removed = surgery.prune(handle, LinearTransform(span, "drop", None, fitted.report), "y").handle
    share = at_cut / heldout_error(handle, removed, span.end, span.start, tokens)
    assert fitted.report.heldout_error / fitted.report.removal_error == pytest.approx(share, rel=1e-4)
    assert share < 1
    last = [step.after for step in fitted.steps if step.block == max(s.block for s in fitted.steps)][-1]
    end = {"refit": span.end, "sequential_refit": 6}.get(method, min(6, span.end + 1))
    assert last == pytest.approx(heldout_error(handle, pruned, end, end - len(span), tokens, power=1), rel=1e-4)


def test_a_family_that_adds_a_part_of_m_is_refitted_as_one_whose_weights_hold_that_part(tokens):
    """Granite adds its residual_multiplier times M. Second route: the same model with the multiplier in its weights."""
    handle = handle_of("granite")
    with handle.borrow() as model:
        whole = copy.deepcopy(model)
    share = whole.config.residual_multiplier
    whole.config.residual_multiplier = 1.0
    for layer in whole.model.layers:
        layer.residual_multiplier = 1.0
        layer.self_attn.o_proj.weight.data *= share
        layer.mlp.down_proj.weight.data *= share
    other = make_handle("granite", whole, handle.tokenizer, handle.family)
    ours, theirs = (refit.fit(each, tokens, Span(2, 4), "refit") for each in (handle, other))
    assert ours.report.heldout_error == pytest.approx(theirs.report.heldout_error, rel=1e-4)
    assert ours.report.heldout_error < ours.report.removal_error
    assert ours.weights.keys() == theirs.weights.keys() != set()
    for name, weight in ours.weights.items():
        torch.testing.assert_close(weight * share, theirs.weights[name], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("span", "best"), [(Span(2, 4), 0), (Span(4, 6), 1)], ids=str)
def test_the_block_before_does_half_of_the_way_only_where_that_comes_nearer_to_the_end(span, best, tokens):
    handle = handle_of("llama")
    around, alone = (refit.fit(handle, tokens, span, name) for name in ("local_refit", "refit"))
    errors = around.lookaheads
    assert (set(errors), min(errors, key=errors.__getitem__)) == ({0, 1}, best)
    assert (best == 1) == any(name.startswith(f"{span.carrier - 1}.") for name in around.weights)
    assert (best == 0) == any("left as it is" in note for note in around.report.remarks)
    pruned, other = (surgery.prune(handle, fitted, "x").handle for fitted in (around, alone))
    found, carrier = (heldout_error(handle, each, span.end, span.start, tokens) for each in (pruned, other))
    assert found == pytest.approx(errors[best], rel=1e-4)
    assert carrier == pytest.approx(errors[0], rel=1e-4), "without the block before, it is the carrier alone"


@pytest.mark.parametrize(
    ("cut", "solved"),
    [
        (Cut.of([Span(2, 4)]), {0, 1, 4}),
        (Cut.of([Span(1, 3)]), {0, 3}),
        (Cut.of([Span(4, 6)]), {2, 3}),
        (Cut.of([Span(1, 2), Span(4, 5)]), {0, 2, 3, 5}),
    ],
    ids=str,
)
def test_a_refit_around_the_cut_solves_the_carrier_and_its_neighbours(cut, solved, tokens):
    handle = handle_of("llama")
    fitted = refit.fit(handle, tokens, cut, "local_refit")
    before = {cut.spans[0].carrier - 1} if fitted.lookaheads[0] <= min(fitted.lookaheads.values()) else set()
    assert {int(name.partition(".")[0]) for name in fitted.weights} == solved - before
    assert set(walk.reach(cut, MethodSection(name="local_refit"), handle.n_blocks)) == solved
    assert len(solved) <= refit.n_solved("local_refit", handle.n_blocks - len(cut), len(cut.spans))
    assert all(proof.passed for proof in surgery.prune(handle, fitted, "x").proofs)
    again = refit.fit(handle, tokens, cut, MethodSection.parse(fitted.settings))
    assert all(torch.equal(value, again.weights[key]) for key, value in fitted.weights.items())


def test_a_sequential_refit_ends_closer_to_the_intact_model_than_one_of_the_carrier(tokens):
    handle = handle_of("llama")
    ends = {
        method: heldout_error(handle, surgery.prune(handle, refit.fit(handle, tokens, SPAN, method), method).handle, 6, 4, tokens)
        for method in ("refit", "sequential_refit")
    }
    assert ends["sequential_refit"] < ends["refit"]


def test_nothing_changes_where_removal_costs_nothing(tokens):
    handle = handle_of("llama")
    with handle.borrow() as model, torch.no_grad():
        for number in SPAN.blocks:
            for parameter in (model.model.layers[number].self_attn.o_proj.weight, *model.model.layers[number].mlp.down_proj.parameters()):
                parameter.zero_()
    fitted = refit.fit(handle, tokens, SPAN, "refit")
    assert fitted.weights == {}
    assert fitted.report.heldout_error == pytest.approx(0, abs=1e-12)
    assert any("No change of the carrier" in note for note in fitted.report.notes)


def test_without_the_attention_only_the_writers_change(tokens):
    fitted = refit.fit(handle_of("llama"), tokens, SPAN, MethodSection(name="sequential_refit", lookahead=0, attention=False))
    assert set(fitted.weights) == {f"{block}.mlp.down_proj.weight" for block in (1, 4, 5)}


def test_the_recipe_repeats_the_weights_bit_for_bit(tokens):
    handle = handle_of("llama")
    first = refit.fit(handle, tokens, SPAN, "sequential_refit")
    again = refit.fit(handle, tokens, SPAN, MethodSection.parse(first.settings))
    assert "lookahead" in first.settings
    assert first.weights.keys() == again.weights.keys()
    assert all(torch.equal(value, again.weights[key]) for key, value in first.weights.items())


def test_bfloat16_weights_stay_in_their_dtype(tokens):
    handle = handle_of("llama")
    with handle.borrow() as model:
        model.bfloat16()
    handle = replace(handle, dtype="bfloat16")
    fitted = refit.fit(handle, tokens, SPAN, MethodSection(name="deep_refit", lookahead=0, max_iterations=5))
    assert {value.dtype for value in fitted.weights.values()} == {torch.bfloat16}
    assert fitted.report.heldout_error < fitted.report.removal_error
    assert all(proof.passed for proof in surgery.prune(handle, fitted, "x").proofs)


def test_what_does_not_fit_the_budget_is_left_out_and_said(tokens):
    handle = handle_of("llama")
    budget = 300 * streams.stream_bytes(handle.width, 4)
    fitted = refit.fit(handle, tokens, SPAN, "refit", budget)
    assert fitted.report.n_tokens + fitted.report.n_heldout_tokens <= 300
    assert any("The free memory holds the streams of" in note for note in fitted.report.notes)
    with pytest.raises(InputError, match="too few for a train and a held-out"):
        refit.fit(handle, tokens, SPAN, "refit", 10 * streams.stream_bytes(handle.width, 4))
    with pytest.raises(NumericsError, match="Free memory, or choose"):
        refit.fit(handle, tokens, SPAN, MethodSection(name="deep_refit", lookahead=0), 62 * streams.stream_bytes(handle.width, 4))


def test_bad_settings_are_sentences(tokens):
    handle = handle_of("llama")
    with pytest.raises(InputError, match="Choose 0 to 1"):
        refit.fit(handle, tokens, SPAN, MethodSection(name="sequential_refit", lookahead=2))
    with pytest.raises(InputError, match="not fitted in sequence"):
        refit.fit(handle, tokens, SPAN, "cosine")
    with pytest.raises(ModelError, match="held quantised"):
        refit.fit(replace(handle, checkpoint=Path("somewhere")), tokens, SPAN)


def test_activations_that_are_not_finite_are_an_error(tokens):
    handle = handle_of("llama")
    with handle.borrow() as model, torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight[0, 0] = torch.inf
    with pytest.raises(NumericsError, match="not finite"):
        refit.fit(handle, tokens, SPAN, "refit")


def test_others_can_use_the_model_while_a_refit_runs(tokens):
    """Every report of progress comes at a moment when the original is not lent out."""
    handle, lent = handle_of("llama"), []

    class Watch:
        def update(self, *_: object) -> None:
            thread = threading.Thread(target=lambda: lent.append(handle._lock.acquire(timeout=5) and handle._lock.release() is None))
            thread.start()
            thread.join()

    refit.fit(handle, tokens, SPAN, "refit", progress=Watch())
    assert len(lent) > 2
    assert all(lent)


class _Borrower:
    """A progress; when the last block of the first try is begun, another thread borrows the model and does `work` with it for a second.

    What follows without a borrowing of its own is the solving of that block, the collecting of the new weights, and the next copy.
    """

    def __init__(self, handle: ModelHandle, work: Callable[[Any], AbstractContextManager[Any]]) -> None:
        self._handle, self._work = handle, work
        self._inside = threading.Event()
        self._thread: threading.Thread | None = None

    def update(self, _done: float, _total: float, _unit: str, what: str) -> None:
        if self._thread is None and what == "refitting block 5":
            self._thread = threading.Thread(target=self._hold)
            self._thread.start()
            assert self._inside.wait(10)

    def _hold(self) -> None:
        with self._handle.borrow() as model, self._work(model):
            self._inside.set()
            time.sleep(1)

    def end(self) -> None:
        assert self._thread is not None, "nobody borrowed the model"
        self._thread.join(10)


def _measuring(model: Any) -> AbstractContextManager[Any]:
    return capture.simulated(model, families.find(model.config), Span(1, 3), None)


@contextmanager
def _with_other_weights(model: Any) -> Iterator[None]:
    """As `functional_call` has them on a block while it runs."""
    block = model.model.layers[5]
    kept = dict(block.named_parameters())
    for name in kept:
        parent, _, leaf = name.rpartition(".")
        setattr(block.get_submodule(parent), leaf, torch.nn.Parameter(torch.zeros_like(kept[name]), requires_grad=False))
    try:
        yield
    finally:
        for name, value in kept.items():
            parent, _, leaf = name.rpartition(".")
            setattr(block.get_submodule(parent), leaf, value)


@pytest.mark.parametrize("work", [_measuring, _with_other_weights], ids=["hooks", "other weights"])
def test_what_another_thread_does_to_the_model_leaves_no_trace_in_a_refit(work, tokens):
    """The model is copied, and its weights are read, under its lock: hooks of others stay on the original alone."""
    handle = handle_of("llama")
    alone = refit.fit(handle, tokens, SPAN, "sequential_refit")
    borrower = _Borrower(handle, work)
    found = refit.fit(handle, tokens, SPAN, "sequential_refit", progress=borrower)
    borrower.end()
    assert found.lookaheads == alone.lookaheads
    assert found.weights.keys() == alone.weights.keys()
    assert all(torch.equal(value, alone.weights[key]) for key, value in found.weights.items())


class _Stop:
    """A progress that is cancelled when the second block is begun."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def update(self, _done: float, _total: float, _unit: str, what: str) -> None:
        self.said += [what] if "refitting block" in what else []
        if len(self.said) == 2:
            raise KeyboardInterrupt


def test_progress_names_the_block_and_a_cancelled_refit_leaves_no_hook(tokens):
    handle, stop = handle_of("llama"), _Stop()
    with pytest.raises(KeyboardInterrupt):
        refit.fit(handle, tokens, SPAN, MethodSection(name="sequential_refit", lookahead=0), progress=stop)
    assert stop.said == ["refitting block 1", "refitting block 4"]
    with handle.borrow() as model:
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_plan_runs_a_refit_and_the_export_loads_plainly(llama_folder: Path, tmp_path: Path):
    data = {
        "model": {"path": str(llama_folder)},
        "calibration": {"source": "demo:stories", "max_tokens": 600, "max_length": 64},
        "span": {"start": 2, "end": 4},
        "method": {"name": "sequential_refit"},
    }
    done = pipeline.run(PruningPlan.parse(data), tmp_path / "run")
    assert done.variant.transform.weights
    assert [proof.name for proof in done.variant.proofs][-1] == "reload = memory"
    from safetensors.torch import load_file

    stored = load_file(tmp_path / "run" / "model" / "transform.safetensors")
    assert stored.keys() == done.variant.transform.weights.keys()
    assert export.record(done.variant, done.variant.proofs)["steps"]


def test_first_tokens_can_stay_out_of_every_fit(tokens):
    """Second route: the same sums with the first tokens' rows taken out by hand; a refit counts the tokens that are left."""
    handle = handle_of("llama")
    skipping = replace(tokens, skip_first=True)
    measured, plain = (measure(handle, each, spans=[SPAN]) for each in (skipping, tokens))
    found = measured.moments[SPAN, "uniform"]
    gram = torch.zeros(handle.width, handle.width, dtype=torch.float64)
    for sequence, out in zip(tokens.sequences, tokens.heldout, strict=True):
        if not out:
            with handle.borrow() as model:
                written = capture.read_states(model, handle.family, sequence[None], None).writers[SPAN.carrier][0, 1:].double()
            gram += written.T @ written
    assert torch.allclose(found.train.gram, gram, rtol=1e-5, atol=1e-6)
    n_train = sum(n - 1 for n, out in zip(tokens.lengths, tokens.heldout, strict=True) if not out)
    assert found.train.n_tokens == n_train
    assert measured.train_sample.n_tokens == n_train
    assert torch.equal(measured.distances["all"].values.nan_to_num(), plain.distances["all"].values.nan_to_num())
    assert refit.fit(handle, skipping, SPAN, "refit").report.n_tokens == n_train
