"""Memory that really runs out: each step is run in a process whose address space may grow by a few MiB only."""

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from replaceme_core.errors import ModelError, OutOfMemoryError
from replaceme_core.memory import is_short, told
from tests.support.tiny_models import save_tiny

ROOT = Path(__file__).resolve().parent.parent.parent
_STEPS = """
import json, re, resource, sys
import torch
from replaceme_core.comparison import compare
from replaceme_core.evaluation import evaluate, lm_eval_model
from replaceme_core.measurement import measure
from replaceme_core.calibration import self_text
from replaceme_core.models import loading
from replaceme_core.calibration.calibration import prepare
from replaceme_core.plans.plan import CalibrationSection, EvaluationSection, ModelSection

folder = sys.argv[1]
evaluate.evaluate(loading.load(ModelSection(path="demo")), EvaluationSection(limit=1))
section = CalibrationSection(source="self", max_tokens=4096, max_length=512)
handle = loading.load(ModelSection(path=folder))
tokens = prepare(section, handle.tokenizer, [" ".join(f"w{(7 * i + j) % 150}" for j in range(400)) for i in range(10)], name="words")
long = " ".join(f"w{i % 150}" for i in range(1500))
steps = {
    "measure": (8, lambda: measure.measure(handle, tokens)),  # first: what a failed load gives back would be enough
    "load": (40, lambda: loading.load(ModelSection(path=folder))),
    "evaluate": (24, lambda: evaluate.evaluate(handle, EvaluationSection(limit=8, batch_size=128, exact=True))),
    "stream": (8, lambda: list(compare.stream(handle, long, max_new_tokens=2))),
    "compare": (8, lambda: compare.logits_of(handle, compare.encode(handle, long))),
    "self": (1, lambda: self_text.write(handle, self_text.Writing("prose", 4096, 512))),
}
def filled():
    # the allocator holds pieces of the address space that nobody uses, now more and now fewer: they are taken
    held = []
    try:
        while True:
            held.append(torch.empty(2**20, dtype=torch.int32))
    except RuntimeError:
        return held[:-1]


found = {}
for name, (margin, step) in steps.items():
    now = int(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (now + margin * 2**20, resource.RLIM_INFINITY))
    taken = filled() if name == "measure" else None
    try:
        step()
        found[name] = "nothing was raised"
    except Exception as error:
        found[name] = f"{type(error).__name__}: {error}"
    del taken
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
found["afterwards"] = measure.measure(handle, tokens, spans=[]).n_tokens
found["kept"] = tokens.n_tokens
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """100 MB of weights."""
    shape = {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8, "head_dim": 64, "num_key_value_heads": 8}
    return save_tiny(tmp_path_factory.mktemp("large"), "llama", **shape, max_position_embeddings=8192)


def limited(code: str, *arguments: object) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, env=environment, check=False, timeout=200
    )


@pytest.fixture(scope="module")
def sentences(large) -> dict[str, str]:
    done = limited(_STEPS, large)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


WEIGHTS = r"a smaller dtype \(bfloat16\), a quantisation \(nf4 or int8\), device 'spread', or a smaller model\.$"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the address space of a process is read from /proc")
@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("load", r"to hold '.*' in float32 on cpu \(.*the weights take \d+ MiB\)\. Choose "),
        ("measure", r"for the calibration pass \(.*the states of one batch take \d+ MiB\)\. Choose shorter sequences \(max_length\)"),
        ("evaluate", r"for the benchmarks on '.*' \(one step asked for \d+ MiB more\)\. Choose a smaller batch_size \(now 128\)"),
        ("stream", r"to generate text \(one step asked for \d+ MiB more\)\. Choose a shorter text; or, for the weights, "),
        (
            "compare",
            r"to compare the next-token probabilities of [\d,]+ tokens \(one step asked for \d+ MiB more\)\. Choose a shorter text; ",
        ),
        ("self", r"to let the model write text.*\. Choose shorter texts \(max_length, now 512\); or, for the weights, "),
    ],
)
def test_a_step_that_runs_out_of_memory_says_what_it_did_and_what_to_choose(sentences, step, words):
    assert re.match(f"OutOfMemoryError: There was not enough memory {words}", sentences[step]), sentences[step]
    assert re.search(WEIGHTS, sentences[step])


def test_after_memory_ran_out_the_same_model_measures_again(sentences):
    assert sentences["afterwards"] == sentences["kept"] > 3800


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (MemoryError(), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 16 bytes."), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 14.58 GiB"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (OSError(errno.ENOSPC, "No space left on device"), False),
    ],
)
def test_what_counts_as_memory_that_ran_out(error, short):
    assert is_short(error) is short
    with pytest.raises(OutOfMemoryError if short else type(error)), told("here", "less"):
        raise error


def test_the_sentence_of_a_device_names_what_was_asked_for():
    words = r"memory here \(one step asked for 20\.00 GiB more; 3 of 4\)\. Choose less\."
    with pytest.raises(OutOfMemoryError, match=words), told("here", "less", lambda: "3 of 4"):
        raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 14.58 GiB")


def test_an_error_of_the_library_passes_as_it_is():
    with pytest.raises(ModelError, match=r"^out of memory, it says$"), told("here", "less"):
        raise ModelError("out of memory, it says")
