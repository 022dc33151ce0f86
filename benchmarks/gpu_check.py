"""Every stage once on a GPU, on a random model: `python -m benchmarks.gpu_check --json`. On a CPU: `--tiny --device cpu`.

One JSON object. `parts`: for each stage its seconds and their ratio to a bare forward pass over the same tokens on the same device, or the
sentence that it ended with. `sums`: how far float64 sums on the device are from those of the CPU. `not_run`: what this machine could not try;
without a GPU that is every line of the library that is about CUDA.

The model has the shape of Llama-3.2-1B (16 blocks x 2,048) in bfloat16 and random weights, so that nothing is fetched; the tokenizer and the text
are the demo's.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import torch

import replaceme_core
from benchmarks.reference import bare
from replaceme_core import pipeline, solvers
from replaceme_core.artifacts import Measurement, ModelHandle, Span, Variant
from replaceme_core.calibration.calibration import CalibrationSet, prepare
from replaceme_core.calibration.parts import TextPart
from replaceme_core.comparison import compare
from replaceme_core.errors import ReplaceMeError
from replaceme_core.evaluation import evaluate
from replaceme_core.healing.healing import heal
from replaceme_core.measurement.measure import measure
from replaceme_core.models import loading
from replaceme_core.models.architecture import families
from replaceme_core.plans.healing_section import HealingSection
from replaceme_core.plans.plan import CalibrationSection, EvaluationSection, MethodSection, ModelSection
from replaceme_core.surgery import surgery

LARGE = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8}
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2}
_SPAN = {True: Span(2, 3), False: Span(8, 12)}
_WORDS = 128256
"""of the large model's vocabulary: what heads and tables of logits cost hangs on it"""


