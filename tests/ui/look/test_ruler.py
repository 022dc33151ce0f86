"""The strip of blocks: what it marks, and what it says."""

from ui.look import ruler
from ui.look.palette import LIGHT, Palette


def test_the_ruler_marks_removed_and_carrier_and_reads_out_as_one_sentence(colours: Palette) -> None:
    shown = ruler.ruler_html(12, range(6, 9), "removes <six>", colours)
    assert shown.count(": removed") == 3
    assert shown.count("block 5: carrier") == 1
    assert shown.count(": kept") == 8
    assert 'aria-label="removes &lt;six&gt;"' in shown


def test_the_ruler_of_a_deep_model_numbers_every_eighth_block() -> None:
    shown = ruler.ruler_html(80, None, "80 blocks, all kept", LIGHT)
    assert ">72<" in shown
    assert ">76<" not in shown
