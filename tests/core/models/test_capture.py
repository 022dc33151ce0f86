"""Hooks read the true residual stream, leave nothing behind, and need the lock."""

import threading

import pytest
import torch

from replaceme_core.artifacts import Span
from replaceme_core.calibration.calibration import prepare
from replaceme_core.errors import Cancelled
from replaceme_core.measurement.measure import measure
from replaceme_core.models.running import capture
from replaceme_core.plans.plan import CalibrationSection
from tests.support.dense import hooks_on, llama_states

IDS = torch.randint(3, 300, (2, 20), generator=torch.Generator().manual_seed(3))
MASK = torch.ones_like(IDS)


class Stop:
    """Progress that cancels at the first report."""

    def update(self, *_):
        raise Cancelled("stopped by the test")


def final_norm(model):
    return model.model.norm


def test_every_boundary_equals_the_hidden_states_of_transformers(handle):
    with handle.borrow() as model, torch.no_grad():
        states = capture.read_states(model, handle.family, IDS, MASK)
        expected = model(input_ids=IDS, attention_mask=MASK, output_hidden_states=True).hidden_states
    assert len(states.boundaries) == len(expected) == handle.n_blocks + 1
    for ours, theirs in zip(states.boundaries[:-1], expected[:-1], strict=True):
        assert torch.equal(ours, theirs)


def test_the_last_boundary_is_read_before_the_final_norm(handle):
    with handle.borrow() as model, torch.no_grad():
        last = capture.read_states(model, handle.family, IDS, MASK).boundaries[-1]
        expected = model.base_model(input_ids=IDS, attention_mask=MASK).last_hidden_state
        normed = final_norm(model)(last)
    assert torch.equal(normed, expected)
    assert not torch.allclose(last, expected, rtol=0.1)


@pytest.mark.parametrize("wanted", [[], [0], [1, 3]], ids=str)
def test_only_the_writers_asked_for_are_kept(handle, wanted):
    with handle.borrow() as model:
        every = capture.read_states(model, handle.family, IDS, MASK)
        some = capture.read_states(model, handle.family, IDS, MASK, writers=wanted)
    assert list(every.writers) == list(range(handle.n_blocks))
    assert list(some.writers) == wanted
    assert all(torch.equal(some.writers[block], every.writers[block]) for block in wanted)
    assert all(torch.equal(a, b) for a, b in zip(some.boundaries, every.boundaries, strict=True))


