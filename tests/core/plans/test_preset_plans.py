"""The plans of the paper's runs: each can be parsed, and its sizes are known from a configuration of that model's shape."""

from pathlib import Path

import pytest
from transformers import LlamaConfig, Qwen2Config

from replaceme_core.dry_run import dry_run
from replaceme_core.evaluation import suites
from replaceme_core.plans.plan import PruningPlan
from replaceme_core.storage import shipped
from tests.core.test_dry_run import SHAPES as SIZES

PLANS = sorted((shipped.ASSETS / "presets" / "plans").glob("*.yaml"))
SHAPES = {
    "llama2_7b": (
        LlamaConfig(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32, vocab_size=32000),
        6_738_415_616,
        8,
    ),
    "llama3_8b_instruct": (*SIZES["8B"], 8),
    "qwen2.5_7b": (
        Qwen2Config(
            hidden_size=3584,
            intermediate_size=18944,
            num_hidden_layers=28,
            num_attention_heads=28,
            num_key_value_heads=4,
            vocab_size=152064,
        ),
        7_615_616_512,
        7,
    ),
}
"""configuration, parameters as their cards count them, blocks of a quarter"""


def test_there_is_a_plan_for_each_of_the_papers_runs() -> None:
    assert [path.stem for path in PLANS] == sorted(SHAPES)


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_the_plan_is_the_papers_and_says_what_it_takes(path: Path, tmp_path: Path) -> None:
    config, n_parameters, n_removed = SHAPES[path.stem]
    config.save_pretrained(tmp_path)
    plan = PruningPlan.read(path)
    assert plan.method.name == "least_squares"
    assert (plan.span.criterion, plan.span.positions) == ("distance", "last")
    assert plan.evaluation is not None
    assert plan.evaluation.tasks in suites.presets()
    sizes = dry_run(plan.model_copy(update={"model": plan.model.model_copy(update={"path": str(tmp_path)})}))
    assert (sizes.n_parameters, sizes.n_removed) == (n_parameters, n_removed)
    assert sizes.stored_bytes == 2 * config.num_hidden_layers * config.hidden_size * 2 * 65536
    assert plan.model.path in path.read_text()
