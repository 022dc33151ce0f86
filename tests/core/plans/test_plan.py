"""Plans: every problem at once, the nearest name for a typo, and the same plan back from YAML."""

import pytest
import yaml
from pydantic import ValidationError

from replaceme_core.errors import PlanError
from replaceme_core.plans.plan import CalibrationSection, ExportSection, MethodSection, PruningPlan, SpanSection

FULL = {
    "model": {"path": "demo", "dtype": "bfloat16", "device": "cpu"},
    "calibration": {
        "source": "a.jsonl",
        "column": "body",
        "max_tokens": 500,
        "max_length": 64,
        "holdout": 0.2,
        "seed": 3,
    },
    "span": {"start": 2, "end": 4},
    "method": {"name": "least_squares", "ridge": 0.01},
    "evaluation": {"tasks": "demo", "limit": 10, "batch_size": 4, "seed": 5},
    "export": {"dtype": "float32", "max_shard_size": "1MB"},
}


def test_a_model_alone_is_a_plan():
    plan = PruningPlan.parse({"model": {"path": "demo"}})
    assert plan.span == SpanSection(share=0.25)
    assert plan.method == MethodSection()
    assert plan.evaluation is None


@pytest.mark.parametrize("data", [FULL, {"model": {"path": "demo"}}, {"model": {"path": "ü/–"}, "export": {}}])
def test_a_plan_comes_back_from_yaml_as_it_was(tmp_path, data):
    plan = PruningPlan.parse(data)
    plan.write(tmp_path / "plan.yaml")
    assert PruningPlan.read(tmp_path / "plan.yaml") == plan
    assert PruningPlan.parse(yaml.safe_load(plan.to_yaml())) == plan
    assert PruningPlan.parse(plan.to_data()) == plan


def test_the_sections_are_written_in_the_order_of_the_stages():
    plan = PruningPlan.parse(dict(reversed(FULL.items())))
    assert list(plan.to_data()) == ["model", "calibration", "span", "method", "evaluation", "export"]


def test_all_problems_are_reported_in_one_message():
    bad = {
        "model": {"dtype": "float8"},
        "calibration": {"max_tokens": "many", "holdout": 1.5, "max_lenght": 5},
        "span": {"start": 4, "end": 2},
        "method": {"name": "magic", "ridge": -1},
        "spam": 1,
    }
    with pytest.raises(PlanError) as caught:
        PruningPlan.parse(bad, origin="my plan")
    message = str(caught.value)
    assert message.startswith("my plan has 9 problem(s):")
    for piece in (
        "model.path: Field required",
        "model.dtype",
        "calibration.max_tokens",
        "calibration.holdout",
        "calibration.max_lenght: unknown key; did you mean 'max_length'?",
        "span: start (4) must be below end (2)",
        "method.name",
        "method.ridge",
        "spam: unknown key",
    ):
        assert piece in message
    assert len(message.splitlines()) == 10


def test_a_plan_that_named_what_a_pass_keeps_is_read_and_told_that_this_has_no_effect(caplog):
    data = {"keep": 8, "budget_gib": 0.5, "max_tokens": 500}
    plan = PruningPlan.parse({"model": {"path": "demo"}, "calibration": data})
    assert plan.calibration == CalibrationSection(max_tokens=500)
    assert [record.message for record in caplog.records] == [
        "calibration.keep and calibration.budget_gib: no effect any more, every span can be fitted after one pass"
    ]
    assert data["keep"] == 8, "what was read stays as it was"


@pytest.mark.parametrize(
    ("section", "key", "near"),
    [
        (None, "modle", "model"),
        (None, "evalution", "evaluation"),
        ("calibration", "max_token", "max_tokens"),
        ("span", "begin", None),
        ("method", "nam", "name"),
        ("evaluation", "limits", "limit"),
        ("export", "dtypes", "dtype"),
    ],
)
def test_an_unknown_key_is_an_error_with_the_nearest_name_or_all_names(section, key, near):
    data = {"model": {"path": "demo"}}
    if section is None:
        data[key] = {}
    else:
        data[section] = {"share": 0.5, key: 1} if section == "span" else {key: 1}
    with pytest.raises(PlanError) as caught:
        PruningPlan.parse(data)
    where = key if section is None else f"{section}.{key}"
    expected = f"did you mean '{near}'?" if near else "valid keys: start, end, more, share, count, criterion, positions"
    assert f"{where}: unknown key; {expected}" in str(caught.value)


@pytest.mark.parametrize(
    ("span", "sentence"),
    [
        ({}, "give either start and end, or share"),
        ({"start": 2, "end": 4, "share": 0.5}, "give either start and end, or share"),
        ({"start": 2}, "start and end go together"),
        ({"end": 2}, "start and end go together"),
        ({"start": 3, "end": 3}, r"start \(3\) must be below end \(3\)"),
        ({"start": 0, "end": 3}, "span.start: Input should be greater than or equal to 1"),
        ({"share": 0}, "span.share"),
        ({"share": 1}, "span.share"),
        ({"start": 1.5, "end": 3}, "span.start"),
    ],
)
def test_contradictions_in_a_span_are_errors_in_words(span, sentence):
    with pytest.raises(PlanError, match=sentence):
        PruningPlan.parse({"model": {"path": "demo"}, "span": span})


