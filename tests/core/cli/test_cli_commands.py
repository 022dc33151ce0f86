"""The commands beside the contract: their examples run as printed, and each does what it says."""

import json
import re
import shlex
import socket
import subprocess
import sys
import time
import tomllib
from importlib import import_module
from urllib.request import urlopen

import click
import jsonschema
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from replaceme_core import pipeline, solvers
from replaceme_core.artifacts import Cut, Span
from replaceme_core.cli.doctor import findings
from replaceme_core.cli.main import COMMANDS, main
from replaceme_core.cli.plan import schema_file
from replaceme_core.errors import InputError
from replaceme_core.export import mergekit
from replaceme_core.export.export import export
from replaceme_core.measurement import measure
from replaceme_core.models import loading
from replaceme_core.models.loading import load
from replaceme_core.plans.methods import in_words
from replaceme_core.plans.plan import CalibrationSection, MethodSection, ModelSection, PruningPlan, SpanSection
from replaceme_core.studies.planner import Aim
from replaceme_core.surgery import surgery, transform_file
from tests.core.cli.test_cli import ENVIRONMENT, ROOT, inside, strict


def with_subcommands(command: click.Command) -> list[click.Command]:
    return [command, *(command.commands.values() if isinstance(command, click.Group) else [])]


WITH_EXAMPLES = {
    command.name: re.findall(r"^\s*(replaceme .+)$", command.help or "", re.MULTILINE)
    for top in COMMANDS
    for command in with_subcommands(top)
    if "Examples:" in (command.help or "")
}


