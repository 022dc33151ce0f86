"""Damaged and odd inputs by the thousand: a result or a sentence, never a traceback, and nothing unforeseen.

Most cases are cheap: a file that is read, a configuration that is judged, by what the commands call; the others run the commands themselves on a
model as small as one can be.
"""

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, LlamaConfig

from replaceme_core.cli.main import main
from replaceme_core.errors import ReplaceMeError, UnforeseenError
from replaceme_core.evaluation import harness_files
from replaceme_core.measurement.preflight import preflight
from replaceme_core.plans.plan import ModelSection
from replaceme_core.storage.folders import plain
from tests.support.tiny_models import tokenizer

evaluate: Any = importlib.import_module("replaceme_core.cli.evaluate")

QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
CASES = {"import": 950, "samples": 450, "inspect": 400, "load": 90, "fit": 100, "compare": 20}
SEEN: dict[str, int] = dict.fromkeys(CASES, 0)


def some(kind: str) -> Any:
    return settings(max_examples=CASES[kind], deadline=None, derandomize=True, database=None, suppress_health_check=QUIET)


LEAVES = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats() | st.text(max_size=6) | st.sampled_from(["acc,none", "float16", "llama"])  # fmt: skip
ANYTHING = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3), max_leaves=5
)


def ran(kind: str, *arguments: object) -> Result:
    """A command that ended as one should."""
    done = CliRunner().invoke(main, [str(each) for each in arguments])
    SEEN[kind] += 1
    assert done.exception is None or isinstance(done.exception, SystemExit), (arguments, done.exception)
    assert done.exit_code in (0, 1, 2), (arguments, done.output)
    assert "Traceback" not in done.output, done.output
    assert "not foreseen" not in done.output, (arguments, done.output)
    assert done.exit_code == 0 or done.stderr.strip()
    return done


def read(kind: str, work: Any) -> Any:
    """What a command calls: a result, or an error of ours that somebody wrote a sentence for."""
    SEEN[kind] += 1
    try:
        return work()
    except UnforeseenError as error:
        return pytest.fail(repr(error.__cause__))
    except ReplaceMeError:
        return None


def shown(*files: tuple[bytes, dict[str, bytes]]) -> None:
    """Score files as `evaluate --import` reads and prints them, side by side."""
    scores = [harness_files.from_files("results_x.json", *each) for each in files]
    systems = {f"{number}": each for number, each in enumerate(scores)}
    assert evaluate._lines(systems)
    assert json.dumps(plain(evaluate._data(systems)), allow_nan=False)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2, "vocab_size": 320}
    config = LlamaConfig(**sizes, max_position_embeddings=64, bos_token_id=1, eos_token_id=2)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer(folder)
    return folder


@pytest.fixture
def place(small: Path, tmp_path: Path) -> Path:
    return shutil.copytree(small, tmp_path / "model")


FIGURES = st.dictionaries(
    st.sampled_from(["acc,none", "acc", "acc_stderr,none", "alias", "exact_match,strict", "sample_len"]), LEAVES, max_size=4
)
RESULTS = st.fixed_dictionaries(
    {},
    optional={
        "results": st.dictionaries(st.sampled_from(["boolq", "mmlu", "mmlu_a", ""]), FIGURES | ANYTHING, max_size=4) | ANYTHING,
        **{
            key: st.dictionaries(st.sampled_from(["boolq", "mmlu", "mmlu_a"]), ANYTHING, max_size=3) | ANYTHING
            for key in ("configs", "n-shot", "groups", "group_subtasks", "versions", "n-samples", "config", "higher_is_better")
        },
        "lm_eval_version": LEAVES,
        "model_name": ANYTHING,
    },
)


@some("import")
@given(RESULTS.map(lambda data: json.dumps(data).encode()) | ANYTHING.map(lambda data: json.dumps(data).encode()) | st.binary(max_size=80))
def test_scores_from_elsewhere(data: bytes) -> None:
    read("import", lambda: shown((data, {})))


@pytest.mark.parametrize("data", [b"", b"[", b"{}", b'{"results": {"boolq": {"acc": 0.5}}}', b'{"results": {"boolq": {"acc,none": NaN}}}'])
def test_and_by_the_command(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "results_x.json").write_bytes(data)
    ran("import", "evaluate", "--import", tmp_path / "results_x.json", "--json")


ROWS = st.fixed_dictionaries(
    {},
    optional={
        "doc_id": st.integers(0, 3) | LEAVES,
        "target": LEAVES,
        "arguments": st.just([["a", " b"], ["a", " c"]]) | ANYTHING,
        "filtered_resps": st.just([[-1.0, True], [-2.0, False]]) | ANYTHING,
        "filter": LEAVES,
        "metrics": st.just(["acc"]) | ANYTHING,
        "acc": LEAVES,
    },
)


@some("samples")
@given(st.lists(ROWS | ANYTHING, max_size=3))
def test_samples_beside_them(rows: list[Any]) -> None:
    results = json.dumps({"results": {"boolq": {"acc,none": 0.5}}, "configs": {"boolq": {}}, "n-shot": {"boolq": 0}}).encode()
    file = (results, {"samples_boolq_x.jsonl": "\n".join(map(json.dumps, rows)).encode()})
    read("samples", lambda: shown(file, file))


