"""The leaderboard: rows that carry their evidence, a file that a stopped run goes on from, and the command."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from replaceme_core.artifacts import Span
from replaceme_core.cli.main import main
from replaceme_core.comparison.speed_gain import Timing
from replaceme_core.errors import Cancelled, InputError, NumericsError
from replaceme_core.evaluation.scores import Sample, Score, Scores
from replaceme_core.plans.plan import EvaluationSection
from replaceme_core.studies.leaderboard import contestants, standing
from replaceme_core.studies.leaderboard import run as leaderboard
from replaceme_core.studies.leaderboard.run import Aim
from replaceme_core.studies.leaderboard.standing import kept

QUICK = ("drop", "shortgpt")
TASKS = EvaluationSection(tasks="demo:where,sums", limit=6)


@pytest.fixture(autouse=True, scope="module")
def one_timing():
    """What a token takes is measured once, not five times: no test here reads the figure."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(standing, "TIMING", Timing(8, 2, 1))
        yield


def quick(**changes) -> Aim:
    return Aim(**({"methods": tuple(contestants.find(list(QUICK))), "shares": (0.5,), "evaluation": None} | changes))


@pytest.fixture(scope="module")
def text(calibration):
    return calibration.test_text(500)


@pytest.fixture(scope="module")
def first(llama, calibration, text, tmp_path_factory):
    """(rows, file) of one small run with benchmarks."""
    out = tmp_path_factory.mktemp("board") / "rows.jsonl"
    return leaderboard.run(llama, calibration, text, quick(evaluation=TASKS), out), out


def test_the_original_comes_first_and_every_row_has_its_figures(first, llama):
    rows, out = first
    assert [row["method"] for row in rows] == ["original", *QUICK]
    assert [json.loads(line)["method"] for line in out.read_text().splitlines()] == ["original", *QUICK]
    assert rows[0]["kl"] == 0
    assert (rows[0]["kept"], rows[0]["kept_low"], rows[0]["kept_high"]) == (1, 1, 1)
    for row in rows[1:]:
        assert row["n_removed"] == 3
        assert row["parameters"] + row["parameters_removed"] == llama.n_parameters
        assert row["kl_low"] <= row["kl"] <= row["kl_high"]
        assert row["n_items"] == 12
        assert row["kept_low"] <= row["kept"] <= row["kept_high"]
        assert all(proof["passed"] for proof in row["proofs"])
        assert row["ms_per_token"] > 0
        assert row["bytes"] < rows[0]["bytes"]
        assert row["seconds"] > 0
        assert row["training"] is False
        assert row["settings"]["test_tokens"] == 500
        assert (row["part"], row["settings"]["part"]) == ("test", "test")
    average = [np.mean([task["value"] for task in row["tasks"].values()]) for row in rows]
    assert [row["average"] for row in rows] == pytest.approx(average)
    errors = [task["stderr"] for task in rows[1]["tasks"].values()]
    assert rows[1]["average_stderr"] == pytest.approx(float(np.hypot(*errors)) / 2)


def test_a_finished_run_is_read_and_not_made_again(first, llama, calibration, text, monkeypatch):
    rows, out = first
    monkeypatch.setattr(leaderboard, "standing", lambda *_: pytest.fail("a finished row was made again"))
    assert leaderboard.run(llama, calibration, text, quick(evaluation=TASKS), out) == rows


def test_a_run_that_was_cancelled_goes_on_where_it_stopped(llama, calibration, text, tmp_path):
    class Stop:
        def update(self, done, total, unit, what):  # noqa: ARG002
            if done == 2:
                raise Cancelled("stopped")

    out = tmp_path / "folder" / "rows.jsonl"
    with pytest.raises(Cancelled):
        leaderboard.run(llama, calibration, text, quick(), out, Stop())
    assert [row["method"] for row in leaderboard.read(out)] == ["original", "drop"]
    before = out.read_text()
    out.write_text(before + '{"method": "shortg')  # what a killed process leaves
    assert [row["method"] for row in leaderboard.run(llama, calibration, text, quick(), out)] == ["original", *QUICK]
    assert [row["method"] for row in leaderboard.read(out)] == ["original", *QUICK]