def test_the_commands_are_named_after_the_stages_and_have_examples():
    stages = {"inspect", "load", "distances", "plan-spans", "fit", "plan", "run", "compare", "evaluate", "export", "runs", "families"}
    assert stages | {"app", "doctor"} <= main.commands.keys()
    assert {
        "inspect",
        "load",
        "distances",
        "plan-spans",
        "fit",
        "plan",
        "run",
        "sweep",
        "compare",
        "evaluate",
        "leaderboard",
        "export",
        "runs",
        "families",
        "doctor",
    } <= WITH_EXAMPLES.keys()
    assert all(WITH_EXAMPLES.values())


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_of_a_help_text_run_as_they_are_printed(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for line in WITH_EXAMPLES[name]:
        done = inside(*shlex.split(line)[1:])
        assert done.exit_code == 0, f"{line}\n{done.output}"
        assert done.stdout.strip(), line


def test_every_script_of_the_package_is_a_command():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert {
        "replaceme",
        "run_replaceme",
        "evaluate_model",
        "get_distance_analysis",
        "get_lt_with_lstsq",
        "get_lt_with_solvers",
        "run_uidl",
    } == set(scripts)
    for name, target in scripts.items():
        module, _, attribute = target.partition(":")
        assert isinstance(getattr(import_module(module), attribute), click.Command), name


def test_inspect_reads_no_weights(llama_folder, tmp_path):
    (tmp_path / "config.json").write_bytes((llama_folder / "config.json").read_bytes())
    data = strict(inside("inspect", tmp_path, "--json").stdout)
    assert (data["n_blocks"], data["width"], data["family"], data["merge"]) == (6, 32, "llama", "exact")
    assert data["needed_bytes"] > data["weights_bytes"] > 0
    assert inside("load", tmp_path).exit_code == 1


def test_load_says_what_the_library_says(llama_folder, llama):
    data = strict(inside("load", llama_folder, "--json").stdout)
    assert (data["fingerprint"], data["n_parameters"], data["n_bytes"]) == (llama.fingerprint, llama.n_parameters, llama.n_bytes)


@pytest.mark.parametrize("command", ["distances", "fit"])
def test_what_compares_nothing_reads_the_whole_file(llama_folder, llama, texts, tmp_path, command):
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    more = ("--span", "2:4", "--out", tmp_path / "out") if command == "fit" else ()
    done = inside(command, "--model", llama_folder, "--calibration", tmp_path / "texts.jsonl", "--max-length", 256, *more, "--json")
    data = strict(done.stdout)
    whole = sum(len(llama.tokenizer(text)["input_ids"]) for text in texts)
    assert data["n_tokens"] + data.get("n_heldout_tokens", 0) == whole


def test_compare_gives_the_figures_of_the_library_for_every_model(llama_folder, llama, variant, texts, tmp_path):
    from replaceme_core.calibration.calibration import documents
    from replaceme_core.comparison.compare import divergence

    export(variant, tmp_path / "pruned")
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    done = inside(
        "compare", "--models", llama_folder, tmp_path / "pruned", "--text", tmp_path / "texts.jsonl", "--max-tokens", 600, "--json"
    )
    assert done.exit_code == 0, done.output
    original, pruned = strict(done.stdout)["models"]
    expected = divergence(llama, [variant.handle], documents(llama.tokenizer, 600, texts))
    assert pruned["part"] == "given"
    assert pruned["text"] == str(tmp_path / "texts.jsonl")
    assert pruned["n_sequences"] >= 18
    assert pruned["note"] == ""
    for key in ("perplexity", "perplexity_low", "kl", "kl_high", "agreement", "n_tokens"):
        assert original[key] == pytest.approx(getattr(expected[0], key), rel=1e-6)
        assert pruned[key] == pytest.approx(getattr(expected[1], key), rel=1e-4)
    assert pruned["n_bytes"] < original["n_bytes"]
    assert pruned["decode_tokens_per_s"] > 0
    assert inside("compare", "--models", llama_folder).exit_code == 2


def test_a_model_that_is_not_the_demo_is_compared_on_plain_prose_unless_a_text_is_named(llama_folder):
    done = inside("compare", "--models", llama_folder, llama_folder, "--max-tokens", 400, "--no-speed", "--json")
    assert done.exit_code == 0, done.output
    found = strict(done.stdout)
    assert found["text"] == "plain"
    assert (found["models"][1]["text"], found["models"][1]["part"]) == ("plain English prose", "test")
    assert found["models"][1]["kl"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("span", ["2:4", "1:2,3:4"])
@pytest.mark.parametrize("method", ["weighted_least_squares", "refit"])
def test_a_saved_transform_applied_later_gives_the_model_that_fit_exports(llama_folder, texts, tmp_path, method, span):
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    given = ("--model", llama_folder, "--calibration", tmp_path / "texts.jsonl", "--max-tokens", 600, "--span", span, "--method", method)
    assert inside("fit", *given, "--out", tmp_path / "whole").exit_code == 0
    assert inside("fit", *given, "--transform-only", "--out", tmp_path / "alone").exit_code == 0
    assert sorted(path.name for path in (tmp_path / "alone").iterdir()) == ["recipe.yaml", "report.json", "transform.safetensors"]
    done = inside("export", "--transform", tmp_path / "alone", "--out", tmp_path / "later", "--json")
    assert done.exit_code == 0, done.output
    for name in ("model.safetensors", "transform.safetensors", "config.json"):
        assert (tmp_path / "later" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert all(proof["passed"] for proof in strict(done.stdout)["proofs"].values())


@pytest.mark.parametrize(
    ("given", "method"),
    [((), "exchange_refit"), (("--ridge", "0.01"), "weighted_least_squares"), (("--quantise", "int8"), "weighted_least_squares")],
)
def test_a_method_that_is_not_named_is_the_one_of_a_plan_that_names_none(llama_folder, texts, tmp_path, given, method):
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    asked = ("--model", llama_folder, "--calibration", tmp_path / "texts.jsonl", "--max-tokens", 600, "--span", "2:4", *given)
    done = inside("fit", *asked, "--transform-only", "--out", tmp_path / "alone")
    assert done.exit_code == 0, done.output
    assert in_words(method) in done.stdout
    assert PruningPlan.read(tmp_path / "alone" / "recipe.yaml").method.name == method


def test_a_refit_is_not_put_into_a_model_that_is_spread(llama_folder, texts, tmp_path, monkeypatch):
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    given = ("--model", llama_folder, "--calibration", tmp_path / "texts.jsonl", "--max-tokens", 600, "--span", "2:4", "--method", "refit")
    assert inside("fit", *given, "--transform-only", "--out", tmp_path / "alone").exit_code == 0
    monkeypatch.setattr(loading, "load", lambda *_: pytest.fail("the model was read first"))
    done = inside("export", "--transform", tmp_path / "alone", "--device", "spread", "--out", tmp_path / "later")
    assert done.exit_code == 1
    assert "'refit' holds new weights of blocks" in done.stderr
    assert "--device auto or cpu, not spread" in done.stderr
    assert not (tmp_path / "later").exists()


@pytest.fixture(scope="module")
def alone(variant, tmp_path_factory):
    """An export whose transform is applied again."""
    return export(variant, tmp_path_factory.mktemp("alone") / "model").folder


def test_an_export_is_written_in_the_dtype_and_shards_that_are_wanted(alone, tmp_path):
    done = inside("export", "--transform", alone, "--out", tmp_path / "half", "--dtype", "float16", "--max-shard-size", "20KB")
    assert done.exit_code == 0, done.output
    assert AutoConfig.from_pretrained(tmp_path / "half").dtype == torch.float16
    assert len(list((tmp_path / "half").glob("model-*.safetensors"))) > 1
    assert PruningPlan.read(tmp_path / "half" / "recipe.yaml").export.dtype == "float16"


def test_a_bare_matrix_is_applied_where_its_span_is_named(alone, llama_folder, tmp_path):
    save_file({"transform": load_file(alone / "transform.safetensors")["transform"]}, tmp_path / "bare.safetensors")
    arguments = ("export", "--transform", tmp_path / "bare.safetensors", "--model", llama_folder, "--out", tmp_path / "out")
    refused = inside(*arguments)
    assert refused.exit_code == 1
    assert "does not say which blocks it stands in for" in refused.stderr
    done = inside(*arguments, "--span", "2:4")
    assert done.exit_code == 0, done.output
    assert "The report of the fit did not lie beside the transform." in done.stdout
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (alone / "model.safetensors").read_bytes()


def test_a_transform_of_another_model_is_refused_in_words(alone, tmp_path):
    done = inside("export", "--transform", alone, "--model", "demo", "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "fitted on another model: 'demo model' has n_blocks 12 (the transform: 6), width 128 (the transform: 32)" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_model_that_was_trained_as_a_whole_has_no_transform_to_apply(alone, tmp_path):
    for path in alone.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    report = json.loads((tmp_path / "report.json").read_text())
    (tmp_path / "report.json").write_text(json.dumps(report | {"healing": {"kind": "lora", "best": 5, "points": []}}))
    with pytest.raises(InputError, match="trained after the cut"):
        transform_file.read(tmp_path)


@pytest.mark.parametrize("cut", [Cut((Span(2, 4),)), Cut((Span(1, 2), Span(4, 6)))], ids=str)
def test_the_mergekit_recipe_keeps_exactly_the_blocks_that_stay(cut):
    data = yaml.safe_load(mergekit.recipe("org/model", cut, 7, "bfloat16"))
    ranges = [source["layer_range"] for part in data["slices"] for source in part["sources"]]
    assert [block for start, end in ranges for block in range(start, end)] == cut.kept(7)
    assert data["merge_method"] == "passthrough"


def test_the_mergekit_recipe_lies_in_every_export_and_is_printed_alone(alone):
    data = yaml.safe_load((alone / "mergekit.yaml").read_text())
    assert [source["layer_range"] for part in data["slices"] for source in part["sources"]] == [[0, 2], [4, 6]]
    assert strict(inside("export", "--transform", alone, "--mergekit", "--json").stdout) == data


@pytest.mark.parametrize("name", ["weighted_least_squares", "least_squares", "cosine"])
def test_a_run_in_the_apps_way_is_repeated_from_its_recipe_to_the_last_bit(llama_folder, texts, tmp_path, name):
    """The app stores every point in its pass, the command line those of one span."""
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    model = ModelSection(path=str(llama_folder))
    section = CalibrationSection(source=str(tmp_path / "texts.jsonl"), max_tokens=1000, max_length=32)
    handle = load(model)
    measured = measure.measure(handle, pipeline.prepare_for(handle, section))
    assert len(measured.spans()) > 10
    transform = solvers.fit(measured, Span(2, 4), MethodSection(name=name))
    span, method = SpanSection.model_validate(transform.cut.plain()), MethodSection.parse(transform.settings)
    plan = PruningPlan(model=model, calibration=section, span=span, method=method)
    export(surgery.prune(handle, transform, name, plan.to_data()), tmp_path / "first")
    done = inside("run", "--plan", tmp_path / "first" / "recipe.yaml", "--out", tmp_path / "again")
    assert done.exit_code == 0, done.output
    for file in ("transform.safetensors", "model.safetensors"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "again" / "model" / file).read_bytes(), file


def test_the_schema_for_editors_is_that_of_the_plan():
    """Write it anew with: replaceme plan --schema > assets/plan.schema.json"""
    assert schema_file().read_text(encoding="utf-8") == PruningPlan.schema_text("ReplaceMe Studio: a plan")
    assert inside("plan", "--schema").stdout == schema_file().read_text(encoding="utf-8")


@pytest.mark.parametrize(("data", "valid"), [({}, True), ({"modle": 1}, False), ({"method": {"name": "magic"}}, False)])
def test_the_schema_judges_plans_as_an_editor_would(data, valid):
    schema = json.loads(schema_file().read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    full = PruningPlan.parse({"model": {"path": "demo"}, "healing": {}, "evaluation": {}, "export": {}}).to_data()
    assert jsonschema.Draft202012Validator(schema).is_valid(full | data) == valid


def test_plan_tells_every_problem_of_a_file_at_once(tmp_path):
    (tmp_path / "plan.yaml").write_text("modle: {}\nspan: {start: 2}\nmethod: {name: lbfgs, ridge: 1, ranks: 2}\nexport: {dtype: int4}\n")
    done = inside("plan", tmp_path / "plan.yaml")
    assert done.exit_code == 1
    for sentence in (
        "modle: unknown key; did you mean 'model'?",
        "model: Field required",
        "span: start and end go together",
        "method.ranks: unknown key; did you mean 'rank'?",
        "method: 'lbfgs' takes no ridge",
        "export.dtype: Input should be 'float32', 'bfloat16' or 'float16'",
    ):
        assert sentence in done.stderr


def test_doctor_tries_what_it_reports(tmp_path):
    found = {each.name: each for each in findings(tmp_path)}
    assert {"python", "packages", "torch", "bitsandbytes", "memory", "disk", "demo model", "app", "browser tests", "npm"} <= found.keys()
    assert torch.__version__ in found["torch"].found
    assert "nf4" in found["bitsandbytes"].found
    assert all(each.advice for each in found.values() if each.state == "missing")
    assert str(tmp_path.resolve()) in found["disk"].found


def test_doctor_says_what_is_missing_and_how_to_get_it(monkeypatch):
    monkeypatch.setattr("replaceme_core.cli.doctor._pins", lambda: {"torch": "1.0.0", "no-such-package": "2.0"})
    packages = next(each for each in findings() if each.name == "packages")
    assert packages.state == "missing"
    assert "no-such-package is not installed (pinned: 2.0)" in packages.found
    assert "(pinned: 1.0.0)" in packages.found
    done = inside("doctor")
    assert done.exit_code == 1
    assert "missing: packages" in done.stderr


def test_app_starts_the_server_and_ends_with_it(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "replaceme_core", "app", "--server.port", str(port), "--server.headless", "true"]
    process = subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until, answer = time.monotonic() + 60, b""
        while answer != b"ok" and time.monotonic() < until:
            assert process.poll() is None
            try:
                answer = urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=5).read()
            except OSError:
                time.sleep(0.1)
        assert answer == b"ok"
    finally:
        process.terminate()
    process.wait(timeout=30)
    until = time.monotonic() + 30
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.1)
    pytest.fail("the server outlived its command")


def test_the_version_is_that_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert inside("--version").stdout == f"replaceme, version {project['version']}\n"


def test_an_applied_transform_loads_in_plain_transformers(alone, tmp_path):
    assert inside("export", "--transform", alone, "--out", tmp_path / "model").exit_code == 0
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "model").config.num_hidden_layers == 4


def test_a_search_names_its_places_by_the_same_criteria_from_the_command_line_as_from_python():
    default = next(option.default for option in main.get_command(click.Context(main), "plan-spans").params if option.name == "criteria")
    assert tuple(default.split(",")) == Aim().criteria