@pytest.mark.parametrize("data", [None, [], "model: demo", 3])
def test_something_that_is_no_mapping_is_refused_in_words(data):
    with pytest.raises(PlanError, match=r"a plan is a mapping of sections .*model, calibration"):
        PruningPlan.parse(data)


@pytest.mark.parametrize("text", ["model: [", "\tmodel: x", "model: !!python/object/apply:os.getcwd []"])
def test_yaml_that_cannot_be_read_or_wants_to_run_code_is_refused(tmp_path, text):
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(PlanError, match=r"plan.yaml cannot be read as a YAML plan"):
        PruningPlan.read(tmp_path / "plan.yaml")


def test_a_plan_that_is_not_there_or_not_text_is_refused(tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "none.yaml", tmp_path, tmp_path / "binary.yaml"):
        with pytest.raises(PlanError, match="cannot be read"):
            PruningPlan.read(path)


def test_a_plan_is_frozen():
    plan = PruningPlan.parse(FULL)
    with pytest.raises(ValidationError):
        plan.method = MethodSection()
    with pytest.raises(ValidationError):
        plan.calibration.seed = 4


def test_sections_built_in_python_obey_the_same_rules():
    for build in (lambda: CalibrationSection(holdout=0), lambda: ExportSection(dtype="int4"), SpanSection):
        with pytest.raises(ValidationError):
            build()


@pytest.mark.parametrize("size", ["", "five", "-1GB", "5 apples"])
def test_a_shard_size_that_means_nothing_is_a_problem_of_the_plan(size):
    with pytest.raises(PlanError, match=r"export.max_shard_size"):
        PruningPlan.parse({"model": {"path": "demo"}, "export": {"max_shard_size": size}})


@pytest.mark.parametrize("device", ["gpu", "", "cuda:x"])
def test_a_device_that_does_not_exist_is_a_problem_of_the_plan_or_of_loading(device, llama_folder):
    from replaceme_core.errors import ReplaceMeError
    from replaceme_core.measurement.preflight import preflight
    from replaceme_core.models.loading import load

    for call in (load, preflight):
        with pytest.raises(ReplaceMeError, match="device"):
            call(PruningPlan.parse({"model": {"path": str(llama_folder), "device": device}}).model)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_ridge_that_is_no_number_is_refused(value):
    with pytest.raises(PlanError, match=r"method.ridge"):
        PruningPlan.parse({"model": {"path": "demo"}, "method": {"ridge": value}})


def test_a_calibration_file_that_is_not_here_is_read_from_beside_the_plan(tmp_path, monkeypatch):
    folder = tmp_path / "exported"
    folder.mkdir()
    (folder / "notes.txt").write_text("beside")
    (folder / "both.txt").write_text("beside")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "both.txt").write_text("here")
    data = {"model": {"path": "demo"}, "calibration": {"source": "notes.txt", "second": "both.txt"}}
    PruningPlan.parse(data).write(folder / "recipe.yaml")
    found = PruningPlan.read(folder / "recipe.yaml").calibration
    assert (found.source, found.second) == (str(folder / "notes.txt"), "both.txt")
    PruningPlan.parse({"model": {"path": "demo"}, "calibration": {"source": "gone.txt"}}).write(folder / "gone.yaml")
    assert PruningPlan.read(folder / "gone.yaml").calibration.source == "gone.txt", "the reader of the text names it"


def test_only_files_and_folders_are_files_of_a_section():
    section = CalibrationSection(source="demo:mixture", second="a.txt")
    assert section.files == ["a.txt"]
    for source in ("self", "preset:orca", "hub:owner/name", "demo:facts"):
        assert CalibrationSection(source=source).files == []
    assert CalibrationSection(source="/photos", second="hub:owner/name").files == ["/photos"]


def test_plain_data_leave_out_what_the_plan_would_ignore():
    data = PruningPlan.parse({"model": {"path": "demo"}, "span": {"start": 5, "end": 8}}).to_data()
    assert data["span"] == {"start": 5, "end": 8}
    assert not {"l1", "l2", "attention", "max_iterations"} & data["method"].keys()
    assert "second_share" not in data["calibration"]
    refit = PruningPlan.parse({"model": {"path": "demo"}, "span": {"share": 0.25}, "method": {"name": "refit"}})
    assert refit.to_data()["method"] == {"name": "refit", "attention": True}
    assert refit.to_data()["span"] == {"share": 0.25, "count": 1, "criterion": "sinks_kept", "positions": "all"}
    assert PruningPlan.parse(refit.to_data()) == refit
