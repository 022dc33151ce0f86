"""A refit takes no more memory than it says before it begins, and not much less."""

import pytest
import torch

from replaceme_core import refit
from replaceme_core.artifacts import Cut, ModelHandle, Span
from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.comparison.speed_gain import LivingTensors
from replaceme_core.models import loading
from replaceme_core.plans.plan import MethodSection, ModelSection
from tests.support.tiny_models import save_tiny

LENGTH = 128


@pytest.fixture(scope="module", params=[(64, 128, 6144), (128, 384, 3072)], ids=["many tokens", "wide layers"])
def problem(request, tmp_path_factory) -> tuple[ModelHandle, CalibrationSet]:
    """Once the streams are the most of it, once the weights and sums."""
    width, inner, n_tokens = request.param
    shape = {"hidden_size": width, "intermediate_size": inner, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": width // 4}
    handle = loading.load(ModelSection(path=str(save_tiny(tmp_path_factory.mktemp("wide"), "llama", **shape))))
    generator = torch.Generator().manual_seed(0)
    sequences = [torch.randint(0, 100, (LENGTH,), generator=generator) for _ in range(n_tokens // LENGTH)]
    return handle, CalibrationSet("t", sequences, [i % 8 == 0 for i in range(len(sequences))], "t", [])


@pytest.mark.parametrize(
    ("cut", "section"),
    [
        (Cut.of([Span(2, 4)]), MethodSection(name="refit")),
        (Cut.of([Span(2, 4)]), MethodSection(name="local_refit")),
        (Cut.of([Span(2, 4)]), MethodSection(name="exchange_refit")),
        (Cut.of([Span(2, 4)]), MethodSection(name="sequential_refit", lookahead=1)),
        (Cut.of([Span(1, 2), Span(4, 5)]), MethodSection(name="sequential_refit", lookahead=0)),
    ],
    ids=["carrier", "around the cut", "exchange", "sequence", "two spans"],
)
def test_it_takes_no_more_memory_than_it_says_and_not_much_less(problem, cut, section) -> None:
    handle, calibration = problem
    said = refit.needed_bytes(section.name, handle, calibration.n_tokens, handle.n_blocks - len(cut), len(cut.spans))
    with handle.borrow() as model, LivingTensors(model) as living:
        refit.fit(handle, calibration, cut, section, budget_bytes=2**34)
    assert 0.5 * said < living.peak <= said
