"""What a cut gains: both models in turn, ratios within a repeat, memory counted while it lives, the size that an export has."""

import time

import torch
from torch.profiler import ProfilerActivity, profile

from replaceme_core.comparison import speed_gain
from replaceme_core.comparison.speed_gain import Range, Timing, disk_bytes, measure_gain, peak_bytes
from replaceme_core.comparison.timing import speed
from replaceme_core.export.export import export


def test_original_and_pruned_run_in_turn_and_who_begins_changes(llama, variant, monkeypatch):
    order = []
    clock = iter([(0.5, 1.0, 0), (1.0, 2.0, 0), (4.0, 8.0, 0), (2.0, 4.0, 0), (1.0, 1.0, 0), (0.2, 0.5, 0)])

    def once(handle, *_):
        order.append(handle is llama)
        return next(clock)

    monkeypatch.setattr(speed_gain, "timed_run", once)
    monkeypatch.setattr(speed_gain, "peak_bytes", lambda *_: 1)
    gain = measure_gain(llama, variant.handle, Timing(10, 4, 2))
    assert order == [False, True, True, False, False, True]
    # repeat 1: original 4 s and 8 s, pruned 2 s and 4 s; repeat 2: pruned 1 s and 1 s, original 0.2 s and 0.5 s
    assert gain.prefill.ratio == Range.of([2.0, 0.2])
    assert gain.decode.ratio == Range.of([2.0, 0.5])
    assert gain.prefill.original == Range.of([10 / 4, 10 / 0.2])
    assert gain.decode.pruned == Range.of([4 / 4, 4 / 1])


def test_the_figures_of_two_real_models_are_whole(llama, variant):
    seen = []

    class Record:
        def update(self, *report):
            seen.append(report)

    gain = measure_gain(llama, variant.handle, Timing(1000, 3, 2), Record())
    assert gain.timing.prompt_tokens == 253, "no longer than the context"
    for pair in (gain.prefill, gain.decode):
        for value in (pair.original, pair.pruned, pair.ratio):
            assert 0 < value.low <= value.median <= value.high
    assert gain.pruned_peak_bytes < gain.original_peak_bytes
    assert gain.pruned_disk_bytes < gain.original_disk_bytes
    assert "thread" in gain.device
    assert [report[0] for report in seen] == [1, 2, 3]


def test_peak_memory_is_what_the_profiler_of_torch_says(llama):
    timing = Timing(64, 4)
    speed_gain.timed_run(llama, 64, 4)
    counted = peak_bytes(llama, timing) - llama.n_bytes
    assert counted == peak_bytes(llama, timing) - llama.n_bytes, "the same every time"
    with llama.borrow(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        speed_gain.timed_run(llama, 64, 4)
    living = most = 0
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            living += event.nbytes()
            most = max(most, living)
    assert abs(counted - most) <= 0.05 * most


def test_views_and_weights_are_not_counted_and_freed_memory_is_given_back():
    model = torch.nn.Linear(100, 100, bias=False)
    with torch.no_grad(), speed_gain.LivingTensors(model) as living:
        x = torch.zeros(50, 100)
        y = model(x)
        y = y + 1
        z = y.view(-1)[:10]
        assert living._living == 2 * 50 * 100 * 4
        assert living.peak == 3 * 50 * 100 * 4
        del x, y, z
        assert living._living == 0


def test_the_size_on_disk_is_that_of_the_exported_weights(variant, tmp_path):
    export(variant, tmp_path / "model")
    written = (tmp_path / "model" / "model.safetensors").stat().st_size
    header = int.from_bytes((tmp_path / "model" / "model.safetensors").read_bytes()[:8], "little") + 8
    assert disk_bytes(variant.handle) == written - header


def test_tied_weights_are_one_tensor(tmp_path):
    from replaceme_core.models.loading import load
    from replaceme_core.plans.plan import ModelSection
    from tests.support.tiny_models import save_tiny

    folder = save_tiny(tmp_path, "llama_tied")
    file = folder / "model.safetensors"
    header = int.from_bytes(file.read_bytes()[:8], "little") + 8
    assert disk_bytes(load(ModelSection(path=str(folder)))) == file.stat().st_size - header


def test_a_speed_is_of_the_tokens_that_the_clock_saw_and_the_first_run_only_warms_up(llama):
    """Second route: the clock around all runs, and a hook that counts the model's own passes."""
    passes = []
    with llama.borrow() as model:
        counter = model.register_forward_hook(lambda *_: passes.append(1))
    try:
        began = time.perf_counter()
        found = speed(llama, prompt_tokens=16, new_tokens=20)
        took = time.perf_counter() - began
    finally:
        counter.remove()
    assert len(passes) == (1 + found.repeats) * (1 + 20)
    assert found.repeats * (found.prefill_range[0] / 1000 + 20 / found.decode_range[1]) < took