def rows_in(path: Path) -> list[str]:
    return [row["method"] for row in leaderboard.read(path)]


def test_a_row_ends_at_its_line_and_at_no_other_break(tmp_path):
    """U+2028 and U+0085 may stand in a JSON text; a process may be killed within a letter, or before the end of a line."""
    out, settings = tmp_path / "rows.jsonl", {"model": "m"}
    leaderboard.Record(out, settings).add({"method": "original", "n_removed": 0, "notes": ["a\u2028b", "c\x85d"]})
    assert rows_in(out) == ["original"]
    with out.open("ab") as file:
        file.write('{"method": "drop", "notes": ["\u00fc'.encode()[:-1])
    leaderboard.Record(out, settings).add({"method": "drop", "n_removed": 3})
    assert rows_in(out) == ["original", "drop"]
    out.write_bytes(out.read_bytes().removesuffix(b"\n"))
    record = leaderboard.Record(out, settings)
    assert record.done("drop", 3)
    record.add({"method": "uidl", "n_removed": 3})
    assert rows_in(out) == ["original", "drop", "uidl"]


FOREIGN = {
    "one line of JSON without an end": b'{"my": "precious results"}',
    "JSON that begins as a row": b'{"method": "GET", "url": "/"}',
    "one line of text": b"my precious thesis",
    "half a line of other JSON": b'{"my": "preci',
    "a row and a line of text": b'{"method": "x", "n_removed": 1, "settings": {}}\nmy precious thesis\n',
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_file_that_is_no_leaderboard_is_refused_and_stays_as_it_is(tmp_path, what):
    out = tmp_path / "precious.json"
    out.write_bytes(FOREIGN[what])
    with pytest.raises(InputError, match=r"Line \d of '.*precious.json' is no row of a leaderboard; choose another file \(--out\)"):
        leaderboard.Record(out, {}).add({"method": "original", "n_removed": 0})
    assert out.read_bytes() == FOREIGN[what]


def test_half_of_the_first_row_is_cut_off(tmp_path):
    out = tmp_path / "rows.jsonl"
    for half in (b"{", b'{"method": "orig'):
        out.write_bytes(half)
        leaderboard.Record(out, {}).add({"method": "original", "n_removed": 0})
        assert rows_in(out) == ["original"]


def test_rows_of_other_settings_are_not_mixed_in(first, llama, calibration, text):
    with pytest.raises(InputError, match="seed: 0 there, 1 here"):
        leaderboard.run(llama, calibration, text, quick(evaluation=TASKS, seed=1), first[1])


@pytest.mark.parametrize(
    ("changes", "said"), [({"num_fewshot": 1}, "num_fewshot: None there, 1 here"), ({"seed": 7}, "tasks_seed: 1234 there, 7 here")]
)
def test_rows_carry_the_solved_examples_and_the_seed_of_the_questions(first, llama, calibration, text, changes, said):
    with pytest.raises(InputError, match=said):
        leaderboard.run(llama, calibration, text, quick(evaluation=TASKS.model_copy(update=changes)), first[1])


def test_rows_of_an_older_format_are_not_mixed_in(first, llama, calibration, text, tmp_path):
    old = [row | {"settings": {k: v for k, v in row["settings"].items() if k != "format"}} for row in first[0]]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in old))
    with pytest.raises(InputError, match=r"format: None there, \d here"):
        leaderboard.run(llama, calibration, text, quick(evaluation=TASKS), tmp_path / "rows.jsonl")


