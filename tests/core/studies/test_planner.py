"""The search for places: against an exhaustive one that fits, merges and measures every span by itself."""

import json

import pytest
from click.testing import CliRunner

from replaceme_core import pipeline
from replaceme_core.artifacts import Cut, Span
from replaceme_core.cli.main import main
from replaceme_core.comparison import compare
from replaceme_core.errors import Cancelled, InputError, ModelError
from replaceme_core.measurement.measure import measure
from replaceme_core.plans.plan import MethodSection
from replaceme_core.selection import criteria, spans
from replaceme_core.studies.planner import Aim, Candidate, Point, _with_front, candidates, search
from replaceme_core.surgery import surgery

EVERY = 100


@pytest.fixture(scope="module")
def exhaustive(llama, calibration, measurement):
    """Measured KL of every span of one and of two blocks, by a route of its own."""
    found = {}
    for span in (Span(start, start + length) for length in (1, 2) for start in range(1, 7 - length)):
        transform = pipeline.fit(llama, calibration, measurement, span, MethodSection())
        found[span] = compare.divergence(llama, [surgery.prune(llama, transform, "x").handle], calibration.heldout_text(4096))[1].kl
    return found


@pytest.mark.parametrize("names", [("distance",), ("path",), ("missed",), ("distance", "missed")])
def test_with_every_place_the_search_finds_what_an_exhaustive_one_finds(llama, calibration, measurement, exhaustive, names):
    found = search(llama, calibration, measurement, Aim((0.16, 0.34), EVERY, criteria=names))
    assert {point.candidate.cut.spans[0]: point.quality.kl for point in found.points} == pytest.approx(exhaustive)
    for length in (1, 2):
        best = min((span for span in exhaustive if len(span) == length), key=exhaustive.__getitem__)
        assert next(point for point in found.points if point.candidate.n_removed == length).candidate.cut.spans == (best,)
    front = {
        span
        for span, kl in exhaustive.items()
        if not any(len(other) >= len(span) and exhaustive[other] <= kl for other in exhaustive if other != span)
    }
    assert {point.candidate.cut.spans[0] for point in found.front} == front
    assert found.original.kl == 0


def test_candidates_are_the_best_few_of_each_length_once(measurement):
    chosen, notes = candidates(measurement, Aim((0.2, 0.34, 0.36), 2, criteria=("distance",)))  # of 6 blocks: 1, 2 and 2 again
    assert notes == []
    assert [candidate.n_removed for candidate in chosen] == [1, 1, 2, 2]
    assert [candidate.rank for candidate in chosen] == [1, 2, 1, 2]
    assert [candidate.cut.spans[0] for candidate in chosen[2:]] == [span for span, _ in spans.top(measurement.distances["all"], 2, 2)]


def test_criteria_name_places_in_turn_and_none_twice(measurement):
    chosen, _ = candidates(measurement, Aim((0.2,), 4, criteria=("distance", "missed")))
    missed = spans.top(criteria.rank(measurement, 1, "missed")[0], 1, 4)
    distance = spans.top(measurement.distances["all"], 1, 4)
    in_turn = [span for pair in zip(distance, missed, strict=True) for span, _ in pair]
    assert [candidate.cut.spans[0] for candidate in chosen] == list(dict.fromkeys(in_turn))[:4]
    assert [candidate.rank for candidate in chosen] == [1, 2, 3, 4]
    for candidate in chosen:
        matrix, _ = criteria.rank(measurement, 1, candidate.criterion)
        assert candidate.score == matrix.at(candidate.cut.spans[0])


def test_what_the_pass_did_not_keep_is_measured_in_a_second_one(llama, calibration, measurement):
    bare = measure(llama, calibration, spans=[], again=True)
    seen = []
    found = search(llama, calibration, bare, Aim((0.34,), 2, criteria=("path",)), Record(seen))
    whole = search(llama, calibration, measurement, Aim((0.34,), 2, criteria=("path",)))
    assert [point.quality for point in found.points] == [point.quality for point in whole.points]
    assert any(what.startswith("calibration pass") for *_, what in seen)
    assert found.notes == ()
    noted = search(llama, calibration, bare, Aim((0.34,), 1, criteria=("missed",)))
    assert "the distance chose instead" in noted.notes[0]


def test_a_point_says_how_many_parameters_are_left_and_a_refit_can_be_searched_with(llama, calibration, measurement):
    (point,) = search(llama, calibration, measurement, Aim((0.34,), 1, method=MethodSection(name="refit"))).points
    span = point.candidate.cut.spans[0]
    assert (
        point.n_parameters
        == surgery.prune(llama, pipeline.fit(llama, calibration, measurement, span, MethodSection()), "x").handle.n_parameters
    )
    assert point.n_parameters < llama.n_parameters
    assert point.heldout_error > 0


class Record:
    """Keeps every report; cancels after so many of them."""

    def __init__(self, seen, most=None):
        self._seen, self._most = seen, most

    def update(self, *report):
        self._seen.append(report)
        if self._most is not None and len(self._seen) >= self._most:
            raise Cancelled("stopped by the test")


def test_progress_rises_in_places_to_their_number_and_cancel_is_heard_inside_a_comparison(llama, calibration, measurement):
    seen = []
    search(llama, calibration, measurement, Aim((0.2, 0.34), 2), Record(seen))
    done = [report[0] for report in seen]
    assert done == sorted(done)
    assert done[-1] == 4
    assert {report[1:] for report in seen} == {(4, "places", "fitting and comparing")}
    stopped = []
    with pytest.raises(Cancelled):
        search(llama, calibration, measurement, Aim((0.2, 0.34), 2), Record(stopped, len(seen) - 2))
    assert 2 < stopped[-1][0] < 4


