"""The Benchmarks page: suites, own questions, cancelled and kept runs, tests and flips, files there and back."""

import json
from pathlib import Path

import pytest

from replaceme_core.evaluation import harness_files, store, tables
from replaceme_core.plans.plan import EvaluationSection
from replaceme_core.storage import cache
from tests.support.app_session import click, finish, needs_demo, open_page, run, text_of
from ui.benchmarks import files as score_files_view
from ui.benchmarks import jobs as benchmark_runs
from ui.look.systems import CUT, ORIGINAL
from ui.session import variants
from ui.session.jobs import Job, runner
from ui.session.results import Results
from ui.session.state import Studio

pytestmark = [pytest.mark.usefixtures("at_the_root"), needs_demo]
PAGE = "pages/5_Benchmarks.py"
SECTION = EvaluationSection(tasks="demo:where,order,probe:copy", limit=6)


@pytest.fixture
def columns(kept: Studio):
    return variants.systems(kept, list(kept.variants)[-1:])


@pytest.fixture
def fresh(kept: Studio, monkeypatch, tmp_path):
    """Nothing is scored, in this session or on disk."""
    monkeypatch.setenv(cache.CACHE, str(tmp_path / "cache"))
    monkeypatch.setattr(store, "_kept", {})
    kept.slot(Results).scores.clear()
    kept.slot(benchmark_runs.KnownScores).by_key.clear()
    kept.slot(benchmark_runs.ImportedScores).by_name.clear()
    yield kept
    kept.slot(Results).scores.clear()
    kept.slot(benchmark_runs.KnownScores).by_key.clear()


def open_demo(state: Studio, limit: int = 6):
    """The page with two demo tasks chosen."""
    app = open_page(PAGE, state)
    app.number_input(key="bench_limit").set_value(limit)
    app.button_group(key="bench_demo_tasks").set_value(["where", "order"])
    return run(app)


def table_of(app):
    """The table with a row per task."""
    return next(frame.value for frame in app.dataframe if "task" in frame.value.columns and ORIGINAL in frame.value.columns)


def test_a_run_from_the_page_ends_in_bars_a_table_and_flips(fresh: Studio) -> None:
    app = open_demo(fresh)
    assert "Nothing is scored" in text_of(app)
    click(app, "Run on 3 models")
    finish(runner().latest(fresh.owner))
    run(app)
    shown = text_of(app)
    assert "12 questions in 2 tasks" in shown
    assert "Which answers changed?" in shown
    assert "The limit leaves few questions" in shown
    paper = table_of(app)
    assert list(paper.columns) == ["task", ORIGINAL, CUT, "first"]
    assert sorted(paper["task"]) == sorted(["order", "where", "average", tables.RELATIVE])
    assert paper.set_index("task").loc[tables.RELATIVE, ORIGINAL] == "100.0"
    figures = next(frame.value for frame in app.dataframe if "few_shot" in frame.value.columns)
    assert set(figures["n"]) == {6}


def test_choosing_and_writing_of_one_name_stand_side_by_side_in_the_table(fresh: Studio, columns) -> None:
    section = EvaluationSection(tasks="demo:arithmetic,probe:arithmetic,repetition", limit=4)
    finish(benchmark_runs.run(fresh, columns, section))
    app = open_page(PAGE, fresh)
    app.number_input(key="bench_limit").set_value(4)
    app.button_group(key="bench_demo_tasks").set_value(["arithmetic"])
    app.toggle(key="bench_write").set_value(True)
    run(app)
    app.button_group(key="bench_families").set_value(["arithmetic", "repetition"])
    run(app)
    assert sorted(table_of(app)["task"]) == sorted(["arithmetic", "arithmetic, generated", "average", tables.RELATIVE])
    assert "Can it still generate?" in text_of(app)
    tests = next(frame.value for frame in app.dataframe if "reads as" in frame.value.columns)
    assert set(tests["task"]) == {"arithmetic", "arithmetic, generated", "repetition, generated"}


def test_what_another_session_scored_is_here_at_once(fresh: Studio, columns) -> None:
    finish(benchmark_runs.run(fresh, columns, EvaluationSection(tasks="demo:order,where", limit=6)))
    finish(benchmark_runs.run(fresh, columns, EvaluationSection(tasks="demo:where,order", limit=6)))
    fresh.slot(Results).scores.clear()
    fresh.slot(benchmark_runs.KnownScores).by_key.clear()
    store._kept.clear()
    app = open_demo(fresh)
    assert any(button.label == "All results are here" for button in app.button)
    assert "Which answers changed?" in text_of(app)


