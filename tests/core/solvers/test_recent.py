"""Caches of the solvers: results are kept while the object lives that they are of, a few at a time, and no longer."""

import dataclasses
import gc
import threading
import weakref

import pytest
import torch

from replaceme_core.artifacts import SpanMoments
from replaceme_core.plans.plan import LEAST_SQUARES, MethodSection
from replaceme_core.solvers import STRUCTURES, fit, least_squares, low_rank, ridge_path, spectrum
from replaceme_core.solvers.recent import recent
from tests.core.solvers.test_solvers import SPAN, normal, tokens
from tests.core.solvers.test_solvers import measured as measured_of

CACHES = (spectrum.spectrum_of, least_squares.form_of, low_rank._directions, low_rank._beside_identity)


@pytest.mark.parametrize("name", LEAST_SQUARES)
@pytest.mark.parametrize("structure", STRUCTURES)
def test_no_cache_keeps_the_moments_of_a_measurement_that_is_gone(measurement, name, structure):
    written = normal(200, 8)
    own = measured_of(measurement, tokens(written, written @ normal(8, 8, seed=1), 40))
    section = MethodSection(name=name, structure=structure, rank=2 if structure.startswith("low_rank") else None)
    fit(own, SPAN, section)
    ridge_path(own, SPAN, section)
    before = sum(map(len, CACHES))
    gone = [
        weakref.ref(tensor) for both in own.moments.values() for part in (both.train, both.heldout) for tensor in (part.gram, part.cross)
    ]
    gc.disable()  # gone at once, not at some later time
    try:
        del own
        assert [tensor for tensor in gone if tensor() is not None] == []
    finally:
        gc.enable()
    assert sum(map(len, CACHES)) < before


def moments(seed: int = 0) -> SpanMoments:
    rows = normal(50, 4, seed=seed)
    return SpanMoments(rows.T @ rows, rows.T @ rows, 1.0, 50)


def test_a_result_is_made_once_for_each_object_and_the_oldest_goes():
    made = []

    @recent(most=2)
    def doubled(part, factor=2):
        made.append(part)
        return part.energy * factor

    first, second, third = moments(), moments(1), moments(2)
    assert [doubled(part) for part in (first, second, first, third, first)] == [2.0] * 5
    assert made == [first, second, third], "the second was the oldest when the third came"
    doubled(second)
    assert made[-1] is second
    assert doubled(first, factor=3) == doubled(first, factor=3) == 3.0
    assert len(doubled) == 2
    doubled.cache_clear()
    assert len(doubled) == 0


def test_an_object_that_takes_the_number_of_one_that_is_gone_gets_a_result_of_its_own():
    @recent(most=8)
    def gram(part):
        return part.gram.clone()

    for seed in range(200):  # numbers of objects come again at once
        part = moments(seed)
        assert torch.equal(gram(part), part.gram)
        part = dataclasses.replace(part, gram=part.gram + 1)
        assert torch.equal(gram(part), part.gram)
    assert len(gram) == 1


def test_threads_may_ask_and_let_go_at_the_same_time():
    @recent(most=3)
    def gram(part):
        return part.gram.clone()

    wrong = []

    def work(seed):
        for number in range(100):
            part = moments(seed + number)
            if not torch.equal(gram(part), part.gram):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(100 * index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(gram) <= 3
