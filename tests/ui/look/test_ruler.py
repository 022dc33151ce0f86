"""The strip of blocks: what it marks, what it says, and that nothing that matters loses its number on a deep model."""

import re
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from replaceme_core.artifacts import Cut, LinearTransform, Span
from ui.look import ruler
from ui.look.palette import LIGHT, Palette


def test_the_ruler_marks_removed_and_carrier_and_reads_out_as_one_sentence(colours: Palette) -> None:
    shown = ruler.ruler_html(12, range(6, 9), "removes <six>", colours)
    assert shown.count(": removed") == 3
    assert shown.count("block 5: carrier") == 1
    assert shown.count(": kept") == 8
    assert 'aria-label="removes &lt;six&gt;"' in shown
    assert "5&thinsp;+T" in shown


@pytest.mark.parametrize(("n_blocks", "first", "last"), [(16, 3, 3), (30, 11, 17), (30, 28, 29), (80, 41, 42), (80, 40, 59), (126, 1, 31)])
def test_carrier_and_removed_run_are_named_at_every_depth_and_no_two_names_meet(n_blocks: int, first: int, last: int) -> None:
    shown = ruler.ruler_html(n_blocks, range(first, last + 1), "some", LIGHT)
    assert f"{first - 1}&thinsp;+T" in shown
    marks = [(float(at), said) for at, said in re.findall(r"top:1px;left:([\d.]+)%[^>]*>([^<]*)<", shown)]
    assert (str(first) if first == last else f"{first}–{last}") in [said for _, said in marks]
    spans = sorted((at / 100 * 500 - 3.8 * len(said), at / 100 * 500 + 3.8 * len(said)) for at, said in marks)
    assert all(left[1] <= right[0] for left, right in pairwise(spans)), "at 500 px, a figure being 7.6 px wide"
    assert len(marks) >= 4


def test_two_runs_have_two_carriers() -> None:
    shown = ruler.ruler_html(30, [3, 4, 20], "two", LIGHT)
    assert "2&thinsp;+T" in shown
    assert "19&thinsp;+T" in shown
    assert "3–4" in shown


@pytest.mark.parametrize(("n_blocks", "solved", "named"), [(12, [4, 5, 9], []), (30, [4, 5, 9], ["4–5", ">9&"]), (30, [], [])])
def test_a_refit_marks_the_blocks_it_solved_and_no_transform(n_blocks: int, solved: list[int], named: list[str]) -> None:
    shown = ruler.ruler_html(n_blocks, range(6, 9), "six to eight", LIGHT, solved=solved)
    assert shown.count(": solved") == len(solved)
    assert shown.count(": removed") == 3
    assert "+T" not in shown
    assert ("solved: new weights" in shown) == bool(solved)
    assert "gets the transform" not in shown
    assert all(said in shown for said in named)


def test_t_of_several_spans_is_marked_as_t_and_a_refit_as_solved() -> None:
    several = replace(LinearTransform.removal(Cut.of([Span(2, 4), Span(6, 7)])), weights={"1.mlp.down_proj.weight": torch.zeros(1)})
    assert ruler.solved_in(replace(several, settings={"name": "weighted_least_squares"})) is None
    assert ruler.solved_in(replace(several, settings={"name": "local_refit"})) == (1,)
    assert ruler.solved_in(LinearTransform.removal(Cut.of([Span(2, 4)]))) == ()
