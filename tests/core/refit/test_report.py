"""What a refit reports is what became of the stream of the pruned model, also in families that write over what a hook has seen."""

from dataclasses import replace

import pytest
import torch

from replaceme_core import refit
from replaceme_core.artifacts import Cut, LinearTransform, ModelHandle, Span, Variant
from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.models.architecture.families import blocks_of, scale_of, written_of
from replaceme_core.models.running import capture
from replaceme_core.plans.plan import MethodSection
from replaceme_core.refit.layers import layers_of
from replaceme_core.refit.report import together
from replaceme_core.surgery import surgery
from tests.core.models.test_families import MERGEABLE, handle_of
from tests.core.refit.test_refit import heldout_error
from tests.support.family_configs import even_tokens

IDS = torch.randint(3, 300, (1, 20), generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def even() -> CalibrationSet:
    """In few batches, for every family."""
    return even_tokens(3)


@pytest.mark.parametrize("name", MERGEABLE)
def test_what_was_seen_of_a_writer_is_what_is_added_to_the_stream(name: str) -> None:
    handle = handle_of(name)
    with handle.borrow() as model, torch.no_grad():
        added = capture.read_states(model, handle.family, IDS, None).writers
        for number, block in enumerate(blocks_of(model, handle.family)):
            written = written_of(block, handle.family)
            with capture.seen(written, "output") as seen, capture.called(written) as called:
                model(input_ids=IDS)
            for found in (seen[-1], called[-1][2]):
                mine = found.view_as(added[number]) * scale_of(model, handle.family)
                torch.testing.assert_close(mine, added[number], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", MERGEABLE)
def test_m_is_what_the_stream_lacks_without_it(name: str) -> None:
    """Second route: the writer's output is multiplied by zero, and the stream behind the block is read again."""
    handle, number = handle_of(name), 3
    with handle.borrow() as model, torch.no_grad():
        whole = capture.read_states(model, handle.family, IDS, None, stop=number + 1)
        writer = written_of(blocks_of(model, handle.family)[number], handle.family)
        silent = writer.register_forward_hook(lambda _m, _a, out: tuple(0 * each for each in out) if isinstance(out, tuple) else 0 * out)
        try:
            without = capture.read_states(model, handle.family, IDS, None, stop=number + 1)
        finally:
            silent.remove()
    torch.testing.assert_close(whole.boundaries[-1] - without.boundaries[-1], whole.writers[number], rtol=1e-4, atol=1e-5)


def error_of(handle: ModelHandle, variant: Variant, span: Span, tokens: CalibrationSet, heldout: bool = True) -> float:
    """Second route: whole passes of both models; mean |P - H_end|^2 / |H_end|^2 over that of Z = H_end - H_start + M."""
    missed = aimed = 0.0
    own = sum(block < span.start for block in variant.transform.cut.kept(handle.n_blocks))
    for sequence in (each for each, out in zip(tokens.sequences, tokens.heldout, strict=True) if out == heldout):
        with handle.borrow() as model, variant.handle.borrow() as pruned:
            states = capture.read_states(model, handle.family, sequence[None], None)
            found = capture.read_states(pruned, handle.family, sequence[None], None, stop=own).boundaries[-1].double()
        start, goal = (states.boundaries[at].double() for at in (span.start, span.end))
        target, length = goal - start + states.writers[span.carrier], goal.square().sum(-1)
        missed += float(((found - goal).square().sum(-1) / length).sum())
        aimed += float((target.square().sum(-1) / length).sum())
    return missed / aimed


@pytest.mark.parametrize("name", ["llama", "falcon", "phi", "gpt2_scaled", "mixtral", "granite"])
@pytest.mark.parametrize(
    ("cut", "method"),
    [
        (Cut.of([Span(2, 4)]), "refit"),
        (Cut.of([Span(2, 3), Span(4, 5)]), "weighted_least_squares"),
        (Cut.of([Span(2, 3), Span(4, 5)]), "sequential_refit"),
    ],
    ids=["refit", "T of two spans", "two spans in sequence"],
)
def test_the_reported_error_is_that_of_the_pruned_models_stream(name: str, cut: Cut, method: str, even: CalibrationSet) -> None:
    handle = handle_of(name)
    fitted = refit.fit(handle, even, cut, method)
    variant = surgery.prune(handle, fitted, "x")
    for heldout, said in ((True, fitted.report.heldout_error), (False, fitted.report.train_error)):
        errors = [error_of(handle, variant, span, even, heldout) for span in cut.spans]
        assert said == pytest.approx(sum(errors) / len(errors), rel=1e-4)


def test_gradient_steps_that_lowered_the_error_are_a_change_of_the_carrier(even: CalibrationSet) -> None:
    """In Gemma 2 a norm stands behind every layer: there are no other steps."""
    handle = handle_of("gemma2")
    fitted = refit.fit(handle, even, Span(2, 4), MethodSection(name="deep_refit", lookahead=0, max_iterations=5))
    (step,) = (each for each in fitted.steps if each.block == 1)
    assert step.after < step.before
    removed, moved = (surgery.prune(handle, each, "x").handle for each in (LinearTransform.removal(fitted.cut), fitted))
    assert (step.before, step.after) == pytest.approx([heldout_error(handle, each, 4, 2, even) for each in (removed, moved)], rel=1e-4)
    assert fitted.report.heldout_error < fitted.report.removal_error
    assert fitted.report.notes == ()


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_what_goes_into_a_layer_times_its_change_is_what_is_added_to_what_comes_out(name: str) -> None:
    """Square layers too, whose change would fit the wrong way round: the attention's output here."""
    handle = handle_of(name)
    with handle.borrow() as model, torch.no_grad():
        layers = layers_of(model, blocks_of(model, handle.family)[2], handle.family)
        assert [layer.part for layer in layers] == ["attention output", "writer"]
        for layer in layers:
            seen, change = torch.randn(7, len(layer.weight)), torch.randn(layer.weight.shape, dtype=torch.float64)
            before = layer.read(seen)
            layer.put(change)
            torch.testing.assert_close(layer.read(seen) - before, seen @ change.float(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["llama", "granite"])
def test_reported_cosines_are_the_means_over_held_out_tokens(name: str, even: CalibrationSet) -> None:
    """Second route: whole passes of both models."""
    handle, span, found, removed = handle_of(name), Span(2, 4), [], []
    fitted = refit.fit(handle, even, span, "refit")
    variant = surgery.prune(handle, fitted, "x")
    for sequence in (each for each, out in zip(even.sequences, even.heldout, strict=True) if out):
        with handle.borrow() as model, variant.handle.borrow() as pruned:
            intact = capture.read_states(model, handle.family, sequence[None], None).boundaries
            own = capture.read_states(pruned, handle.family, sequence[None], None, stop=span.start).boundaries[-1]
        found.append(torch.cosine_similarity(own[0].double(), intact[span.end][0].double(), dim=-1))
        removed.append(torch.cosine_similarity(intact[span.start][0].double(), intact[span.end][0].double(), dim=-1))
    means = [float(torch.cat(each).mean()) for each in (found, removed)]
    assert [fitted.report.heldout_cosine, fitted.report.removal_cosine] == pytest.approx(means, rel=1e-5)


def test_of_several_spans_the_mean_error_and_the_worst_condition_are_reported() -> None:
    one = LinearTransform.removal(Cut.of([Span(2, 3)])).report
    spans = [replace(one, heldout_error=error, condition=condition) for error, condition in ((0.2, 10.0), (0.4, 1000.0), (0.6, 100.0))]
    assert (together(spans, 5).heldout_error, together(spans, 5).condition) == (pytest.approx(0.4), 1000.0)