KEYS = st.sampled_from(
    [
        "model_type", "architectures", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size", "head_dim", "dtype",
        "intermediate_size", "rope_parameters", "max_position_embeddings", "quantization_config", "eos_token_id", "layer_types", "is_encoder_decoder",
        "auto_map", "text_config", "hidden_act", "tie_word_embeddings", "rms_norm_eps", "sliding_window", "attention_bias", "mlp_bias",
    ]
)  # fmt: skip
SMALL = st.none() | st.booleans() | st.integers(-2, 40) | st.text(max_size=5) | st.sampled_from(["gpt2", "bert", "t5", "mamba", "gptq"])
VALUES = (
    SMALL | st.lists(SMALL, max_size=3) | st.dictionaries(st.sampled_from(["quant_method", "rope_type", "model_type"]), SMALL, max_size=2)
)


def changed(folder: Path, values: dict[str, Any]) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@some("inspect")
@given(st.dictionaries(KEYS, VALUES, min_size=1, max_size=3))
def test_configurations_that_are_odd(small: Path, tmp_path: Path, values: dict[str, Any]) -> None:
    folder = tmp_path / "odd"
    folder.mkdir(exist_ok=True)
    shutil.copyfile(small / "config.json", folder / "config.json")
    changed(folder, values)
    read("inspect", lambda: preflight(ModelSection(path=str(folder))))


FILES = st.sampled_from(["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json"])


@some("load")
@given(
    FILES,
    st.sampled_from(["cut", "flip", "gone", "other", "twice", "empty", "index", "adapter"]),
    st.integers(0, 4000),
    st.binary(min_size=1, max_size=8),
)
def test_folders_that_are_damaged(small: Path, tmp_path: Path, file: str, what: str, at: int, data: bytes) -> None:
    folder = tmp_path / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    path = shutil.copytree(small, folder) / file
    held = path.read_bytes()
    at = at % max(1, len(held))
    changes = {"cut": held[:at], "flip": held[:at] + data + held[at + len(data) :], "other": data, "empty": b"", "twice": held + held}
    if what == "gone":
        path.unlink()
    elif what == "index":
        (folder / "model.safetensors.index.json").write_bytes(data)
    elif what == "adapter":
        (folder / "adapter_config.json").write_bytes(data if at % 2 else b'{"peft_type": "LORA"}')
    else:
        path.write_bytes(changes[what])
    ran("load", "load", folder)


SPANS = st.sampled_from(["1:2", "2:3", "0:1", "3:2", "1:9", "x", "", "1:2,2:3", "1:2,1:2", "-1:2", "1:2:3"])
METHODS = st.sampled_from(["least_squares", "weighted_least_squares", "drop", "refit", "cosine", "adam", "nothing", ""])
SETTINGS = st.sampled_from(
    ["rank=1", "structure=low_rank", "ridge=x", "rank=99", "a=[", "=", "structure=diagonal", "l2=-1", "max_iterations=2"]
)
TEXT = st.lists(st.text(max_size=20), max_size=4).map("\n\n".join) | st.just("w1 w2 w3\n\nw4 w5\n\nw6 w7 w8 w9")


@some("fit")
@given(
    SPANS,
    METHODS,
    st.lists(SETTINGS, max_size=2),
    TEXT,
    st.sampled_from(["txt", "jsonl", "csv", "doc"]),
    st.sampled_from(["0.5", "1e400", "-1", "0.1"]),
)
def test_fits_that_are_odd(
    small: Path, tmp_path: Path, span: str, method: str, given_: list[str], text: str, ending: str, holdout: str
) -> None:
    path = tmp_path / f"text.{ending}"
    path.write_text(text)
    out = tmp_path / "out"
    shutil.rmtree(out, ignore_errors=True)
    sets = [part for each in given_ for part in ("--set", each)]
    ran("fit", "fit", "--model", small, "--calibration", path, "--max-tokens", 64, "--holdout", holdout, "--span", span, "--method", method, *sets, "--out", out, "--transform-only")  # fmt: skip


@some("compare")
@given(TEXT, st.sampled_from(["vocab", "tokenizer", "depth", "gone", "self"]), st.integers(0, 50))
def test_comparisons_that_are_odd(small: Path, tmp_path: Path, text: str, what: str, tokens: int) -> None:
    other = tmp_path / "other"
    shutil.rmtree(other, ignore_errors=True)
    shutil.copytree(small, other)
    if what == "vocab":
        changed(other, {"vocab_size": 100 + tokens})
    elif what == "depth":
        changed(other, {"num_hidden_layers": tokens % 4})
    elif what == "tokenizer":
        (other / "tokenizer.json").write_text((other / "tokenizer.json").read_text().replace('"w', '"v', tokens))
    elif what == "gone":
        shutil.rmtree(other)
    (tmp_path / "text.txt").write_text(text)
    ran("compare", "compare", "--models", small, other, "--text", tmp_path / "text.txt", "--max-tokens", 2 + tokens, "--no-speed")


def test_there_were_two_thousand_of_them() -> None:
    assert sum(CASES.values()) >= 2000
    assert all(SEEN[kind] >= CASES[kind] for kind in CASES if SEEN[kind]), SEEN
