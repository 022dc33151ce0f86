"""A dry run tells the sizes of models far larger than this machine, from their configuration alone."""

import json
import shutil

import pytest
from transformers import LlamaConfig

from replaceme_core.dry_run import dry_run
from replaceme_core.errors import SpanError
from replaceme_core.plans.plan import PruningPlan

SHAPES = {
    "8B": (
        LlamaConfig(
            hidden_size=4096,
            intermediate_size=14336,
            num_hidden_layers=32,
            num_attention_heads=32,
            num_key_value_heads=8,
            vocab_size=128256,
        ),
        8_030_261_248,
    ),
    "70B": (
        LlamaConfig(
            hidden_size=8192,
            intermediate_size=28672,
            num_hidden_layers=80,
            num_attention_heads=64,
            num_key_value_heads=8,
            vocab_size=128256,
        ),
        70_553_706_496,
    ),
}


def plan_for(folder, **span):
    return PruningPlan.parse({"model": {"path": str(folder), "dtype": "bfloat16"}, "span": span})


@pytest.mark.parametrize("shape", list(SHAPES))
def test_the_sizes_of_a_large_model_come_from_its_configuration(shape, tmp_path):
    config, n_parameters = SHAPES[shape]
    config.save_pretrained(tmp_path)
    sizes = dry_run(plan_for(tmp_path, share=0.25))
    assert sizes.n_parameters == n_parameters
    assert sizes.weights_bytes == 2 * n_parameters
    assert sizes.n_removed == config.num_hidden_layers // 4
    width, inner = config.hidden_size, config.intermediate_size
    block = 2 * width * width + 2 * width * width // config.num_attention_heads * config.num_key_value_heads + 3 * width * inner + 2 * width
    assert sizes.export_bytes == pytest.approx(2 * (n_parameters - sizes.n_removed * block), rel=1e-9)
    points = 2 * config.num_hidden_layers  # boundaries 0 to L, and M of all blocks but the last
    assert sizes.stored_bytes == points * width * 2 * sizes.calibration_tokens
    assert 0 < sizes.pass_bytes <= 2**29


def test_how_a_large_model_is_shared_out_is_shown(tmp_path):
    """70B shapes in bfloat16: 80 blocks of 1.71 GB and 4.2 GB beside them; a device holds whole blocks in nine tenths of its memory."""
    SHAPES["70B"][0].save_pretrained(tmp_path)
    sizes = dry_run(plan_for(tmp_path, share=0.25))
    block = 2 * 855_654_400
    rest = sizes.weights_bytes - 80 * block
    for gib, number in ((24, 7), (48, 4), (80, 2), (141, 2)):
        room = 0.9 * gib * 2**30
        first = int((room - rest) // block)
        assert number == (1 if first >= 80 else 1 + -(-(80 - first) // int(room // block)))
        assert sizes.devices[f"{gib} GiB"] == number
    assert sizes.export_files == -(-sizes.export_bytes // 5_000_000_000)
    assert "spread over  7 of 24 GiB, 4 of 48 GiB, 2 of 80 GiB, 2 of 141 GiB (device: spread)" in sizes.lines()
    smaller = PruningPlan.parse(
        {"model": {"path": str(tmp_path), "dtype": "bfloat16"}, "span": {"share": 0.25}, "export": {"max_shard_size": "2 GiB"}}
    )
    assert dry_run(smaller).export_files == -(-sizes.export_bytes // 2**31)


def test_what_one_device_holds_is_not_shared_out(tmp_path):
    SHAPES["8B"][0].save_pretrained(tmp_path)
    assert set(dry_run(plan_for(tmp_path, share=0.25)).devices.values()) == {1}
    assert "spread over" not in dry_run(plan_for(tmp_path, share=0.25)).lines()


def test_a_span_given_by_hand_is_all_that_the_pass_stores_and_a_full_disk_is_told(tmp_path, monkeypatch):
    SHAPES["8B"][0].save_pretrained(tmp_path)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=100 * 2**30))
    sizes = dry_run(plan_for(tmp_path, start=21, end=29))
    assert sizes.n_removed == 8
    assert sizes.stored_bytes == 3 * 4096 * 2 * 45568
    assert "stores 1.04 GiB of activations on the disk" in sizes.lines()
    (stored,) = [line for line in sizes.lines().splitlines() if line.startswith("calibration")]
    assert "too little" not in stored
    monkeypatch.setenv("REPLACEME_STORE_GIB", "0.25")
    assert "room for 0.25 GiB - too little: use fewer tokens" in dry_run(plan_for(tmp_path, start=21, end=29)).lines()


def test_a_refit_says_what_it_takes_beside_the_pass_and_a_transform_takes_nothing_more(tmp_path, monkeypatch):
    config = SHAPES["8B"][0]
    config.save_pretrained(tmp_path)
    data = {"model": {"path": str(tmp_path), "dtype": "bfloat16"}, "span": {"start": 21, "end": 29}, "calibration": {"max_tokens": 10_000}}
    assert dry_run(PruningPlan.parse(data)).fit_bytes == 0
    refit = dry_run(PruningPlan.parse(data | {"method": {"name": "sequential_refit"}}))
    assert refit.stored_bytes == 15 * 4096 * 2 * 10_000, "the boundaries from two blocks before the carrier on"
    gram = 8 * config.intermediate_size**2
    assert refit.fit_bytes > 2 * gram + 4 * 10_000 * 2 * config.hidden_size, "two parts' Gram matrices and the streams at least"
    assert "runs the blocks" in refit.lines()
    monkeypatch.setenv("REPLACEME_STORE_GIB", "0.25")
    assert (
        "too little: a refit reads the model once more instead" in dry_run(PruningPlan.parse(data | {"method": {"name": "refit"}})).lines()
    )


def test_all_spans_of_a_cut_count(tmp_path):
    SHAPES["8B"][0].save_pretrained(tmp_path)
    sizes = dry_run(plan_for(tmp_path, start=21, end=25, more=[[27, 31]]))
    assert sizes.n_removed == 8
    assert sizes.fit_bytes > 0, "several spans are fitted in sequence"
    with pytest.raises(SpanError, match="model of 32 blocks"):
        dry_run(plan_for(tmp_path, start=21, end=25, more=[[27, 40]]))


def test_a_span_that_does_not_fit_is_told_before_anything_is_loaded(tmp_path):
    SHAPES["8B"][0].save_pretrained(tmp_path)
    with pytest.raises(SpanError, match="model of 32 blocks"):
        dry_run(plan_for(tmp_path, start=21, end=40))


def test_the_command_prints_the_sizes_and_writes_nothing(tmp_path):
    from click.testing import CliRunner

    from replaceme_core.cli.main import main

    SHAPES["8B"][0].save_pretrained(tmp_path / "model")
    plan_for(tmp_path / "model", share=0.25).write(tmp_path / "plan.yaml")
    arguments = ["run", "--plan", str(tmp_path / "plan.yaml"), "--out", str(tmp_path / "out"), "--dry-run"]
    shown = CliRunner().invoke(main, arguments)
    assert shown.exit_code == 0, shown.output
    assert "32 blocks, 8,030,261,248 parameters" in shown.output
    assert json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)["n_removed"] == 8
    assert not (tmp_path / "out").exists()
