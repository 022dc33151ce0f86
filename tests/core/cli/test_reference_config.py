"""The public library's YAML: every key does something, contradictions are told together, and what is written is ours."""

import json

import pytest
import torch
import yaml
from click.testing import CliRunner
from transformers import AutoModelForCausalLM

from replaceme_core.artifacts import DistanceMatrix
from replaceme_core.cli import reference as cli_reference
from replaceme_core.cli.reference_config import ReferenceConfig
from replaceme_core.errors import PlanError, SpanError
from replaceme_core.plans.plan import PruningPlan
from tests.core.evaluation.test_evaluate import write_tasks


def ran(command: str, config: dict, tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    return CliRunner().invoke(getattr(cli_reference, command), ["--config", str(tmp_path / "config.yaml"), "--json"])


@pytest.fixture(scope="module")
def texts_file(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    path.write_text("\n".join(json.dumps({"body": text}) for text in texts))
    return path


@pytest.fixture
def base(llama_folder, texts_file, tmp_path):
    return {
        "model_path": str(llama_folder), "dataset": str(texts_file), "dataset_column": "body", "dataset_size": 20, "max_length": 32,
        "layers_to_skip": 2, "save_path": str(tmp_path / "out"),
    }  # fmt: skip


def test_a_plan_with_every_key_runs(base, tmp_path):
    tasks, _ = write_tasks(tmp_path / "tasks")
    config = base | {
        "method": "cosine", "dataset_subset": "train", "batch_size": 4, "use_4bit": False, "min_distance_layer": 3, "merge_consecutive": True,
        "num_A": 1, "alpha": 0.01, "diag": False, "two_vectors": False, "thri": False, "solver": "l-bfgs", "loss": "mse", "accurate": True,
        "distances_path": str(tmp_path / "distances.json"), "save_transform_only": False, "transform_alone": False, "activations_save_path": None, "tasks": [str(tasks)], "fewshots": 0,
        "token": "hf_a_secret",
    }  # fmt: skip
    assert config.keys() == ReferenceConfig.model_fields.keys()
    done = ran("run_replaceme", config, tmp_path)
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout)
    plan = PruningPlan.read(tmp_path / "out" / "recipe.yaml")
    assert plan.span.start >= 3
    assert plan.span.end - plan.span.start == 2
    assert plan.method.model_dump(include={"name", "loss", "l2"}) == {"name": "lbfgs", "loss": "mse", "l2": 0.01}
    assert (plan.calibration.max_tokens, plan.calibration.max_texts, plan.calibration.column) == (640, 20, "body")
    assert plan.calibration.test_tokens == 0, "these commands compare nothing, so that no text is left unread"
    assert len(json.loads((tmp_path / "distances.json").read_text())["cosine_last"]) == 7
    assert len(data["scores"]) == 2
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.num_hidden_layers == 4
    for path in tmp_path.rglob("*"):
        assert path.name == "config.yaml" or path.is_dir() or b"hf_a_secret" not in path.read_bytes(), path


def test_what_it_wrote_is_repeated_by_a_run_of_ours_to_the_last_bit(base, tmp_path):
    from tests.core.cli.test_cli import inside

    assert ran("run_replaceme", base | {"alpha": 0.1}, tmp_path).exit_code == 0
    done = inside("run", "--plan", tmp_path / "out" / "recipe.yaml", "--out", tmp_path / "again")
    assert done.exit_code == 0, done.output
    for name in ("transform.safetensors", "model.safetensors"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / "model" / name).read_bytes()


SETTINGS = [
    ({"diag": True}, {"name": "least_squares", "structure": "diagonal"}),
    ({"thri": True, "alpha": 0.1}, {"name": "least_squares", "structure": "triangular", "ridge": 0.1}),
    ({"two_vectors": True}, {"name": "least_squares", "structure": "low_rank", "rank": 1}),
    ({"alpha": 0}, {"name": "least_squares", "structure": "full", "ridge": 0}),
    ({"method": "cosine"}, {"name": "adam", "loss": "cosine_simplified"}),
    ({"method": "cosine", "solver": "cg", "accurate": True}, {"name": "nonlinear_cg", "loss": "cosine"}),
    ({"method": "cosine", "solver": "trust-ncg", "loss": "mse"}, {"name": "trust_region", "loss": "mse"}),
    ({"method": "cosine", "loss": "elasticnet", "alpha": 0.1}, {"name": "adam", "loss": "mse", "l1": 0.1, "l2": 0.1}),
]


@pytest.mark.parametrize(("given", "expected"), SETTINGS, ids=[str(given) for given, _ in SETTINGS])
def test_every_way_to_fit_maps_onto_a_method_of_ours(given, expected):
    config = ReferenceConfig.parse({"model_path": "demo", **given})
    assert config.method_section() == expected
    assert config.plan().method.name == expected["name"]


def test_four_bits_and_a_transform_alone(base, wide, tmp_path):
    config = base | {"model_path": str(wide()), "use_4bit": True, "transform_alone": True}
    done = ran("get_lt_with_lstsq", config, tmp_path)
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["recipe.yaml", "report.json", "transform.safetensors"]
    assert PruningPlan.read(tmp_path / "out" / "recipe.yaml").model.quantisation == "nf4"


@pytest.mark.parametrize("merge", [True, False])
def test_several_spans_touch_only_where_they_may(base, tmp_path, merge):
    config = base | {"layers_to_skip": 1, "num_A": 2, "merge_consecutive": merge, "distances_path": str(tmp_path / "d" / "distances.json")}
    assert ran("get_distance_analysis", config, tmp_path).exit_code == 0
    written = (tmp_path / "d" / "distances.json").stat().st_mtime_ns
    done = ran("run_replaceme", config, tmp_path)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "d" / "distances.json").stat().st_mtime_ns == written, "distances that are there are not measured anew"
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.num_hidden_layers == 4
    spans = json.loads(done.stdout)["span"].split(", ")
    assert merge or len(spans) == 2


