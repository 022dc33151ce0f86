"""Charts of scores and intervals are valid, and a system keeps its colour."""

import pandas as pd

from ui.look.palette import Palette
from ui.look.systems import CUT, system_colours
from ui.parts import intervals as score_charts


def test_the_charts_of_scores_are_valid(colours: Palette) -> None:
    names = ["original", CUT, "a", "b", "c"]
    rows = [{"task": "t", "system": name, "value": 0.5, "stderr": 0.1, "low": 0.4, "high": 0.6, "n": 50, "chance": 0.25} for name in names]
    score_charts.score_chart(pd.DataFrame(rows), names, colours).to_dict()
    score_charts.interval_chart(pd.DataFrame(rows), names, "perplexity", colours).to_dict()


def test_a_system_has_its_colour_with_and_without_a_cut_beside_it(colours: Palette) -> None:
    both = system_colours(["original", CUT, "a", "b"], colours)
    alone = system_colours(["original", "a", "b"], colours)
    assert both == {"original": colours.original, CUT: colours.cut, "a": colours.pruned, "b": colours.carrier}
    assert alone == {name: both[name] for name in alone}
