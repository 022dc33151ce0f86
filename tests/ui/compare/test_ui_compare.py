"""What Compare draws: tokens in any script, bars and strips that are valid, lenses that stand side by side by the original's blocks."""

import re

import pytest

from replaceme_core.artifacts import Cut, Span
from replaceme_core.comparison.logit_lens import Guess, Lens
from replaceme_core.comparison.reading import Expected, Reading
from ui.compare import reading_pictures as pictures
from ui.compare.lens_picture import Side, lens_table
from ui.look.palette import Palette, rgb
from ui.look.token_text import differences, marked_runs, text_html, tint, visible

NAMES = ["original", "cut", "<b>"]


def reading() -> Reading:
    """Four tokens: a first one that nothing predicts, a tag, half an emoji, and the rest of it."""

    def row(kl: float) -> list[Expected | None]:
        return [None, *(Expected(kl * at, 0.2, 2, [("<i>", 0.5), ('"x"', 0.2)]) for at in range(3))]

    return Reading(["a", "<i>", "", "🙃\n"], 7, [row(0.0), row(0.1), row(1.0)])


def test_a_strip_has_a_span_for_every_character_a_bar_for_its_kl_and_escapes_everything(colours: Palette) -> None:
    shown = pictures.text_strip(reading(), NAMES, 2, colours, chosen=1, strip="here")
    assert shown.count("title=") == 3, "the two tokens of the emoji share a span"
    assert [int(height) for height in re.findall(r"bottom/100% (\d+)px", shown)] == [0, 0, 14]
    assert shown.count("outline:") == 1
    assert "<i>" not in shown
    assert "<b>" not in shown
    assert '"x"' not in shown
    assert "part of a character" in shown
    assert 'dir="auto"' in shown
    assert re.findall(r'data-token="(\d+)"', shown) == ["0", "1", "3"]
    assert 'data-strip="here"' in shown


def test_nothing_stands_between_the_letters_of_a_joined_script(colours: Palette) -> None:
    """Letters of two tokens each: between the spans of two letters there is no sign, or they would not join."""
    row = [None, *(Expected(0.1, 0.5, 1, []) for _ in range(5))]
    word = Reading(["", "ش", "", "ج", "", "ر"], 0, [row, row])
    assert pictures.characters(word.tokens) == [[0, 1], [2, 3], [4, 5]]
    assert re.sub(r"<[^>]*>", "", pictures.text_strip(word, ["original", "b"], 1, colours)) == "شجر"
    assert pictures.characters(["a", "", ""]) == [[0], [1, 2]], "a text that ends inside a character"