def test_rows_of_other_questions_under_the_same_name_are_not_mixed_in(llama, calibration, text, tmp_path):
    own = tmp_path / "own.jsonl"
    own.write_text('{"question": "w1 w2", "choices": ["w3", "w4"], "answer": 0}\n')
    aim = quick(methods=quick().methods[:1], evaluation=EvaluationSection(tasks=str(own)))
    leaderboard.run(llama, calibration, text, aim, tmp_path / "rows.jsonl")
    own.write_text('{"question": "w5 w6", "choices": ["w3", "w4"], "answer": 1}\n')
    with pytest.raises(InputError, match="tasks_identity"):
        leaderboard.run(llama, calibration, text, aim, tmp_path / "rows.jsonl")


def test_a_method_that_fails_leaves_its_reason_and_is_tried_again(llama, calibration, text, tmp_path):
    def broken(*_):
        raise NumericsError("It cannot be done here; use more tokens.")

    out = tmp_path / "rows.jsonl"
    (drop,) = contestants.find(["drop"])
    rows = leaderboard.run(llama, calibration, text, quick(methods=(dataclasses.replace(drop, make=broken),)), out)
    assert rows[1]["error"].startswith("It cannot")
    again = leaderboard.run(llama, calibration, text, quick(methods=(drop,)), out)
    assert "error" not in again[1]


def test_shares_that_mean_the_same_blocks_are_run_once_and_bad_ones_refused(llama, calibration, text):
    rows = leaderboard.run(llama, calibration, text, quick(methods=quick().methods[:1], shares=(0.5, 0.51)))
    assert len(rows) == 2
    with pytest.raises(InputError, match="between 0 and 1"):
        leaderboard.run(llama, calibration, text, quick(shares=(1.5,)))


def test_our_methods_stand_at_the_span_of_least_distance(llama, calibration, measurement):
    setting = contestants.Setting(llama, calibration, measurement)
    values = measurement.distances["all"].values
    best = min(range(1, 5), key=lambda start: float(values[start, start + 2]))
    assert contestants.place(setting, 2) == Span(best, best + 2)
    made = {row.name: row.make(setting, 2, leaderboard.SILENT) for row in contestants.find(["drop", "weighted_least_squares", "refit"])}
    assert {pruned.removed for pruned in made.values()} == {(best, best + 1)}
    assert len({pruned.handle.fingerprint for pruned in made.values()}) == 3


def test_the_healed_rows_train_and_are_asked_for(llama, calibration, measurement, monkeypatch):
    monkeypatch.setattr(contestants, "HEALING_STEPS", 2)
    assert {row.name for row in contestants.find(None, True)} - {row.name for row in contestants.find(None)} == {
        "deep_refit",
        "weighted_least_squares_healed",
        "uidl_healed",
    }
    setting = contestants.Setting(llama, calibration, measurement)
    (row,) = contestants.find(["uidl_healed"])
    made = row.make(setting, 2, leaderboard.SILENT)
    assert made.training
    assert row.training
    assert made.figures["healing"]["steps"] == 2


def test_the_share_kept_is_paired():
    """Two models with the same errors: the interval of each average is wide, that of their ratio is a point."""
    answers = {"a": "0110100111", "b": "1111100000"}
    tasks = {task: {"value": bits.count("1") / 10, "stderr": 0.1, "n": 10} for task, bits in answers.items()}
    one = {"average": 0.55, "tasks": tasks, "answers": answers}
    assert kept(one, one) == {"kept": 1.0, "kept_low": 1.0, "kept_high": 1.0}
    other = one | {"answers": {"a": "0110100110", "b": "1111100000"}, "average": 0.5}
    found = kept(other, one)
    assert found["kept"] == pytest.approx(0.5 / 0.55)
    assert found["kept_low"] < found["kept"] < found["kept_high"] == 1
    assert kept(one | {"answers": {"a": "", "b": ""}}, one)["kept_low"] is None


