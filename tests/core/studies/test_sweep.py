"""A sweep measures what each point measures alone, loses nothing when it is stopped, and says what cannot be made."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from replaceme_core import pipeline
from replaceme_core.artifacts import Cut, Span
from replaceme_core.cli.main import main
from replaceme_core.comparison import compare, speed_gain
from replaceme_core.errors import Cancelled, EvaluationError, ModelError, PlanError
from replaceme_core.evaluation import evaluate, share_kept
from replaceme_core.plans.defaults import evaluation_for
from replaceme_core.plans.plan import EvaluationSection, MethodSection
from replaceme_core.plans.sweep_section import Sweep
from replaceme_core.selection import spans
from replaceme_core.studies import pareto
from replaceme_core.studies.sweep import run as sweep
from replaceme_core.studies.sweep.points import PointResult, drift_free_ms, front, most_points, original_ms
from replaceme_core.studies.sweep.store import Store
from replaceme_core.surgery import surgery
from tests.core.evaluation.test_evaluate import write_tasks
from tests.support.app_session import needs_demo

ROOT = Path(__file__).resolve().parent.parent.parent.parent


class Record:
    """Keeps every report; cancels once so much is done."""

    def __init__(self, until=None):
        self.seen, self._until = [], until

    def update(self, done, total, unit, what):
        self.seen.append((done, total, unit, what))
        if self._until is not None and unit == "points" and done >= self._until:
            raise Cancelled("stopped by the test")


def asked(folder, texts_path, **changes):
    data = {
        "model": {"path": str(folder)},
        "calibration": {"source": str(texts_path), "max_tokens": 1200, "max_length": 32},
        "methods": ["drop", "weighted_least_squares"],
        "cuts": {"shares": [0.2, 0.34], "spans": [[4, 6], [[1, 2], [3, 4]], [3, 9]]},
        "measure": {"test_tokens": 100, "speed": False},
    }
    return Sweep.parse(data | changes, "sweep")


@pytest.fixture(scope="module")
def texts_path(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    return path


@pytest.fixture(scope="module")
def plan(llama_folder, texts_path):
    return asked(llama_folder, texts_path)


@pytest.fixture(scope="module")
def prepared(llama, plan):
    """With a pass that stored every point: what is fitted is the same to the last bit, however many points a sweep asks for itself."""
    prepared = pipeline.prepare_for(llama, plan.calibration)
    sweep.measure(llama, prepared)
    return prepared


@pytest.fixture(scope="module")
def found(llama, plan, prepared, tmp_path_factory):
    return sweep.run_on(llama, prepared, plan, tmp_path_factory.mktemp("sweeps") / "first")


def test_every_method_is_tried_at_every_place_and_a_point_equals_the_same_prune_by_hand(found, llama, plan, prepared):
    measurement = sweep.measure(llama, prepared)
    named = {Cut((spans.best(measurement.distances["all"], length),)) for length in (1, 2)}
    cuts = named | {Cut((Span(4, 6),)), Cut((Span(1, 2), Span(3, 4))), Cut((Span(3, 9),))}
    assert {result.planned.cut for result in found.results} == cuts
    assert len(found.results) == 2 * len(cuts)
    assert len(found.results) <= most_points(plan, llama.n_blocks)
    text = prepared.test_text(100)
    for result in found.made:
        fitted = pipeline.fit(llama, prepared, measurement, result.planned.cut, result.planned.section)
        pruned = surgery.prune(llama, fitted, "x").handle
        original, quality = compare.divergence(llama, [pruned], text)
        assert result.quality.kl == pytest.approx(quality.kl, rel=1e-6)
        assert (result.quality.kl_low, result.quality.kl_high) == (quality.kl_low, quality.kl_high)
        assert (result.quality.part, result.quality.n_documents) == ("test", len(set(text.documents)))
        assert result.original.perplexity == pytest.approx(original.perplexity)
        assert result.n_parameters == pruned.n_parameters
        assert {proof.name for proof in result.proofs} == {"merged = hooked", "cached = uncached"}


def test_a_point_that_cannot_be_made_keeps_its_sentence_and_the_others_go_on(found):
    failed = [result for result in found.results if result.error]
    assert {result.planned.cut for result in failed} == {Cut((Span(3, 9),))}
    assert all("does not fit a model of 6 blocks" in result.error for result in failed)
    assert len(found.made) == len(found.results) - len(failed) > 0
    assert {point.cut for point in found.left} == {Cut((Span(3, 9),))}, "the next run tries them again"


def test_one_pass_serves_all_points(llama, plan, prepared, found, tmp_path, monkeypatch):
    passes = []
    real = sweep.measure
    monkeypatch.setattr(sweep, "measure", lambda *args: passes.append(args[2]) or real(*args))
    again = sweep.run_on(llama, prepared, plan, tmp_path / "one")
    assert len(passes) == 1
    assert {point.cut.spans[0] for point in again.index.points if len(point.cut.spans) == 1 and point.cut.spans[0].end <= 6} <= set(
        passes[0]
    )
    assert [r.quality.kl for r in again.made] == [r.quality.kl for r in found.made]


def test_a_cancelled_sweep_keeps_its_points_and_goes_on_without_redoing_them(llama, plan, prepared, found, tmp_path):
    folder = tmp_path / "stopped"
    with pytest.raises(Cancelled):
        sweep.run_on(llama, prepared, plan, folder, Record(until=3.5))
    stopped = Store(folder).found()
    assert len(stopped.results) == 3
    assert stopped.unfinished == len(stopped.index.points) - 3
    written = {path.name: path.stat().st_mtime_ns for path in (folder / "points").iterdir()}
    record = Record()
    done = sweep.run_on(llama, prepared, plan, folder, record)
    assert [r.quality.kl for r in done.made] == pytest.approx([r.quality.kl for r in found.made], rel=1e-6)
    assert all((folder / "points" / name).stat().st_mtime_ns == time_ for name, time_ in written.items())
    assert {total for _, total, unit, _ in record.seen if unit == "points"} == {len(found.results) - 3}
    assert [seen[0] for seen in record.seen if seen[2] == "points"] == sorted(seen[0] for seen in record.seen if seen[2] == "points")


def test_a_damaged_point_is_done_again_and_a_wider_sweep_keeps_what_is_there(llama, plan, prepared, found, tmp_path):
    folder = tmp_path / "wider"
    few = plan.model_copy(update={"cuts": plan.cuts.model_copy(update={"shares": []})})
    first = sweep.run_on(llama, prepared, few, folder)
    broken = folder / "points" / f"{first.made[0].planned.key}.json"
    broken.write_text(broken.read_text()[:100])
    kept = folder / "points" / f"{first.made[1].planned.key}.json"
    before = kept.stat().st_mtime_ns
    assert Store(folder).found().unfinished == 1
    wider = sweep.run_on(llama, prepared, plan, folder)
    assert len(wider.made) == len(found.made) > len(first.made)
    assert kept.stat().st_mtime_ns == before
    assert json.loads(broken.read_text())["quality"]["kl"] == pytest.approx(first.made[0].quality.kl, rel=1e-6)


def test_other_text_or_weights_are_other_points(llama, plan, prepared, texts_path, llama_folder):
    fewer = asked(llama_folder, texts_path, calibration=plan.calibration.model_dump() | {"max_tokens": 900})
    text, longer = prepared.test_text(100), prepared.test_text(200)
    same = sweep._base(llama, prepared, plan, text)
    assert sweep._base(llama, pipeline.prepare_for(llama, fewer.calibration), fewer, text) != same
    assert sweep._base(llama, prepared, plan, longer) != same
    assert sweep._base(llama, prepared, plan, dataclasses.replace(text, part="held-out")) != same, "the same tokens, but they chose the fit"
    assert sweep._base(llama, prepared, plan.model_copy(update={"cuts": fewer.cuts}), text) == same


def test_killed_in_the_middle_the_same_command_goes_on_and_ends_with_the_same_figures(found, plan, tmp_path):
    file, folder = tmp_path / "sweep.yaml", tmp_path / "sweep"
    file.write_text(plan.to_yaml())
    command = [sys.executable, "-m", "replaceme_core", "sweep", "--sweep", str(file), "--out", str(folder), "--json"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    points = folder / "points"
    while process.poll() is None and len(list(points.glob("[!.]*.json")) if points.is_dir() else []) < 2:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was killed before its end"
    written = {path.name: path.read_bytes() for path in points.glob("[!.]*.json")}
    assert 2 <= len(written) < len(found.results)
    done = CliRunner().invoke(main, command[3:])
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout)
    assert all((points / name).read_bytes() == content for name, content in written.items())
    assert [r["quality"]["kl"] for r in data["results"] if not r["error"]] == pytest.approx([r.quality.kl for r in found.made], rel=1e-4)
    assert set(data["fronts"]) == {"kl_depth", "kl_ms", "kept_depth", "kept_ms"}
    assert set(data["fronts"]["kl_depth"]) <= {r["planned"]["key"] for r in data["results"]}


def test_the_table_of_the_command_line_has_both_fronts_the_gains_and_the_failures(llama_folder, plan, tmp_path):
    timed = plan.measure.model_copy(update={"speed": True, "prompt_tokens": 8, "new_tokens": 2, "repeats": 2})
    cuts = plan.cuts.model_copy(update={"shares": [], "spans": [[(4, 6)], [(3, 9)]]})
    small = plan.model_copy(update={"methods": [MethodSection()], "cuts": cuts, "measure": timed})
    (tmp_path / "sweep.yaml").write_text(small.to_yaml())
    done = CliRunner().invoke(main, ["sweep", "--sweep", str(tmp_path / "sweep.yaml"), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "KL [95 %]" in done.stdout
    assert "depth" in done.stdout
    assert "Ideal: all time in the blocks" in done.stdout
    assert "does not fit a model of 6 blocks" in done.stdout
    taken = CliRunner().invoke(main, ["sweep", "--sweep", str(tmp_path / "sweep.yaml"), "--out", str(llama_folder)])
    assert taken.exit_code == 1
    assert "holds other files and no sweep" in taken.output


def test_every_problem_of_a_sweep_file_is_reported_at_once(tmp_path):
    data = {
        "model": {"path": "demo"},
        "methods": ["cosin", {"name": "cosine", "rigde": 1}, {"name": "drop", "rank": 3}],
        "cuts": {"shares": [1.5], "lengths": [0], "spans": [[3, 1]], "place": 2},
        "measure": {"repeats": 0},
        "span": {"share": 0.5},
    }
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(PlanError) as raised:
        Sweep.read(tmp_path / "sweep.yaml")
    said = str(raised.value)
    for part in ("methods.0.name", "methods.1.rigde: unknown key; did you mean 'ridge'", "'drop' takes no rank", "1.5 is not a share", "0 is not a length",
                 "[(3, 1)] is not a cut", "did you mean 'places'", "measure.repeats", "span: unknown key"):  # fmt: skip
        assert part in said


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"cuts": {}}, "name at least one of spans, shares and lengths"),
        ({"cuts": {"spans": [[1, 2]], "places": 2}}, "criterion and places go with shares or lengths"),
        ({"cuts": {"spans": [[[1, 3], [2, 4]]]}}, "overlap"),
        ({"methods": ["drop", "drop"]}, "'drop' is there twice"),
        ({"methods": []}, "at least 1 item"),
        ({"model": {"path": "demo", "quantisation": "nf4"}}, "held as a whole"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_one_sentence(changes, sentence):
    with pytest.raises(PlanError, match=sentence):
        Sweep.parse({"model": {"path": "demo"}, "cuts": {"shares": [0.25]}} | changes)


def test_a_sweep_file_survives_the_way_through_yaml():
    data = {
        "model": {"path": "demo"},
        "methods": ["drop", {"name": "least_squares", "ridge": 0.1}],
        "cuts": {"spans": [[6, 9], [[1, 2], [4, 5]]], "lengths": [2]},
    }
    whole = Sweep.parse(data)
    assert Sweep.parse(yaml.safe_load(whole.to_yaml())) == whole
    assert whole.cuts.named == [Cut((Span(6, 9),)), Cut((Span(1, 2), Span(4, 5)))]
    assert [method.ridge for method in whole.methods] == [None, 0.1]


def test_tasks_that_are_named_stay_though_they_are_the_default():
    """Left out they follow the model: a foreign one is then asked 'plain'."""
    data = {"model": {"path": "some/model"}, "cuts": {"lengths": [2]}, "evaluation": {"tasks": "demo", "limit": 5}}
    again = Sweep.parse(yaml.safe_load(Sweep.parse(data).to_yaml()))
    assert evaluation_for(again.evaluation, "some/model").tasks == "demo"
    left_out = Sweep.parse(yaml.safe_load(Sweep.parse(data | {"evaluation": {}}).to_yaml()))
    assert evaluation_for(left_out.evaluation, "some/model").tasks == "plain"


@needs_demo
def test_the_example_of_the_presets_runs_in_small(tmp_path):
    """All of its methods and places by hand, one of its shares, little text, one question of each family."""
    whole = yaml.safe_load((ROOT / "assets/presets/sweep.yaml").read_text())
    assert most_points(Sweep.parse(whole), 12) == 18
    whole["calibration"] |= {"max_tokens": 600, "max_length": 64}
    whole["cuts"]["shares"] = [0.125]
    whole["measure"] |= {"test_tokens": 256, "repeats": 1, "prompt_tokens": 8, "new_tokens": 2}
    whole["evaluation"]["limit"] = 1
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(whole))
    done = CliRunner().invoke(main, ["sweep", "--sweep", str(tmp_path / "small.yaml"), "--out", str(tmp_path / "out"), "--json"])
    assert done.exit_code == 0, done.output
    results = json.loads(done.stdout)["results"]
    assert len(results) == 9
    assert [bool(r["error"]) for r in results].count(True) == 1, "low rank is not fitted in sequence"
    assert all(r["kept"]["n_tasks"] == 11 for r in results if not r["error"])
    assert all(r["speed"]["pruned_disk_bytes"] < r["speed"]["original_disk_bytes"] for r in results if not r["error"])


def test_a_model_that_is_not_cut_in_memory_is_refused_before_any_work(llama, plan, prepared, llama_folder, tmp_path):
    from dataclasses import replace

    with pytest.raises(ModelError, match="held quantised or spread"):
        sweep.run_on(replace(llama, checkpoint=llama_folder), prepared, plan, tmp_path / "x")
    with pytest.raises(ModelError, match="reads images"):
        sweep.run_on(replace(llama, family=replace(llama.family, inputs="images")), prepared, plan, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def made(found, key, n_removed, kl, decode=None):
    from dataclasses import replace

    base = found.made[0]
    planned = replace(base.planned, key=key, cut=Cut((Span(1, 1 + n_removed),)))
    return replace(base, planned=planned, quality=replace(base.quality, kl=kl), speed=decode)


def speed(ratio, original_rate):
    same = speed_gain.Range(ratio, ratio, ratio)
    pair = speed_gain.Pair(speed_gain.Range(original_rate, original_rate, original_rate), same, same)
    return speed_gain.SpeedGain("x", speed_gain.Timing(), pair, pair, 1, 1, 1, 1)


def test_the_fronts_of_a_case_worked_by_hand_and_times_that_do_not_drift(found):
    """The machine was half as fast while b was timed: its ratio says that it is the fastest all the same."""
    rows = [made(found, "a", 1, 0.1, speed(1.1, 100)), made(found, "b", 3, 0.5, speed(2.0, 50)), made(found, "c", 2, 0.6, speed(1.5, 100))]
    assert original_ms(rows) == 10
    assert {key: ms for key, (ms, _, _) in drift_free_ms(rows).items()} == pytest.approx({"a": 10 / 1.1, "b": 5.0, "c": 10 / 1.5})
    assert front(rows) == {"a", "b"}
    assert front(rows, against="ms") == {"a", "b"}
    assert front([*rows, made(found, "d", 1, 0.7)], against="ms") == {"a", "b"}, "what was not timed is on no front of time"
    assert front(rows, "kept") == set()
    assert pareto.on_front([(1, 1), (1, 1), (2, 0), (2, 1)]) == [True, True, True, False]


def test_the_share_kept_and_its_interval_are_those_of_resampled_questions():
    generator = np.random.default_rng(3)
    left = {"a": dict(enumerate(generator.random(80) < 0.8)), "b": dict(enumerate(generator.random(40) < 0.6))}
    right = {task: {i: bool(ok and generator.random() < 0.85) for i, ok in rows.items()} for task, rows in left.items()}
    kept = share_kept.share_kept(left, right)
    averages = [np.mean([np.mean(list(rows.values())) for rows in table.values()]) for table in (left, right)]
    assert kept.share == pytest.approx(averages[1] / averages[0])
    assert (kept.n_items, kept.n_tasks) == (120, 2)
    ratios = []
    for _ in range(2000):
        drawn = {task: generator.integers(len(rows), size=len(rows)) for task, rows in left.items()}
        pair = [np.mean([np.mean([table[task][i] for i in picks]) for task, picks in drawn.items()]) for table in (left, right)]
        ratios.append(pair[1] / pair[0])
    assert (kept.low, kept.high) == pytest.approx(tuple(np.percentile(ratios, [2.5, 97.5])), abs=0.02)
    assert share_kept.share_kept(left, left).low == 1 == share_kept.share_kept(left, left).high
    assert share_kept.share_kept(left, {}) is None
    assert share_kept.share_kept({"a": {0: False}}, {"a": {0: True}}) is None


def test_results_are_plain_json_whatever_the_figures_are(found, tmp_path):
    from dataclasses import replace

    store = Store(tmp_path)
    (tmp_path / "points").mkdir()
    base = found.made[0]
    endless = replace(
        base, quality=replace(base.quality, perplexity=float("inf")), kept=share_kept.ShareKept(0.5, 0.4, 0.6, 0.3, 0.6, 10, 2)
    )
    store.write_result(endless)
    assert store.result(base.planned.key) == endless
    json.loads(
        (tmp_path / "points" / f"{base.planned.key}.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON")
    )
    assert isinstance(store.result(base.planned.key), PointResult)
    assert store.result("nothing") is None


def test_benchmarks_are_asked_of_original_and_points_and_a_bad_name_stops_before_any_point(llama, plan, prepared, tmp_path):
    write_tasks(tmp_path / "tasks")
    one = {"methods": [MethodSection()], "cuts": plan.cuts.model_copy(update={"shares": [], "spans": [[(4, 6)]]})}
    section = EvaluationSection(tasks=str(tmp_path / "tasks"))
    asked_too = plan.model_copy(update=one | {"evaluation": section})
    (result,) = sweep.run_on(llama, prepared, asked_too, tmp_path / "out").made
    original = evaluate.evaluate(llama, section)
    assert result.kept.original_average == pytest.approx(original.average)
    assert result.kept.share == pytest.approx(result.kept.average / result.kept.original_average)
    assert result.kept.low <= result.kept.share <= result.kept.high
    assert front([result], "kept") == {result.planned.key}
    with pytest.raises(EvaluationError):
        sweep.run_on(
            llama, prepared, plan.model_copy(update=one | {"evaluation": EvaluationSection(tasks=str(tmp_path))}), tmp_path / "bad"
        )
    assert not list((tmp_path / "bad" / "points").iterdir())
