"""SLEB, LaCo, LLM-Streamline and the linear blocks, each against a second route or a case that can be worked out by hand."""

import copy

import pytest
import torch

from replaceme_core import baselines
from replaceme_core.artifacts import Cut, Span
from replaceme_core.baselines import Request, laco, llm_streamline, secretly_linear, sleb
from replaceme_core.baselines.interface import cut_of
from replaceme_core.baselines.passes import passes
from replaceme_core.errors import Cancelled, ExportError, FamilyError, InputError, ModelError
from replaceme_core.export import export
from replaceme_core.models.architecture.families import blocks_of
from replaceme_core.models.loading import load, make_handle
from replaceme_core.plans.plan import ModelSection
from replaceme_core.surgery import surgery
from tests.core.models.test_families import handle_of
from tests.support.image_models import prepared, save_tiny


@pytest.fixture(scope="module")
def two(llama, calibration) -> Request:
    return Request(llama, calibration, 2)


@pytest.fixture(scope="module")
def vit(tmp_path_factory, images):
    """A tiny ViT and its calibration set."""
    handle = load(ModelSection(path=str(save_tiny(tmp_path_factory.mktemp("vit"), "vit"))))
    return handle, prepared(handle, images, max_tokens=340)


def logits(model) -> torch.Tensor:
    ids = torch.randint(0, 300, (2, 20), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False).logits


def loss(request: Request, removed: list[int]) -> float:
    """Mean negative log-likelihood of the train part, by whole passes of a cut model over one sequence after the other."""
    with request.handle.borrow() as model:
        cut = surgery.cut(model, request.handle.family, cut_of(removed))
    total, count = 0.0, 0
    for sequence, out in zip(request.calibration.sequences, request.calibration.heldout, strict=True):
        if not out:
            with torch.no_grad():
                scores = cut(input_ids=sequence.unsqueeze(0), use_cache=False).logits[0, :-1].double()
            total += float(torch.nn.functional.cross_entropy(scores, sequence[1:], reduction="sum"))
            count += len(sequence) - 1
    return total / count


def test_sleb_with_kept_prefixes_gives_the_losses_of_whole_passes_in_every_round(two):
    search = sleb.Search(two)
    first, _ = search.round([], "")
    assert sorted(first) == [1, 2, 3, 4], "never the first block, never the last"
    whole = {block: loss(two, [block]) for block in first}
    assert first == pytest.approx(whole, rel=1e-6)
    gone = min(whole, key=whole.__getitem__)
    second, _ = search.round([gone], "")
    whole = {block: loss(two, [gone, block]) for block in second}
    assert second == pytest.approx(whole, rel=1e-6)
    assert search.runs < 0.75 * search.full


def test_sleb_is_exhaustive_search_for_one_block_and_greedy_for_two(two):
    single = {block: loss(two, [block]) for block in range(1, 5)}
    best = min(single, key=single.__getitem__)
    made = baselines.prune("sleb", Request(two.handle, two.calibration, 1))
    assert made.removed == (best,)
    pairs = {block: loss(two, [best, block]) for block in range(1, 5) if block != best}
    greedy = baselines.prune("sleb", two)
    assert greedy.removed == tuple(sorted((best, min(pairs, key=pairs.__getitem__))))
    assert greedy.figures["rounds"][0]["block"] == best


def test_laco_sums_the_differences_of_the_weights_as_they_were():
    base, one, two = (torch.tensor(values) for values in ([1.0, 2.0], [3.0, 5.0], [-1.0, 4.0]))
    assert torch.equal(laco.merged(base, [one]), one), "one block merged into another is that block"
    assert torch.equal(laco.merged(base, [one, two]), one + two - base)
    running = base.clone()
    for other in (one, two):
        running += other - running
    assert torch.equal(running, two), "what a running copy comes to: plain dropping"
    assert not torch.equal(laco.merged(base, [one, two]), running)


def test_laco_with_one_block_is_the_cut_of_the_block_below(two):
    made = laco.Trials(two).made(((2, 1),))
    assert made.kept == [0, 1, 2, 4, 5]
    with two.handle.borrow() as model:
        merged = surgery.applied(model, two.handle.family, Span(3, 4), made.weights)
        dropped = surgery.cut(model, two.handle.family, Span(2, 3))
        assert torch.equal(logits(merged), logits(dropped))