def test_a_cancelled_run_shows_what_is_finished_and_offers_to_go_on(fresh: Studio, columns, monkeypatch) -> None:
    """Cancelled while the second task is asked; by then the first one is there for all models, and the page was told so."""
    update, told = Job.update, []

    def stop_at_the_second(self, done, total, unit, what):
        if "(task 2" in what:
            self.cancel.set()
            known = benchmark_runs.scored(fresh, columns, EvaluationSection(tasks="demo:where,order", limit=6)).values()
            told.append((self.pictures, self.stoppable, [list(scores.results) for scores in known]))
        update(self, done, total, unit, what)

    monkeypatch.setattr(Job, "update", stop_at_the_second)
    job = benchmark_runs.run(fresh, columns, EvaluationSection(tasks="demo:where,order", limit=6))
    assert job.finished.wait(60)
    assert job.state == "cancelled"
    assert told[0] == (3, False, [["demo_where"]] * 3)
    found = benchmark_runs.scored(fresh, columns, EvaluationSection(tasks="demo:where,order", limit=6))
    assert list(found[ORIGINAL].results) == ["demo_where"]
    assert found[ORIGINAL].missing == ["demo_order"]
    app = open_demo(fresh)
    assert any(button.label == "Go on with 3 models" for button in app.button)


def test_writing_has_a_part_of_its_own_and_stays_out_of_the_average(fresh: Studio, columns) -> None:
    finish(benchmark_runs.run(fresh, columns, SECTION))
    scores = benchmark_runs.scored(fresh, columns, SECTION)[ORIGINAL]
    accuracies = [scores.results[task]["acc"].value for task in ("demo_where", "demo_order")]
    assert scores.average == pytest.approx(sum(accuracies) / 2)
    app = open_page(PAGE, fresh)
    app.selectbox(key="bench_suite").set_value("writing")
    app.number_input(key="bench_limit").set_value(6)
    run(app)
    app.button_group(key="bench_families").set_value(["copy"])
    run(app)
    assert "Can it still generate?" in text_of(app)


def test_own_questions_are_uploaded_read_strictly_and_asked(fresh: Studio) -> None:
    app = open_page(PAGE, fresh)
    app.selectbox(key="bench_suite").set_value("own")
    run(app)
    assert "one question per line" in text_of(app)
    broken = json.dumps({"question": "Where?", "choices": ["a"], "answer": 0})
    app.file_uploader(key="bench_own").upload("mine.jsonl", broken.encode(), "application/json")
    run(app)
    assert "mine.jsonl, line 1: 'choices' must be a list of two or more texts" in text_of(app)
    good = "\n".join(
        json.dumps({"question": f"Tom is in the {p}.\nWhere is Tom?", "choices": ["barn", "park"], "answer": p}) for p in ("barn", "park")
    )
    app.file_uploader(key="bench_own").upload("mine.jsonl", good.encode(), "application/json")
    run(app)
    assert "2 questions, multiple choice" in text_of(app)
    click(app, "Run on 3 models")
    finish(runner().latest(fresh.owner))
    assert "2 questions in 1 tasks" in text_of(run(app))


def test_scores_from_a_cluster_stand_beside_and_are_tested(fresh: Studio, columns) -> None:
    finish(benchmark_runs.run(fresh, columns, EvaluationSection(tasks="demo:where,order", limit=6)))
    scores = benchmark_runs.scored(fresh, columns, EvaluationSection(tasks="demo:where,order", limit=6))["first"]
    files = harness_files.to_files(scores, "x")
    app = open_demo(fresh)
    app.file_uploader(key="bench_import").set_value([(name, text.encode(), "application/json") for name, text in files.items()])
    run(app)
    click(app, "Set 1 beside these")
    assert f"file: {scores.model}" in text_of(app)
    paper = table_of(app)
    assert list(paper[f"file: {scores.model}"]) == list(paper["first"])
    app.file_uploader(key="bench_import").set_value([("results_y.json", b'{"results": {}}', "application/json")])
    run(app)
    click(app, "Set 1 beside these")
    assert "results_y.json holds no figures of tasks" in text_of(app)


def test_the_archive_of_scores_is_one_folder_per_system_that_reads_back(fresh: Studio, columns, tmp_path: Path) -> None:
    import io
    import zipfile

    section = EvaluationSection(tasks="demo:where", limit=6)
    finish(benchmark_runs.run(fresh, columns, section))
    systems = benchmark_runs.scored(fresh, columns, section)
    with zipfile.ZipFile(io.BytesIO(score_files_view._zip(systems))) as archive:
        archive.extractall(tmp_path / "out")
    folders = sorted((tmp_path / "out").iterdir())
    assert [harness_files.read(folder).results for folder in folders] == [scores.results for scores in systems.values()]