@pytest.mark.parametrize(("shares", "k"), [((0.25,), 0), ((), 3), ((0.0,), 3), ((0.5, 1.0), 3)])
def test_a_bad_aim_is_an_error_that_shows_it(llama, calibration, measurement, shares, k):
    with pytest.raises(InputError, match="shares between 0 and 1, at least 1 place"):
        search(llama, calibration, measurement, Aim(shares, k))


def test_a_model_that_is_not_cut_in_memory_is_refused_before_any_work(llama, calibration, measurement, llama_folder):
    from dataclasses import replace

    seen = []
    with pytest.raises(ModelError, match="held quantised or spread"):
        search(replace(llama, checkpoint=llama_folder), calibration, measurement, progress=Record(seen))
    images = replace(llama, family=replace(llama.family, inputs="images"))
    with pytest.raises(ModelError, match="reads images"):
        search(images, calibration, measurement, progress=Record(seen))
    assert seen == []


@pytest.mark.parametrize("criterion", ["distance", "missed"])
def test_cuts_of_several_spans_are_tried_where_they_fit_and_are_asked_for(llama, calibration, measurement, criterion):
    aim = Aim((0.2, 0.34), 1, spans=3, criteria=(criterion,))
    found = search(llama, calibration, measurement, aim)
    assert sorted(len(point.candidate.cut.spans) for point in found.points) == [1, 1, 2]
    cut = next(point.candidate.cut for point in found.points if len(point.candidate.cut.spans) == 2)
    assert cut == spans.several(measurement.distances["all"], 2, 2)
    transform = pipeline.fit(llama, calibration, measurement, cut, MethodSection())
    kl = compare.divergence(llama, [surgery.prune(llama, transform, "x").handle], calibration.heldout_text(4096))[1].kl
    assert kl == pytest.approx(next(point.quality.kl for point in found.points if point.candidate.cut == cut))


def point(n_removed, kl):
    quality = compare.Divergence("x", 1, 1, 1, kl, kl, kl, 1, 10, 2, 2, "held-out", "x")
    return Point(Candidate(Cut((Span(1, 1 + n_removed),)), "path", 0.0, 1), 0, 0.0, quality, False)


def test_the_front_of_a_case_worked_by_hand():
    """Removing more at a lower KL beats removing less; equals beat nobody; several spans count all their blocks."""
    double = Point(Candidate(Cut((Span(1, 3), Span(4, 6))), "path", 0.0, 1), 0, 0.0, point(1, 0.35).quality, False)
    marked = _with_front([point(3, 0.5), point(1, 0.1), point(2, 0.3), point(2, 0.4), double, point(5, 0.9), point(5, 0.9), point(6, 0.8)])
    shown = [(p.candidate.n_removed, p.quality.kl, p.on_front) for p in marked]
    assert shown == [
        (1, 0.1, True),
        (2, 0.3, True),
        (2, 0.4, False),
        (3, 0.5, False),
        (4, 0.35, True),
        (5, 0.9, False),
        (5, 0.9, False),
        (6, 0.8, True),
    ]
    assert all(p.on_front for p in _with_front([point(2, 0.3), point(2, 0.3)]))


@pytest.mark.parametrize("as_json", [True, False])
def test_the_command_line_measures_places_and_marks_the_front(llama_folder, texts, tmp_path, as_json):
    (tmp_path / "texts.txt").write_text("\n\n".join(texts))
    options = ["--calibration", str(tmp_path / "texts.txt"), "--max-tokens", "1200", "--max-length", "32", "--holdout", "0.4"]
    options += ["--shares", "0.2,0.34", "--places", "2", "--criteria", "path", *(["--json"] if as_json else [])]
    done = CliRunner().invoke(main, ["plan-spans", "--model", str(llama_folder), *options])
    assert done.exit_code == 0, done.output
    if not as_json:
        assert "named by" in done.stdout.splitlines()[0]
        assert done.stdout.count("  *\n") >= 1
        assert " held-out tokens of " in done.stdout
        assert "compare the choice on test text" in done.stdout
        return
    data = json.loads(done.stdout)
    assert (data["criteria"], data["method"], data["n_blocks"]) == (["path"], "weighted_least_squares", 6)
    assert [point["n_removed"] for point in data["points"]] == [1, 1, 2, 2]
    assert all(point["quality"]["kl_low"] <= point["quality"]["kl"] <= point["quality"]["kl_high"] for point in data["points"])
    assert any(point["on_front"] for point in data["points"])
    assert {point["quality"]["part"] for point in data["points"]} == {"held-out"}, "the test part is left to comparisons"


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        (["--shares", "a"], "is not a list of shares"),
        (["--shares", "1.5"], "shares between 0 and 1"),
        (["--criteria", "path,x"], "no criterion 'x'"),
    ],
)
def test_a_bad_share_on_the_command_line_is_one_sentence(llama_folder, texts, tmp_path, extra, sentence):
    (tmp_path / "texts.txt").write_text("\n\n".join(texts))
    options = ["--calibration", str(tmp_path / "texts.txt"), "--max-tokens", "600", "--max-length", "32", *extra]
    done = CliRunner().invoke(main, ["plan-spans", "--model", str(llama_folder), *options])
    assert done.exit_code == 1
    assert sentence in done.output