def test_parts_of_a_point_stay_parts_in_a_row():
    """truthfulqa_mc2 gives the probability on true answers: a row holds the numbers, and right and wrong as before in one sign each."""

    def scored(*points: float) -> Scores:
        of = {"mc2": list(points), "plain": [1.0, 0.0]}
        samples = {task: [Sample(i, "", [], -1, -1, None, {"acc": value}) for i, value in enumerate(each)] for task, each in of.items()}
        results = {task: {"acc": Score(float(np.mean(each)), 0.1, len(each))} for task, each in of.items()}
        return Scores("model", results, None, {}, samples)

    dense, own = standing.benchmarks(scored(0.9, 0.8, 0.7)), standing.benchmarks(scored(0.5, 0.3, 0.1))
    assert dense["answers"] == {"mc2": [0.9, 0.8, 0.7], "plain": "10"}
    found = kept(json.loads(json.dumps(own)), json.loads(json.dumps(dense)))
    assert found["kept"] == pytest.approx((0.3 + 0.5) / (0.8 + 0.5))
    assert found["kept_low"] < found["kept"] < found["kept_high"]


def test_rows_of_the_last_format_are_read_on_where_their_marks_make_their_figures(first, llama, calibration, text, tmp_path, monkeypatch):
    """That format counted a part of a point as a right answer; of right and wrong alone it says what a row of today says."""
    rows, _ = first
    old = [row | {"settings": row["settings"] | {"format": 3}} for row in rows]
    monkeypatch.setattr(leaderboard, "standing", lambda *_: pytest.fail("a finished row was made again"))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in old))
    assert leaderboard.run(llama, calibration, text, quick(evaluation=TASKS), tmp_path / "rows.jsonl") == rows
    old[0] |= {"answers": {task: "1" * len(bits) for task, bits in rows[0]["answers"].items()}}
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in old))
    with pytest.raises(InputError, match="format: 3 there, 4 here"):
        leaderboard.run(llama, calibration, text, quick(evaluation=TASKS), tmp_path / "rows.jsonl")


def test_the_rows_that_are_shipped_are_of_today():
    shipped = list(leaderboard.read(Path(__file__).resolve().parents[3] / "benchmarks" / "leaderboard.jsonl"))
    assert len(shipped) > 80
    assert {leaderboard._today(row)["settings"]["format"] for row in shipped} == {leaderboard.FORMAT}


def test_the_command_lists_everyone_without_a_model():
    result = CliRunner().invoke(main, ["leaderboard", "--list", "--json"])
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert {"uidl", "shortgpt", "sleb", "laco", "llm_streamline", "secretly_linear", "slicegpt", "llm_pruner"} <= {
        row["method"] for row in rows
    }
    assert {row["method"] for row in rows if row["training"]} >= {"llm_streamline", "deep_refit", "uidl_healed"}
    assert all(row["arxiv"] for row in rows if row["group"] == "field")
    words = CliRunner().invoke(main, ["leaderboard", "--list"]).stdout
    assert "arXiv 2402.09025" in words
    with_model = CliRunner().invoke(main, ["leaderboard", "--model", "nowhere", "--list", "--json"])
    assert json.loads(with_model.stdout) == rows


def test_the_command_makes_rows_and_says_what_it_lacks(llama_folder, texts, tmp_path):
    text = tmp_path / "text.jsonl"
    text.write_text("\n".join(json.dumps({"text": row}) for row in texts))
    arguments = ["leaderboard", "--model", str(llama_folder), "--calibration", str(text), "--max-tokens", "600", "--tasks", "none"]
    arguments += ["--methods", "drop,uidl_simple", "--shares", "0.34", "--out", str(tmp_path / "rows.jsonl")]
    result = CliRunner().invoke(main, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [row["method"] for row in rows] == ["original", "drop", "uidl_simple"]
    words = CliRunner().invoke(main, arguments)
    assert "no benchmarks; KL in nats per token" in words.stdout
    for wrong, said in ((["--methods", "magic"], "choose of drop"), (["--shares", "a"], "list of shares")):
        failed = CliRunner().invoke(main, [*arguments, *wrong])
        assert failed.exit_code == 1
        assert said in failed.output
    assert "Name a model" in CliRunner().invoke(main, ["leaderboard"]).output
