"""The command-line contract: one JSON object on standard output, one sentence on failure, no half-written folder."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import pytest
import yaml
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from replaceme_core.calibration.calibration import prepare
from replaceme_core.cli.main import main
from replaceme_core.measurement.measure import measure
from replaceme_core.models.architecture.families import FAMILIES
from replaceme_core.plans.plan import CalibrationSection, MethodSection, PruningPlan
from tests.core.evaluation.test_evaluate import write_tasks

ROOT = Path(__file__).resolve().parent.parent.parent.parent
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def command(*arguments: object, **options) -> subprocess.CompletedProcess:
    """`python -m replaceme_core ...` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "replaceme_core", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env=ENVIRONMENT,
        **options,
    )


def strict(text: str) -> object:
    """JSON as the standard has it: exactly one value, no NaN, no Infinity."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def inside(*arguments: object):
    """The same entry point without a new process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def calibrated(llama_folder, texts_file):
    return ("--model", llama_folder, "--calibration", texts_file, "--max-tokens", 600, "--max-length", 32)


@pytest.fixture(scope="module")
def fitted(llama_folder, texts_file, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "model"
    done = command(
        "fit", "--model", llama_folder, "--calibration", texts_file, "--span", "2:4", "--method", "least_squares", "--ridge", "0.001",
        "--holdout", "0.2", "--dtype", "float32", "--out", out, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done, out


def test_fit_prints_one_json_object_with_the_promised_keys_and_nothing_else_on_standard_output(fitted):
    done, out = fitted
    data = strict(done.stdout)
    assert done.stdout.count("\n") == 1
    assert {"span", "method", "n_tokens", "train_error", "heldout_error", "condition", "seconds", "proofs"} <= data.keys()
    assert data["span"] == [2, 4]
    assert data["method"] == "least_squares"
    assert set(data["proofs"]) == {"merged = hooked", "cached = uncached", "reload = memory"}
    assert all(proof["passed"] for proof in data["proofs"].values())
    assert 0 < data["train_error"] <= data["heldout_error"]
    assert AutoModelForCausalLM.from_pretrained(out).config.num_hidden_layers == 4


def test_distances_prints_exactly_the_promised_keys_with_the_librarys_numbers(calibrated, llama, texts_file):
    done = inside("distances", *calibrated, "--json")
    assert done.exit_code == 0
    data = strict(done.stdout)
    assert list(data) == ["n_blocks", "n_tokens", "n_sequences", "cosine_all", "cosine_last", "norms"]
    found = measure(llama, prepare(CalibrationSection(source=str(texts_file), max_tokens=600, max_length=32), llama.tokenizer), spans=[])
    assert (data["n_blocks"], data["n_tokens"], data["n_sequences"]) == (6, found.n_tokens, found.distances["all"].n_sequences)
    lengths = (found.norms, found.lengths.typical, found.lengths.largest, found.lengths.first)
    for key, expected in zip(("mean", "typical", "largest", "first_token"), lengths, strict=True):
        assert data["norms"][key] == pytest.approx(expected.tolist(), rel=1e-9)
        assert len(data["norms"][key]) == 7
    for key, positions in (("cosine_all", "all"), ("cosine_last", "last")):
        assert len(data[key]) == 7
        for s, row in enumerate(data[key]):
            assert len(row) == 7
            for e, value in enumerate(row):
                if e < s:
                    assert value is None
                else:
                    assert value == pytest.approx(float(found.distances[positions].values[s, e]), rel=1e-6, abs=1e-9)


def test_the_memory_budget_of_older_scripts_is_taken_and_said_to_have_no_effect(calibrated, tmp_path):
    done = inside("fit", *calibrated, "--span", "2:4", "--budget-gib", 0.5, "--out", tmp_path / "small")
    assert done.exit_code == 0, done.output
    assert "--budget-gib has no effect any more" in done.stderr
    assert "budget_gib" not in yaml.safe_load((tmp_path / "small" / "recipe.yaml").read_text())["calibration"]


def test_distances_without_json_is_a_table_for_people(calibrated):
    done = inside("distances", *calibrated)
    assert done.exit_code == 0
    assert len(done.stdout.strip().splitlines()) == 7


def test_evaluate_prints_the_promised_keys(llama_folder, tmp_path):
    tasks, _ = write_tasks(tmp_path / "tasks")
    done = inside("evaluate", "--model", llama_folder, "--tasks", tasks, "--limit", 4, "--json")
    assert done.exit_code == 0, done.output
    data = strict(done.stdout)
    assert {"results", "average", "settings"} <= data.keys()
    for metrics in data["results"].values():
        for score in metrics.values():
            assert score.keys() == {"value", "stderr", "n"}
            assert score["n"] == 4
    assert data["average"] == data["results"]["toy_choice"]["acc"]["value"]


def test_families_prints_every_row_with_a_reason():
    data = strict(inside("families", "--json").stdout)
    assert [row["family"] for row in data] == [model_type for family in FAMILIES for model_type in family.model_types]
    for row in data:
        assert row.keys() == {"family", "writer", "merge", "reason"}
        assert row["merge"] in ("exact", "diagonal", "refused")
        assert row["reason"]


def test_run_writes_a_run_folder_whose_model_is_the_export(llama_folder, texts_file, tmp_path):
    (tmp_path / "plan.yaml").write_text(
        f"model: {{path: {llama_folder}}}\ncalibration: {{source: {texts_file}, max_tokens: 600}}\nspan: {{share: 0.34}}\n"
    )
    done = inside("run", "--plan", tmp_path / "plan.yaml", "--out", tmp_path / "run", "--json")
    assert done.exit_code == 0, done.output
    data = strict(done.stdout)
    assert data["out"] == str(tmp_path / "run")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model").config.num_hidden_layers == 4


def test_a_singular_fit_still_prints_json(llama_folder, tmp_path, texts_file):
    import shutil

    folder = shutil.copytree(llama_folder, tmp_path / "singular")
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"][0] = 0
    weights["model.layers.1.mlp.down_proj.bias"][0] = 0
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    done = inside(
        "fit",
        "--model",
        folder,
        "--calibration",
        texts_file,
        "--span",
        "2:4",
        "--method",
        "least_squares",
        "--ridge",
        0,
        "--out",
        tmp_path / "out",
        "--json",
    )
    assert done.exit_code == 0, done.output
    data = strict(done.stdout)
    assert data["rank"] == 31


SETTINGS = [
    *(("--method", name) for name in get_args(MethodSection.model_fields["name"].annotation)),
    *(("--set", f"structure={structure}") for structure in ("diagonal", "triangular", "orthogonal")),
    *(("--set", f"structure={structure}", "--set", "rank=3") for structure in ("low_rank", "low_rank_update")),
    ("--method", "proximal", "--set", "loss=relative_mse", "--set", "l1=0.01", "--set", "l2=0.02", "--set", "max_iterations=50"),
]


@pytest.mark.parametrize("settings", SETTINGS, ids=" ".join)
def test_every_method_and_structure_exports_with_its_evidence_and_a_recipe_that_names_it(calibrated, tmp_path, settings):
    done = inside("fit", *calibrated, "--span", "2:4", *settings, "--out", tmp_path / "out", "--json")
    assert done.exit_code == 0, done.output
    data = strict(done.stdout)
    assert all(proof["passed"] for proof in data["proofs"].values())
    assert {"heldout_error", "heldout_cosine", "condition", "n_tokens", "unknowns", "seconds", "iterations", "converged"} <= data.keys()
    recipe = PruningPlan.read(tmp_path / "out" / "recipe.yaml").method
    for flag, value in zip(settings[::2], settings[1::2], strict=True):
        key, _, wanted = value.partition("=") if flag == "--set" else ("name", "", value)
        assert str(getattr(recipe, key)) == wanted


FAILURES = [
    (("fit", "--span", "0:2", "--out", "OUT"), "Span 0:2 does not fit a model of 6 blocks"),
    (("fit", "--span", "two", "--out", "OUT"), "'two' is not a span; write START:END"),
    (("fit", "--span", "2:4", "--method", "magic", "--out", "OUT"), "name: Input should be 'weighted_least_squares'"),
    (("fit", "--span", "2:4", "--set", "ranks=2", "--out", "OUT"), "ranks: unknown key; did you mean 'rank'?"),
    (("fit", "--span", "2:4", "--method", "lbfgs", "--ridge", "1", "--out", "OUT"), "'lbfgs' takes no ridge; it goes with"),
    (("fit", "--span", "2:4", "--out", "EXISTS"), "exists already"),
    (("distances", "--model", "/no/such/folder"), "The folder '/no/such/folder' does not exist"),
    (("distances", "--calibration", "/no/such/file.jsonl"), "/no/such/file.jsonl cannot be read"),
    (("distances", "--calibration", "demo:poems"), "no demo calibration set 'poems'"),
    (("evaluate", "--tasks", "EMPTY"), "holds no .yaml task"),
    (("run", "--plan", "/no/such/plan.yaml", "--out", "OUT"), "/no/such/plan.yaml cannot be read"),
]


@pytest.mark.parametrize(("arguments", "sentence"), FAILURES, ids=[a[0] + " " + a[2] for a, _ in FAILURES])
def test_an_error_is_one_sentence_with_exit_code_1_and_leaves_nothing(llama_folder, texts_file, tmp_path, arguments, sentence):
    (tmp_path / "exists").mkdir()
    (tmp_path / "empty").mkdir()
    places = {"OUT": tmp_path / "out", "EXISTS": tmp_path / "exists", "EMPTY": tmp_path / "empty"}
    arguments = [places.get(argument, argument) for argument in arguments]
    if arguments[0] != "run" and "--model" not in arguments:
        arguments += ["--model", llama_folder]
    if arguments[0] in ("fit", "distances") and "--calibration" not in arguments:
        arguments += ["--calibration", texts_file, "--max-tokens", 600]
    done = inside(*arguments, *(["--json"] if arguments[0] != "run" else []))
    assert done.exit_code == 1
    assert done.stdout == ""
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert "[" not in done.stderr.splitlines()[-1][:1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "exists"]


def test_an_error_in_a_process_of_its_own_is_one_line_with_exit_code_1(llama_folder, texts_file, tmp_path):
    done = command("fit", "--model", llama_folder, "--calibration", texts_file, "--span", "2-9", "--out", tmp_path / "out", "--json")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("Error: '2-9' is not a span; write START:END")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_sentence_of_an_error_stands_on_a_line_of_its_own_not_behind_a_progress_bar(llama_folder, texts_file, tmp_path):
    done = inside("fit", "--model", llama_folder, "--calibration", texts_file, "--span", "2:9", "--out", tmp_path / "out", "--json")
    assert done.stderr.strip().splitlines()[-1].startswith("Error: Span 2:9 does not fit a model of 6 blocks")


@pytest.mark.parametrize("existing", [True, False])
def test_an_output_folder_that_cannot_be_used_is_told_before_the_work_begins(llama_folder, texts_file, tmp_path, existing):
    (tmp_path / "file").write_text("x")
    out = tmp_path / "file" if existing else tmp_path / "file" / "model"
    done = inside("fit", "--model", llama_folder, "--calibration", texts_file, "--span", "2:4", "--out", out)
    assert done.exit_code == 1
    assert "calibration pass" not in done.stderr, "the minutes of a pass were spent before the folder was looked at"


@pytest.mark.parametrize("arguments", [("fit",), ("distances", "--max-tokens", "1"), ("nonsense",), ("fit", "--holdout", "1")])
def test_wrong_usage_is_exit_code_2_with_the_option_named(arguments):
    done = inside(*arguments)
    assert done.exit_code == 2
    assert "Traceback" not in done.output


def test_help_names_every_stage_and_imports_nothing_heavy():
    code = "import sys; from click.testing import CliRunner; from replaceme_core.cli.main import main; print(CliRunner().invoke(main, ['-h']).output)"
    code += "; assert not {'torch', 'transformers', 'lm_eval', 'datasets'} & set(sys.modules), 'heavy import'"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    for name in ("distances", "fit", "evaluate", "families", "run"):
        assert name in done.stdout


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_no_folder_and_no_traceback(llama_folder, texts, tmp_path, sign):
    """Stopped in the middle of a pass that would last for minutes."""
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts * 3000))
    (tmp_path / "plan.yaml").write_text(
        f"model: {{path: {llama_folder}}}\ncalibration: {{source: {tmp_path / 'texts.jsonl'}, max_tokens: 8000000, max_length: 64}}\nspan: {{start: 2, end: 4}}\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "replaceme_core", "run", "--plan", str(tmp_path / "plan.yaml"), "--out", str(tmp_path / "runs" / "r")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - a background job hands on that it is ignored
    )  # fmt: skip
    until = time.monotonic() + 60
    while not (tmp_path / "runs").is_dir() or not list((tmp_path / "runs").iterdir()):
        assert time.monotonic() < until
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(sign)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode != 0
    assert list((tmp_path / "runs").iterdir()) == []
    assert "Traceback" not in stderr