def test_laco_takes_the_highest_threshold_that_removes_enough(llama, calibration):
    request = Request(llama, calibration, 3)
    made = baselines.prune("laco", request)
    assert len(made.removed) == 3
    trials = laco.Trials(request)
    threshold = made.figures["threshold"]
    assert sum(count for _, count in laco.collapse(trials, (), 3, threshold).merges) == 3
    higher = laco.collapse(trials, (), 3, threshold + 1e-9)
    assert sum(count for _, count in higher.merges) < 3
    with llama.borrow() as model:
        blocks = blocks_of(model, llama.family)
        weights = {number: block.mlp.down_proj.weight for number, block in enumerate(blocks)}
    (merge,) = made.figures["merges"]
    expected = weights[merge["into"]] + sum(weights[number] - weights[merge["into"]] for number in merge["blocks"])
    found = made.variant.transform.weights[f"{merge['into']}.mlp.down_proj.weight"]
    torch.testing.assert_close(found, expected)


def test_the_cosine_that_laco_reads_is_that_of_the_last_stream(two):
    merges = ((3, 2),)
    made = laco.Trials(two).made(merges)
    with two.handle.borrow() as model:
        merged = surgery.applied(model, two.handle.family, Span(4, 6), made.weights)
    total, count = 0.0, 0
    for a, b in zip(passes(two.handle, two.calibration, ""), passes(two.handle, two.calibration, "", model=merged), strict=True):
        for x, y in zip(a.rows(-1), b.rows(-1), strict=True):
            total, count = total + float(x @ y / (x.norm() * y.norm())), count + 1
    assert laco.Trials(two).cosine(merges) == pytest.approx(total / count, abs=1e-9)


def test_laco_refuses_blocks_of_different_shapes(calibration):
    with pytest.raises(FamilyError, match="differ in shape"):
        baselines.prune("laco", Request(_uneven(), calibration, 2))


def _uneven():
    """A gpt2 whose last block has a wider MLP."""
    from transformers.pytorch_utils import Conv1D

    handle = handle_of("gpt2")
    with handle.borrow() as model:
        mlp = blocks_of(model, handle.family)[-1].mlp
        mlp.c_fc, mlp.c_proj = Conv1D(40, 32), Conv1D(32, 40)
    return handle


def test_llm_streamline_before_its_first_step_is_the_plain_cut_of_the_window(two, measurement):
    given = Request(two.handle, two.calibration, 2, measurement)
    choice = llm_streamline.choose(given, steps=0)
    values = measurement.distances["all"].values
    best = min(range(4), key=lambda start: float(values[start, start + 3]))
    assert choice.figures["window"] == [best, best + 3]
    assert choice.blocks == (best + 1, best + 2)
    assert choice.weights == {}
    assert choice.notes


def test_llm_streamline_trains_one_block_to_less_error_and_says_that_it_trains(two, measurement):
    given = Request(two.handle, two.calibration, 2, measurement, seed=4)
    made = baselines.prune("llm_streamline", given)
    points = made.figures["loss"]
    assert points[0]["step"] == 0
    assert points[-1]["step"] == llm_streamline.STEPS
    assert min(point["train"] for point in points) < 0.9 * points[0]["train"]
    assert made.training
    changed = {name.split(".")[0] for name in made.variant.transform.weights}
    assert changed == ({str(made.figures["window"][0])} if made.figures["best_step"] else set())
    again = baselines.prune("llm_streamline", given)
    assert again.handle.fingerprint == made.handle.fingerprint


def test_the_training_of_a_block_is_heard_when_it_is_cancelled(two, measurement):
    class Stop:
        def update(self, done, total, unit, what):  # noqa: ARG002
            if "training" in what and done == 3:
                raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        baselines.prune("llm_streamline", Request(two.handle, two.calibration, 2, measurement, progress=Stop()))


def sums_of(before: torch.Tensor, behind: torch.Tensor) -> secretly_linear.BlockSums:
    sums = secretly_linear.BlockSums.zeros(before.shape[1])
    for rows in torch.arange(len(before)).split(37):
        sums.add(before[rows], behind[rows])
    return sums


def dense(before: torch.Tensor, behind: torch.Tensor) -> tuple[torch.Tensor, float]:
    """A and the score by lstsq on centred data."""
    x, y = before - before.mean(0), behind - behind.mean(0)
    x, y = x / x.norm(), y / y.norm()
    slope = torch.linalg.lstsq(x, y).solution
    return slope * (behind - behind.mean(0)).norm() / (before - before.mean(0)).norm(), 1 - float((x @ slope - y).square().sum())