def test_any_task_of_lm_eval_is_found_by_searching_its_list(fresh: Studio, monkeypatch) -> None:
    from replaceme_core.evaluation import task_index

    known = {"arc_easy": task_index.Known("arc_easy", "task", "arc"), "mmlu": task_index.Known("mmlu", "group", "mmlu", ("a", "b"))}
    monkeypatch.setattr(task_index, "is_built", lambda: False)
    app = open_page(PAGE, fresh)
    app.selectbox(key="bench_suite").set_value("names")
    run(app)
    assert any(button.label == "Read the list of tasks" for button in app.button)
    monkeypatch.setattr(task_index, "is_built", lambda: True)
    monkeypatch.setattr(task_index, "index", lambda *_: known)
    run(app)
    app.text_input(key="bench_query").set_value("mm")
    run(app)
    assert app.multiselect(key="bench_names").options == ["mmlu · group of 2"]
    app.multiselect(key="bench_names").select("mmlu")
    run(app)
    app.text_input(key="bench_query").set_value("arc")
    run(app)
    assert app.multiselect(key="bench_names").value == ["mmlu"]
    assert any(button.label == "Run on 3 models" for button in app.button)


def test_a_shared_server_offers_what_needs_no_network(fresh: Studio, monkeypatch) -> None:
    monkeypatch.setenv("REPLACEME_MODELS", "demo")
    app = open_page(PAGE, fresh)
    assert app.selectbox(key="bench_suite").options == [
        "Demo suite (offline)",
        "Plain English (offline)",
        "Generation only (offline)",
        "Your own questions",
    ]


def test_plain_english_is_offered_to_every_model_and_the_demo_suite_to_the_demo_alone(foreign: Studio, fresh: Studio) -> None:
    demo = open_page(PAGE, fresh)
    assert demo.selectbox(key="bench_suite").options[:2] == ["Demo suite (offline)", "Plain English (offline)"]
    demo.selectbox(key="bench_suite").set_value("plain")
    run(demo)
    demo.button_group(key="bench_plain_tasks").set_value(["capitals", "perplexity"])
    run(demo)
    assert "Nothing is scored" in text_of(demo)
    app = open_page(PAGE, foreign)
    assert app.selectbox(key="bench_suite").options[0] == "Plain English (offline)"
    app.number_input(key="bench_limit").set_value(2)
    run(app)
    app.button_group(key="bench_plain_tasks").set_value(["capitals", "sums"])
    run(app)
    click(app, "Run on 3 models")
    finish(runner().latest(foreign.owner))
    run(app)
    assert "4 questions in 2 tasks" in text_of(app)


def test_the_chat_template_is_offered_where_there_is_one_off_at_first_and_changes_the_section(fresh: Studio, monkeypatch) -> None:
    asked: list[EvaluationSection] = []
    scored = benchmark_runs.scored
    monkeypatch.setattr(benchmark_runs, "scored", lambda state, columns, section: asked.append(section) or scored(state, columns, section))
    app = open_demo(fresh)
    assert "bench_chat" not in [toggle.key for toggle in app.toggle]
    assert (asked[-1].apply_chat_template, asked[-1].system_instruction) == (False, None)
    tokenizer = fresh.resident.handle.tokenizer
    monkeypatch.setattr(tokenizer, "chat_template", "{% for m in messages %}{{ m['content'] }}\n{% endfor %}", raising=False)
    app = open_demo(fresh)
    assert asked[-1].apply_chat_template is False
    assert "bench_turns" not in [toggle.key for toggle in app.toggle]
    app.toggle(key="bench_chat").set_value(True)
    app.text_input(key="bench_system").set_value(" Be brief. ")
    run(app)
    app.toggle(key="bench_turns").set_value(False)
    run(app)
    assert asked[-1].told == {"apply_chat_template": True, "fewshot_as_multiturn": False, "system_instruction": "Be brief."}


def test_a_template_that_refuses_a_system_message_is_a_sentence_on_the_page(fresh: Studio, monkeypatch) -> None:
    refuses = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}{{ messages[0]['content'] }}"
    monkeypatch.setattr(fresh.resident.handle.tokenizer, "chat_template", refuses, raising=False)
    app = open_demo(fresh)
    app.toggle(key="bench_chat").set_value(True)
    app.text_input(key="bench_system").set_value("Be brief.")
    run(app)
    click(app, "Run on 3 models")
    job = runner().latest(fresh.owner)
    assert job.finished.wait(120)
    assert job.state == "failed"
    assert "no system role" in job.error
    assert "leave system_instruction out" in job.error