def test_uidl_removes_without_a_transform(base, tmp_path):
    done = ran("run_uidl", base, tmp_path)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["method"] == "drop"
    assert not (tmp_path / "out" / "transform.safetensors").exists()


def test_a_solver_command_takes_no_other_method_and_scores_need_tasks(base, tmp_path):
    done = ran("get_lt_with_solvers", base | {"method": "lstsq"}, tmp_path)
    assert (done.exit_code, "method is lstsq" in done.stderr) == (1, True)
    done = ran("evaluate_model", base, tmp_path)
    assert (done.exit_code, "tasks is missing" in done.stderr) == (1, True)


def test_evaluate_model_scores_the_model_itself(base, tmp_path):
    tasks, _ = write_tasks(tmp_path / "tasks")
    done = ran("evaluate_model", base | {"tasks": str(tasks)}, tmp_path)
    assert done.exit_code == 0, done.output
    assert "toy_choice" in json.loads(done.stdout)["results"]


def distances(rows: list[float]) -> DistanceMatrix:
    """Six blocks; the distance of a span is the sum of its blocks'."""
    values = torch.full((7, 7), torch.nan, dtype=torch.float64)
    for start in range(7):
        for end in range(start, 7):
            values[start, end] = sum(rows[start:end])
    return DistanceMatrix(values, "last", 10, 2, values)


def test_the_blocks_are_chosen_by_the_least_sum_of_distances_from_the_first_that_may_go():
    near = distances([0, 1, 1, 9, 2, 2])
    config = ReferenceConfig.parse({"model_path": "demo", "layers_to_skip": 2})
    assert str(config.choose(near)) == "1:3"
    assert str(config.model_copy(update={"min_distance_layer": 2}).choose(near)) == "4:6"
    assert str(config.model_copy(update={"num_A": 2}).choose(near)) == "1:3, 4:6"
    one = config.model_copy(update={"num_A": 2, "layers_to_skip": 1})
    assert str(one.choose(near)) == "1:3", "touching spans become one"
    assert str(one.model_copy(update={"merge_consecutive": False}).choose(near)) == "1:2, 4:5"
    with pytest.raises(SpanError, match="lower layers_to_skip, num_A or min_distance_layer"):
        config.model_copy(update={"min_distance_layer": 5}).choose(near)


