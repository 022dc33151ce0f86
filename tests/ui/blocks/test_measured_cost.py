"""Measured cost on the Blocks page: it fills by itself, makes room for whatever is asked for, and the suggestion goes by it."""

import os
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from replaceme_core.artifacts import Span
from replaceme_core.selection import sinks, spans
from tests.support.app_session import click, needs_demo, open_page, run, text_of
from ui.blocks import layers
from ui.blocks.layers import LAYERS, facts_of
from ui.parts.heatmap import matrix_rows
from ui.session import costs
from ui.session.jobs import Job, Runner, runner
from ui.session.state import Studio

pytestmark = [pytest.mark.usefixtures("at_the_root"), needs_demo]


def ended(state: Studio) -> Job:
    job = runner().behind(state.owner)
    assert job is not None
    assert job.finished.wait(120)
    return job


def test_it_fills_by_itself_and_the_suggestion_goes_by_it(demo: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    state = replace(demo, owner="costs")
    state.use_measurement(demo.measurement, demo.calibration, demo.calibration_section)
    assert state.span is not None
    length, wrong = len(state.span), Span(1, 1 + len(state.span))
    state.span = state._by_distance = wrong  # as if the distance had misled it
    app = open_page("pages/2_Blocks.py", state)
    assert runner().behind(state.owner) is None, "it takes longer than it may take by itself, here 0 s"
    assert "only a distance" in text_of(app)
    app.session_state["matrix_layer"] = "cost_removed"
    run(app)
    assert np.isnan(LAYERS["cost_removed"].values(state)).all()

    monkeypatch.setenv(costs.LIMIT, "1000")
    run(app)
    assert ended(state).state == "done"
    assert runner().latest(state.owner) is None, "nobody asked for it"
    assert state.span == wrong, "a span is chosen when the page is drawn, and not under a click"
    run(app)
    kind, every = costs.kind_of(state, state.span), costs.places(state, length)
    found = {tail.span: tail.quality.kl for tail in costs.costs(state).of(kind)}
    assert sorted(found) == every
    assert state.span == costs.choice(state, length).best.span != wrong
    assert "**Suggested, by " in text_of(app)
    assert "held-out tokens" in text_of(app)
    removed = LAYERS["cost_removed"].values(state)
    assert {span for span in costs.places(state, 1) if np.isfinite(removed[span.start, span.end])} == set(costs.places(state, 1))
    facts = facts_of(state)[LAYERS["cost_fitted"].title.lower()]
    assert facts[state.span.start, state.span.end].startswith(f"{found[state.span]:.3f} [")
    assert facts[1, 2] == "not measured"
    cells = {(row["start"], row["end"]): row for row in layers.cells_of(state, "cosine_all", LAYERS["cosine_all"].values(state))}
    assert cells[state.span.start, state.span.end][LAYERS["cost_fitted"].title.lower()] == facts[state.span.start, state.span.end]
    assert next(button for button in app.button if button.label.startswith(f"Best {length} blocks")).disabled

    before = dict(costs.costs(state).found)
    state.choose(Span(2, 4))
    run(app)
    ended(state)
    run(app)
    after = costs.costs(state).found
    assert {span for span, own in after if own == kind and len(span) == 2} == set(costs.places(state, 2))
    assert all(after[key] is tail for key, tail in before.items()), "nothing is measured twice"
    assert state.span == Span(2, 4), "a span that somebody chose stays"
    other = replace(state, owner="another session of the same model and text")
    assert next(costs.pending(other, 2), None) is None


def test_tooltips_are_some_seconds_late_only_while_measuring_and_only_on_other_layers(
    demo: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, job = replace(demo, owner="late"), SimpleNamespace(active=True)
    monkeypatch.setattr(layers, "runner", lambda: SimpleNamespace(behind=lambda _owner: job))
    told, now = state.slot(costs.CostState), costs.n_known(state)
    told.in_tooltips = (now - 1, time.monotonic())
    assert layers._n_told(state, "cosine_all") == now - 1
    assert layers._n_told(state, "cost_removed") == now
    told.in_tooltips = (now - 1, time.monotonic() - 60)
    assert layers._n_told(state, "cosine_all") == now
    told.in_tooltips, job.active = (now - 1, time.monotonic()), False
    assert layers._n_told(state, "cosine_all") == now, "the last figures are there"


def test_stop_keeps_what_there_is_and_measure_goes_on(demo: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    state = replace(demo, owner="stopped")
    monkeypatch.setenv(costs.LIMIT, "1000")
    step, after = costs._step, threading.Event()

    def one(*args: object) -> None:
        step(*args)
        if not after.is_set():
            after.set()
            costs.stop(state)

    monkeypatch.setattr(costs, "_step", one)
    app = open_page("pages/2_Blocks.py", state)
    assert ended(state).state == "cancelled"
    assert len(costs.costs(state).found) == 2
    run(app)
    assert not runner().behind(state.owner).active, "it does not begin again by itself"
    assert not [item.value for item in app.info if "Others come first" in item.value], "nobody asked for it, so nobody is told"
    monkeypatch.setattr(costs, "_step", step)
    click(app, "Measure")
    assert ended(state).state == "done"


def test_a_failure_is_said_and_not_tried_for_ever(demo: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    state = replace(demo, owner="failing")
    monkeypatch.setenv(costs.LIMIT, "1000")

    def fails(*_args: object) -> None:
        raise MemoryError

    monkeypatch.setattr(costs, "_step", fails)
    app = open_page("pages/2_Blocks.py", state)
    job = ended(state)
    run(app)
    assert runner().behind(state.owner) is job
    assert "Measuring what places cost failed: The memory was not enough" in text_of(app)
    assert "only a distance" in text_of(app)


@pytest.mark.skipif(sys.platform != "linux", reason="a thread has a priority of its own on Linux alone")
def test_work_in_the_background_stands_back_and_so_does_what_computes_for_it() -> None:
    own, found = Runner(), dict[str, list[int]]()

    def priorities(job: Job) -> None:
        before = set(os.listdir("/proc/self/task"))
        threading.Thread(target=job.finished.wait, args=(30,)).start()  # a thread of this one, such as those of its matrix products
        threads = {str(threading.get_native_id()), *(set(os.listdir("/proc/self/task")) - before)}
        found[job.title] = [os.getpriority(os.PRIO_PROCESS, int(thread)) for thread in threads]

    for title, lane, background in (("behind", "long", True), ("long", "long", False), ("short", "short", False)):
        assert own.submit(Job(title, "one", priorities, lane=lane, background=background)).finished.wait(30)
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    assert found == {"behind": [usual + 10] * 2, "long": [usual] * 2, "short": [usual] * 2}


def test_work_in_the_background_ends_when_anybody_wants_anything() -> None:
    own, begun, order = Runner(), threading.Event(), list[str]()

    def waits(job: Job) -> None:
        begun.set()
        assert job.enough.wait(60)
        order.append(job.title)

    behind = own.submit(Job("behind", "one", waits, background=True))
    later = own.submit(Job("later", "two", waits, background=True))
    assert begun.wait(60)
    asked = own.submit(Job("asked", "two", lambda job: order.append(job.title)))
    assert own.queue() in ([asked], [])
    assert own.ahead(asked) == 0
    assert asked.finished.wait(60)
    assert later.finished.wait(60)
    assert order == ["behind", "asked", "later"]
    assert behind.state == later.state == "done"
    assert own.latest("two") is asked
    assert own.behind("two") is later
    assert own.latest("one") is None


def test_an_untouched_suggestion_gives_way_and_a_chosen_span_does_not(demo: Studio) -> None:
    state = replace(demo, owner="untouched", span=None)
    state.use_measurement(demo.measurement, demo.calibration, demo.calibration_section)
    suggested = spans.best(sinks.kept(demo.measurement), spans.length_of_share(demo.measurement.n_blocks, 0.25))
    assert state.span == suggested
    other = Span(1, 1 + len(suggested))
    assert state.suggest_measured(other)
    assert state.span == other
    assert not state.suggest_measured(suggested), "only once: then it is seen"
    state.use_measurement(demo.measurement, demo.calibration, demo.calibration_section)
    state.choose(state.span)
    assert not state.suggest_measured(suggested), "a click on the suggested span takes it"
    assert state.span == other


def test_a_span_without_a_value_is_an_empty_place_that_can_be_chosen() -> None:
    values = np.full((4, 4), np.nan)
    values[1, 2] = 0.5
    rows = matrix_rows(values, ".2f", sparse=True)
    assert len(rows) == 6
    assert sum(row["value"] is None for row in rows if row["choosable"]) == 2
    assert [row["said"] for row in rows if row["value"] is not None] == ["start: 1; end: 2; block 1; 0.50"]
    assert "no value" in rows[0]["said"]