@pytest.mark.parametrize(("kl", "height", "seen"), [(0.0, 0, False), (0.009, 0, False), (0.011, 2, True), (0.05, 2, True), (0.25, 7, True)])
def test_bars_of_small_differences_stay_small_and_every_one_that_counts_is_seen(
    kl: float, height: int, seen: bool, colours: Palette
) -> None:
    small = Reading(["a", "b"], 0, [[None, Expected(0.0, 0.5, 1, [])], [None, Expected(kl, 0.5, 1, [])]])
    shown = pictures.text_strip(small, ["original", "b"], 1, colours)
    shade = re.findall(r"no-repeat,([^\"]+)\"", shown)[1]
    assert (shade != "transparent") is seen
    if seen:
        alpha = float(shade.rstrip(")").split(",")[-1])
        mixed = [alpha * over + (1 - alpha) * under for over, under in zip(rgb(colours.harm[3]), rgb(colours.background), strict=True)]
        high, low = sorted((luminance(tuple(mixed)), luminance(rgb(colours.background))), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 1.1, "a tint that nobody sees says nothing"
    assert f"bottom/100% {height}px" in pictures.text_strip(small, ["original", "b"], 1, colours)


def test_the_table_says_what_stands_there_and_ticks_it_among_the_five(colours: Palette) -> None:
    shown = pictures.expected_table(reading(), NAMES, 1, dict.fromkeys(NAMES, colours.cut), colours)
    assert shown.count("&lt;i&gt;</bdi> 20.0%, rank 2") == 3
    assert shown.count("✓") == 3, "the second of the two has the rank of the token that stands there"
    assert "&lt;b&gt;" in shown
    assert "–" in pictures.expected_table(reading(), NAMES, 0, dict.fromkeys(NAMES, colours.cut), colours)


@pytest.mark.parametrize(
    ("token", "shown"), [(" Jane", "Jane"), ("\n", "⏎"), ("  ", "␣␣"), ("", "·"), ("\t", "⇥"), ("شجرة", "شجرة"), ("a\ufffd", "a‹byte›")]
)
def test_a_token_alone_is_visible(token: str, shown: str) -> None:
    assert visible(token) == shown


def test_differences_are_underlined_and_the_same_is_not(colours: Palette) -> None:
    base, own = [" the", " old", " green", " tree", "."], [" the", " big", " tree", ".", " Yes"]
    left, added = differences(base, own)
    shown = text_html(own, added, colours.pruned, colours)
    assert re.findall(r"underline solid[^>]*>([^<]*)<", shown) == [" big", " Yes"]
    assert re.findall(r"underline dashed[^>]*>([^<]*)<", text_html(base, left, colours.original, colours, line="dashed")) == [" old green"]
    assert (marked_runs(base, left), marked_runs(own, added)) == ("“old green”", "“big”, “Yes”")
    assert marked_runs(list("abcde"), [True, False] * 2 + [True], most=2) == "“a”, “c” and 1 more"
    assert differences(base, base) == ([False] * 5, [False] * 5)
    assert "underline" not in text_html(own, None, colours.pruned, colours)
    assert "> Yes<" not in text_html([*own, " more"], added[:3], colours.pruned, colours), "pieces that came after the marks have none"


def test_a_mark_does_not_break_a_character_of_several_tokens(colours: Palette) -> None:
    left, added = differences(["a", "", "🙃"], ["a", "b"])
    assert (left, added) == ([False, False, True], [False, True])
    assert ">🙃<" in text_html(["a", "", "🙃"], left, colours.pruned, colours)


def test_a_text_of_any_script_has_its_own_direction_and_is_not_taken_apart(colours: Palette) -> None:
    shown = text_html(["شجرة", " خض", "", "راء 🙃"], None, colours.pruned, colours, growing=True)
    assert "شجرة خضراء 🙃" in shown
    assert shown.startswith('<div dir="auto"')
    assert "▌" in shown


def luminance(colour: tuple[float, ...]) -> float:
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in (value / 255 for value in colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("name", ["original", "cut", "pruned", "carrier", "muted", "harm"])
def test_ink_can_be_read_on_the_strongest_tint(name: str, colours: Palette) -> None:
    colour = colours.harm[3] if name == "harm" else getattr(colours, name)
    alpha = float(tint(colour, 1.0).rstrip(")").split(",")[-1])
    mixed = [alpha * over + (1 - alpha) * under for over, under in zip(rgb(colour), rgb(colours.background), strict=True)]
    high, low = sorted((luminance(tuple(mixed)), luminance(rgb(colours.ink))), reverse=True)
    assert (high + 0.05) / (low + 0.05) >= 4.5


def lens(n_boundaries: int, token: str) -> Lens:
    return Lens(["<s>", "b"], 3, [[Guess([(f"{token}{at}", 0.5), ("z", 0.1)], 0.3) for _ in range(2)] for at in range(n_boundaries)])


def test_lenses_stand_side_by_side_by_the_blocks_that_both_have(colours: Palette) -> None:
    whole = Side("original", lens(7, "t"), None, 6)
    pruned = Side("<b>", lens(5, "u"), Cut.of([Span(2, 4)]), 6)
    assert [row is None for row in pruned.rows] == [False, False, True, True, False, False, False]
    assert pruned.row_name(4) == "into 4 ←1", "the carrier's output goes into block 4"
    assert [pruned.row_name(at) for at in (0, 6)] == ["into 0", "answer"]
    left, right = (
        lens_table(whole, None, "probability", colours.original, colours),
        lens_table(pruned, whole, "kl", colours.pruned, colours),
    )
    assert left.count("<tr>") == right.count("<tr>") == 8, "a header and the same seven rows on both sides"
    assert right.count("is removed") == 2
    assert "dashed" not in left
    assert right.count("dashed") == 10, "every token of the five other rows is another one"
    assert "<s>" not in left
    assert "<b>" not in right
    assert ">50<" in left
    assert ">0.3<" in right


def test_a_cut_of_the_last_blocks_joins_the_answer() -> None:
    side = Side("cut", lens(5, "t"), Cut.of([Span(4, 6)]), 6)
    assert [row is None for row in side.rows] == [False, False, False, False, True, True, False]
    assert side.row_name(6) == "answer ←3"