def test_unknown_keys_and_contradictions_are_told_together_with_the_nearest_name():
    config = {
        "layer_to_skip": 8, "solvers": "adam", "alpha": -1, "method": "lstsq", "diag": True, "thri": True, "accurate": True, "loss": "mse",
        "tasks": {"boolq": 2}, "fewshots": 5,
    }  # fmt: skip
    with pytest.raises(PlanError) as caught:
        ReferenceConfig.parse(config, "config.yaml")
    for sentence in (
        "layer_to_skip: unknown key; did you mean 'layers_to_skip'?",
        "solvers: unknown key; did you mean 'solver'?",
        "model_path: Field required",
        "alpha: Input should be greater than or equal to 0",
        "diag and thri exclude each other",
        "loss goes with method: cosine",
        "accurate goes with method: cosine",
        "the few-shot examples are said twice",
    ):
        assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"tasks": "boolq, piqa"}, ["boolq", "piqa"]),
        ({"tasks": "boolq, piqa", "fewshots": 5}, ["boolq@5", "piqa@5"]),
        ({"tasks": ["winogrande", "boolq"], "fewshots": [5, 0]}, ["winogrande@5", "boolq"]),
        ({"tasks": [{"winogrande": 5}, "boolq"]}, ["winogrande@5", "boolq"]),
        ({"tasks": {"winogrande": 5, "boolq": 0}}, ["winogrande@5", "boolq"]),
    ],
)
def test_tasks_and_their_solved_examples_are_read_from_all_ways_to_write_them(given, names):
    assert ReferenceConfig.parse({"model_path": "demo", **given}).task_names() == names


@pytest.mark.parametrize(
    ("dataset", "source"),
    [
        ("slimorca", "preset:slimorca"),
        ("Open-Orca/SlimOrca", "hub:Open-Orca/SlimOrca"),
        ("demo:stories", "demo:stories"),
        ("gone.jsonl", "gone.jsonl"),
    ],
)
def test_a_data_set_is_a_preset_a_file_or_one_of_the_hub(dataset, source):
    assert ReferenceConfig.parse({"model_path": "demo", "dataset": dataset}).plan().calibration.source == source


@pytest.mark.parametrize("text", ["", "[]", '{"cosine_last": 3, "n_tokens": 1, "n_sequences": 1}', '{"cosine_last": [[0]]}', "\x80pickle"])
def test_a_file_of_distances_that_is_none_is_refused_in_words(base, tmp_path, text):
    (tmp_path / "distances.json").write_text(text)
    done = ran("run_replaceme", base | {"distances_path": str(tmp_path / "distances.json")}, tmp_path)
    assert done.exit_code == 1
    assert "holds no distances for this model" in done.stderr
    assert not (tmp_path / "out").exists()


PUBLIC = {
    "few-shot examples in a mapping": {"tasks": {"TASKS": {"fewshots": 0}}},
    "few-shot examples in a list of mappings": {"tasks": [{"TASKS": {"num_fewshot": 0}}]},
    "solver keys alone": {"solver": "adam", "loss": "cosine"},
    "activations": {"activations_save_path": "acts.pt"},
    "two spans and no penalty": {"num_A": 2, "layers_to_skip": 1, "alpha": 0},
    "distances as a pickle": {"distances_path": "d.pth"},
    "the transform beside the model": {"save_transform_only": True},
}


@pytest.mark.parametrize("name", PUBLIC)
def test_the_kinds_of_files_of_the_public_library_run(base, tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tasks, _ = write_tasks(tmp_path / "tasks")
    given = json.loads(json.dumps(PUBLIC[name]).replace("TASKS", str(tasks)))
    done = ran("run_replaceme", base | given, tmp_path)
    assert done.exit_code == 0, done.output
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.num_hidden_layers == 4
    assert (tmp_path / "out" / "transform.safetensors").exists() or "num_A" in given
    told = {"activations_save_path": "no activations are written", "distances_path": "JSON in 'd.json'", "num_A": "alpha: 0 has no effect"}
    for key, words in told.items():
        assert done.stderr.count(words) == (key in given)
    if name == "distances as a pickle":
        assert not (tmp_path / "d.pth").exists()
        assert len(json.loads((tmp_path / "d.json").read_text())["cosine_last"]) == 7


def test_the_command_of_solvers_needs_no_method_in_its_file(base, tmp_path):
    done = ran("get_lt_with_solvers", base, tmp_path)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["method"].startswith("adam")


def test_the_number_of_few_shot_examples_is_read_wherever_it_stands():
    for tasks in ({"winogrande": {"fewshots": 5}, "boolq": 0}, [{"winogrande": {"num_fewshot": 5}}, "boolq"]):
        assert ReferenceConfig.parse({"model_path": "demo", "tasks": tasks}).task_names() == ["winogrande@5", "boolq"]
    with pytest.raises(PlanError, match="a mapping of names to few-shot examples"):
        ReferenceConfig.parse({"model_path": "demo", "tasks": {"winogrande": {"shots": 5}}})