def test_what_a_block_adds_beside_its_writer_is_its_attention(llama):
    with llama.borrow() as model:
        states = capture.read_states(model, llama.family, IDS[:1], MASK[:1])
        dense = llama_states(model, IDS[0])
    for i in range(llama.n_blocks):
        beside = (states.boundaries[i + 1] - states.boundaries[i] - states.writers[i])[0].double()
        assert (beside - dense.attention[i]).norm() < 1e-5 * states.boundaries[i + 1].norm()
        assert dense.attention[i].norm() > 1e-2 * dense.writers[i].norm(), "the attention must be large enough to be told from rounding"
        torch.testing.assert_close(states.writers[i][0].double(), dense.writers[i], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stop", [1, 3, 6])
def test_an_early_stop_reads_the_same_states_as_the_full_pass(handle, stop):
    with handle.borrow() as model:
        whole = capture.read_states(model, handle.family, IDS, MASK)
        part = capture.read_states(model, handle.family, IDS, MASK, stop=stop)
    assert (len(part.boundaries), len(part.writers)) == (stop + 1, stop)
    for some, every in ((part.boundaries, whole.boundaries), (tuple(part.writers.values()), tuple(whole.writers.values()))):
        assert all(torch.equal(a, b) for a, b in zip(some, every, strict=False))


def test_an_early_stop_computes_no_later_block(llama):
    reached = []
    with llama.borrow() as model:
        watch = [block.register_forward_pre_hook(lambda *_, i=i: reached.append(i)) for i, block in enumerate(model.model.layers)]
        try:
            capture.read_states(model, llama.family, IDS, MASK, stop=2)
        finally:
            for hook in watch:
                hook.remove()
    assert reached == [0, 1]


def test_captured_states_are_copies_that_a_later_pass_does_not_change(llama):
    with llama.borrow() as model:
        first = capture.read_states(model, llama.family, IDS, MASK)
        before = [state.clone() for state in (*first.boundaries, *first.writers.values())]
        capture.read_states(model, llama.family, IDS.flip(1), MASK)
    assert all(torch.equal(a, b) for a, b in zip(before, (*first.boundaries, *first.writers.values()), strict=True))


def test_states_are_captured_before_a_block_that_works_in_place_changes_them(llama):
    """Some architectures add to the stream in place; a captured reference would show the stream of a later point."""
    entering = []

    def scale(stream):
        stream.mul_(1.5)

    with llama.borrow() as model:
        hooks = [
            block.register_forward_pre_hook(
                lambda _m, args, kwargs: entering.append((args or [kwargs["hidden_states"]])[0].clone()), with_kwargs=True
            )
            for block in model.model.layers
        ]
        hooks += [block.input_layernorm.register_forward_pre_hook(lambda _m, args: scale(args[0])) for block in model.model.layers]
        try:
            found = capture.read_states(model, llama.family, IDS, MASK)
        finally:
            for hook in hooks:
                hook.remove()
    assert all(torch.equal(a, b) for a, b in zip(found.boundaries, entering, strict=False))


def test_no_hook_remains_after_success(handle):
    with handle.borrow() as model:
        model(input_ids=IDS, output_hidden_states=True)  # transformers installs hooks of its own, once
        own = hooks_on(model)
        capture.read_states(model, handle.family, IDS, MASK)
        assert hooks_on(model) == own
        with capture.simulated(model, handle.family, Span(2, 4), None):
            assert hooks_on(model) == own + 3
        assert hooks_on(model) == own


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_no_hook_remains_after_an_exception_inside_the_model(llama, error):
    def fail(*_):
        raise error("inside block 3")

    with llama.borrow() as model:
        own = hooks_on(model)
        bomb = model.model.layers[3].register_forward_pre_hook(fail)
        try:
            with pytest.raises(error, match="inside block 3"):
                capture.read_states(model, llama.family, IDS, MASK)
            with pytest.raises(error, match="inside block 3"), capture.simulated(model, llama.family, Span(1, 2), None):
                model(input_ids=IDS)
        finally:
            bomb.remove()
        assert hooks_on(model) == own


def test_a_cancelled_pass_leaves_no_hook_and_no_lock(llama, calibration):
    with llama.borrow() as model:
        own = hooks_on(model)
    with pytest.raises(Cancelled):
        measure(llama, calibration, progress=Stop(), again=True)
    taken = []

    def take():
        with llama.borrow() as model:
            taken.append(hooks_on(model))

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    thread.join(10)
    assert taken == [own]


def test_a_second_borrower_waits_until_the_first_gives_the_model_back(llama):
    entered, order = threading.Event(), []

    def second():
        entered.set()
        with llama.borrow():
            order.append("second")

    with llama.borrow():
        thread = threading.Thread(target=second, daemon=True)
        thread.start()
        entered.wait(10)
        thread.join(0.1)
        order.append("first gives back")
    thread.join(10)
    assert order == ["first gives back", "second"]


def test_two_threads_on_one_handle_measure_exactly_what_one_thread_measures(llama, texts):
    def subset(part, seed):
        return prepare(CalibrationSection(max_tokens=300, max_length=16, seed=seed), llama.tokenizer, part, name=f"part {seed}")

    sets = [subset(texts[:30], 1), subset(texts[30:], 2)]
    spans = [Span(2, 4)]
    alone = [measure(llama, part, spans=spans) for part in sets]
    for _ in range(4):
        found, start = {}, threading.Barrier(2)

        def work(index, found=found, start=start):
            start.wait(10)
            found[index] = measure(llama, sets[index], spans=spans, again=True)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        for index, expected in enumerate(alone):
            for positions in ("all", "last"):
                ours, theirs = found[index].distances[positions].values, expected.distances[positions].values
                assert torch.equal(ours.nan_to_num(-1), theirs.nan_to_num(-1))
            for key, moments in expected.moments.items():
                assert torch.equal(found[index].moments[key].train.cross, moments.train.cross)


def test_without_the_lock_two_overlapping_captures_corrupt_each_other(llama):
    """Why `borrow` exists: both threads hold hooks on the one model before either runs its first block."""
    with llama.borrow() as model:
        alone = [capture.read_states(model, llama.family, ids[None], MASK[:1]) for ids in IDS]
        both_inside = threading.Barrier(2)

        def meet(*_):
            both_inside.wait(10)

        gate = model.model.embed_tokens.register_forward_pre_hook(meet)
        found = {}

        def work(index):
            found[index] = capture.read_states(model, llama.family, IDS[index : index + 1], MASK[:1])

        threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
        finally:
            gate.remove()

    def same(a, b):
        return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))

    assert not all(same(found[i].boundaries, alone[i].boundaries) for i in range(2))