def test_an_exactly_linear_block_scores_one_and_its_matrix_is_found():
    generator = torch.Generator().manual_seed(0)
    before = torch.randn(400, 12, generator=generator, dtype=torch.float64) + 3
    slope, offset = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((12, 12), (12,)))
    behind = before @ slope + offset
    fit = secretly_linear.fit(1, sums_of(before[:300], behind[:300]), sums_of(before[300:], behind[300:]))
    assert fit.train_score == pytest.approx(1, abs=1e-9)
    assert fit.heldout_score == pytest.approx(1, abs=1e-9)
    torch.testing.assert_close(fit.slope, dense(before[:300], behind[:300])[0], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(before @ fit.slope + fit.offset, behind, atol=1e-5, rtol=1e-5)


def test_the_score_of_a_block_that_is_not_linear_is_that_of_least_squares():
    generator = torch.Generator().manual_seed(1)
    before = torch.randn(500, 10, generator=generator, dtype=torch.float64) - 1
    behind = before + torch.tanh(2 * before @ torch.randn(10, 10, generator=generator, dtype=torch.float64))
    train, heldout = sums_of(before[:400], behind[:400]), sums_of(before[400:], behind[400:])
    fit = secretly_linear.fit(0, train, heldout)
    slope, score = dense(before[:400], behind[:400])
    assert fit.train_score <= score + 1e-9
    assert fit.train_score == pytest.approx(score, abs=1e-3)
    missed = (before[400:] @ fit.slope + fit.offset - behind[400:]).square().sum()
    spread = (behind[400:] - behind[400:].mean(0)).square().sum()
    assert fit.heldout_score == pytest.approx(1 - float(missed / spread), abs=1e-9)
    own = behind[400:] - before[400:]
    assert fit.heldout_own_score == pytest.approx(1 - float(missed / (own - own.mean(0)).square().sum()), abs=1e-9)
    if fit.ridge == 0:
        torch.testing.assert_close(fit.slope, slope)


def test_a_block_that_does_nothing_is_replaced_first_and_nothing_changes(llama, calibration):
    with llama.borrow() as model:
        changed = copy.deepcopy(model)
    block = blocks_of(changed, llama.family)[3]
    with torch.no_grad():
        for layer in (block.self_attn.o_proj, block.mlp.down_proj):
            layer.weight.zero_()
            layer.bias.fill_(0.1)
    handle = make_handle("with an idle block", changed, llama.tokenizer, llama.family)
    made = baselines.prune("secretly_linear", Request(handle, calibration, 1))
    assert made.removed == (3,)
    assert made.figures["heldout_score"][3] == pytest.approx(1, abs=1e-9)
    with made.handle.borrow() as pruned:
        torch.testing.assert_close(logits(pruned), logits(changed), atol=1e-4, rtol=1e-4)
    width = handle.width
    assert made.n_parameters_removed == sum(p.numel() for p in block.parameters()) - width * width - width


@pytest.mark.parametrize("kind", ["gpt2", "qwen2", "gemma2", "mixtral", "bloom"])
def test_linear_stand_ins_are_proved_in_other_families(kind, calibration):
    made = baselines.prune("secretly_linear", Request(handle_of(kind), calibration, 3))
    assert {proof.name for proof in made.proofs} == {"merged = hooked", "cached = uncached", "shapes as in the original"}


def test_linear_blocks_are_not_written_as_a_plain_folder(two, tmp_path):
    made = baselines.prune("secretly_linear", two)
    with pytest.raises(ExportError, match="in the place of whole blocks"):
        export.export(made.variant, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert "stays in memory" in made.notes[0]


def test_a_small_budget_makes_more_passes_and_the_same_scores(two):
    once = secretly_linear.fits(two.handle, two.calibration)
    parts = secretly_linear.fits(two.handle, two.calibration, budget_bytes=2 * 4 * 8 * two.handle.width**2)
    assert [fit.heldout_score for fit in parts] == [fit.heldout_score for fit in once]
    assert [fit.block for fit in parts] == list(range(6))


@pytest.mark.parametrize("name", ["sleb", "laco", "uidl_simple"])
def test_methods_that_keep_both_ends_say_how_much_they_can_remove(name, llama, calibration):
    with pytest.raises(InputError, match="between 1 and 4 can"):
        baselines.prune(name, Request(llama, calibration, 5))


@pytest.mark.parametrize("name", ["uidl", "shortgpt", "laco", "secretly_linear", "llm_streamline"])
def test_an_encoder_of_images_is_pruned_too(name, vit):
    made = baselines.prune(name, Request(*vit, 2))
    assert len(made.removed) == 2
    assert {proof.name for proof in made.proofs} == {"merged = hooked", "forward = block by block", "shapes as in the original"}


def test_sleb_says_that_it_reads_text(vit):
    with pytest.raises(ModelError, match="reads images"):
        baselines.prune("sleb", Request(*vit, 2))


def test_a_cut_without_neighbours_names_every_span():
    assert cut_of((1, 3, 4)) == Cut((Span(1, 2), Span(3, 5)))