def random_model(tiny: bool, device: str) -> ModelHandle:
    """Weights as transformers draws them, the same at every call; the demo's tokenizer."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    tokenizer = loading.load(ModelSection(path="demo", device="cpu")).tokenizer
    words = len(tokenizer) if tiny else _WORDS
    config = LlamaConfig(**(TINY if tiny else LARGE), vocab_size=words, max_position_embeddings=2048, tie_word_embeddings=True)
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32 if tiny else torch.bfloat16)
    return loading.make_handle("random", model.eval().requires_grad_(False), tokenizer, families.find(config))


@dataclass
class Check:
    """One model on one device, and what came of each stage."""

    handle: ModelHandle
    tokens: int
    tiny: bool
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def span(self) -> Span:
        return _SPAN[self.tiny]

    @cached_property
    def calibration(self) -> CalibrationSet:
        return prepare(CalibrationSection(source="demo:mixture", max_tokens=self.tokens), self.handle.tokenizer)

    @cached_property
    def measurement(self) -> Measurement:
        return measure(self.handle, self.calibration, again=True)

    @cached_property
    def variant(self) -> Variant:
        return self.pruned("least_squares")

    def pruned(self, method: str) -> Variant:
        fitted = pipeline.fit(
            self.handle, self.calibration, self.measurement, self.span, MethodSection.parse({"name": method}, "the method"), keep=False
        )
        return surgery.prune(self.handle, fitted, method)

    def timed(self, name: str, work: Callable[[], Any]) -> None:
        """A stage and what it says of itself; a stage that fails is a sentence, and the next one is tried."""
        self._wait()
        began = time.perf_counter()
        try:
            said = work()
            self._wait()
        except (ReplaceMeError, RuntimeError, TypeError, ValueError) as error:
            self.parts[name] = {"failed": f"{type(error).__name__}: {str(error).splitlines()[0][:300]}"}
            return
        seconds = time.perf_counter() - began
        bare = self.parts.get("bare_forward", {}).get("seconds") or seconds
        self.parts[name] = {"seconds": round(seconds, 4), "over_bare_forward": round(seconds / bare, 3), **(said or {})}

    def _wait(self) -> None:
        if self.handle.device.startswith("cuda"):
            torch.cuda.synchronize()


def run(check: Check) -> dict[str, Any]:
    """All stages in turn."""
    handle, text = check.handle, TextPart.of("given", "calibration", check.calibration.sequences, check.tokens)
    bare(handle, check.calibration)  # the first pass of a process loads kernels
    check.timed("bare_forward", lambda: bare(handle, check.calibration))
    check.timed("pass", lambda: _said(check.measurement))
    check.timed("moments", lambda: _ended(dict(check.measurement.moments.of_many([check.span], "end_norm"))))
    check.timed("error_layer", lambda: _ended(solvers.error_map(check.measurement, "least_squares")))
    for method in ("least_squares", "weighted_least_squares", "cosine"):
        check.timed(method, lambda method=method: _ended(solvers.fit(check.measurement, check.span, MethodSection(name=method))))
    for method in ("refit", "exchange_refit", "sequential_refit"):
        check.timed(method, lambda method=method: _ended(check.pruned(method)))
    check.timed("prune", lambda: _ended(check.variant))
    check.timed("compare", lambda: {"kl": [row.kl for row in compare.divergence(handle, [check.variant.handle], text)]})
    check.timed("benchmarks", lambda: _asked(check, exact=False))
    check.timed("benchmarks_in_lm_eval_batches", lambda: _asked(check, exact=True))
    section = HealingSection(steps=2, batch_tokens=256)
    check.timed("healing", lambda: _ended(heal(handle, check.variant, check.calibration, section)))
    return {
        "device": handle.device,
        "card": torch.cuda.get_device_name() if handle.device.startswith("cuda") else None,
        "dtype": handle.dtype,
        "tokens": check.calibration.n_tokens,
        "span": str(check.span),
        "parts": check.parts,
        "sums": sums(handle),
        "not_run": not_run(handle.device),
    }


def _ended(_found: Any) -> None:
    """A stage whose figures are its seconds."""


def _said(measurement: Measurement) -> dict[str, Any]:
    return {"kept_spans": len(measurement.spans())}


def _asked(check: Check, exact: bool) -> dict[str, Any]:
    section = EvaluationSection(tasks="demo:facts", limit=4 if check.tiny else 100, exact=exact)
    found = evaluate.require_all(evaluate.evaluate_all([check.handle, check.variant.handle], section, reuse=False))
    return {"log_likelihoods": sum(value for scores in found for task in scores.samples.values() for one in task for value in one.logliks)}


def sums(handle: ModelHandle) -> dict[str, Any]:
    """X^T X of bfloat16 rows in float64 on the device and on the CPU: the largest difference over the largest entry."""
    rows = torch.randn(1024, handle.width, generator=torch.Generator().manual_seed(0)).bfloat16()
    here = rows.double().T @ rows.double()
    with handle.borrow() as model:
        there = rows.to(model.device).double()
    return {"largest_difference": float(((there.T @ there).cpu() - here).abs().max() / here.abs().max()), "rows": len(rows)}


def not_run(device: str) -> list[str]:
    """Sentences, and without a GPU the lines of the library that are about one."""
    if device.startswith("cuda"):
        return ["several cards, and weights spread over a card and the memory: one card was used"]
    root = Path(replaceme_core.__file__).parent
    lines = [
        f"{path.relative_to(root.parent)}, line {number}: {line.strip()}"
        for path in sorted(root.rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if "cuda" in line and not line.strip().startswith(("#", '"'))
    ]
    return ["there is no GPU here: nothing ran in bfloat16 on a card, and these lines took their other way", *lines]


@click.command(help=__doc__)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines for people.")
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", show_default=True)
@click.option("--tiny", is_flag=True, help="A model of four small blocks, to try the script itself.")
@click.option("--tokens", default=16384, show_default=True)
def main(as_json: bool, device: str, tiny: bool, tokens: int) -> None:
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise click.UsageError("There is no CUDA device here; --tiny --device cpu tries the script itself.")
    found = run(Check(random_model(tiny, device), tokens, tiny))
    if as_json:
        click.echo(json.dumps(found))
        return
    for name, part in found["parts"].items():
        click.echo(
            f"{name:30} " + (part.get("failed") or f"{part['seconds']:9.3f} s  {part['over_bare_forward']:8.3f} of a bare forward pass")
        )
    click.echo(f"float64 sums on {found['device']}: {found['sums']['largest_difference']:.1e} from the CPU's")
    click.echo("\n".join(["not run:", *(f"  {each}" for each in found["not_run"])]))


if __name__ == "__main__":
    main()
