"""Many prompts at once: a file read strictly, a job whose rows stay when it is cancelled, a list sorted by what differs."""

import json
import threading

import pytest

from replaceme_core.comparison import compare
from replaceme_core.errors import InputError
from tests.support.app_session import click, finish, open_page, run, text_of
from ui.compare import words
from ui.compare.prompt_files import prompts_of
from ui.compare.prompt_jobs import PromptSetState, Row, _parts
from ui.compare.prompt_set import frame_of, ordered, summary
from ui.look.systems import CUT, ORIGINAL
from ui.session import work
from ui.session.jobs import runner
from ui.session.state import Studio

pytestmark = pytest.mark.usefixtures("at_the_root")
PAGE = "pages/4_Compare.py"


def test_prompts_are_lines_or_rows_of_json() -> None:
    assert prompts_of("a.txt", "\ufeffOne\n\n  Two \n".encode()) == ["One", "Two"]
    assert prompts_of("a.txt", b"One\r\nTwo\rThree") == ["One", "Two", "Three"]
    assert prompts_of("a.jsonl", b'{"prompt": " One"}\n{"text": "Two", "x": 1}\n') == [" One", "Two"]
    assert prompts_of("a.jsonl", '{"prompt": "One\u2028more\x85line"}\r\n{"prompt": "Two"}'.encode()) == ["One\u2028more\x85line", "Two"]


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\u0085", "\x7f"])
def test_only_a_newline_ends_a_row(sign: str) -> None:
    rows = [f"One{sign}more", "Two"]
    assert prompts_of("a.jsonl", "".join(json.dumps({"prompt": row}, ensure_ascii=False) + "\n" for row in rows).encode()) == rows
    assert prompts_of("a.txt", "\n".join(rows).encode()) == rows


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.txt", b"\n \n", "holds no prompts"),
        ("a.txt", b"\xff\xfe", "not UTF-8"),
        ("a.txt", b"x\n" * 101, "at most 100"),
        ("a.txt", b"x" * 8001, "prompt 1 has 8,001"),
        ("a.jsonl", b'{"prompt": "a"}\n{', "line 2 is not JSON"),
        ("a.jsonl", b'["a"]', "line 1 has no prompt"),
        ("a.jsonl", b'{"prompt": " "}', "line 1 has no prompt"),
    ],
)
def test_a_file_that_cannot_be_used_says_where(name: str, data: bytes, said: str) -> None:
    with pytest.raises(InputError, match=said):
        prompts_of(name, data)


def test_texts_part_at_the_first_other_token_or_where_one_ends() -> None:
    assert [_parts([1, 2, 3], other) for other in ([1, 2, 3], [1, 9, 3], [1, 2], [1, 2, 3, 4], [])] == [None, 1, 2, 3, 0]


def test_the_list_is_sorted_by_kl_or_by_where_they_part() -> None:
    rows = [Row(name, {}, {"a": kl}, {"a": parts}) for name, kl, parts in (("x", 0.1, None), ("y", 0.9, 7), ("z", 0.5, 2))]
    assert ["".join(row.prompt for row in ordered(rows, "a", by)) for by in ("kl", "parts", "own")] == ["yzx", "zyx", "xyz"]
    assert "1 of 3" in summary(rows, "a", "original")
    assert "half part within 3 tokens" in summary(rows, "a", "original")
    assert frame_of(rows, ["a"])["parts at, a"].tolist()[1:] == [8, 3], "counted from 1"


def test_every_system_goes_on_with_every_prompt_and_a_row_can_be_read(state: Studio) -> None:
    app = open_page(PAGE, state)
    n_unread = sum(state.calibration.heldout) + len(state.calibration.test)
    assert app.number_input(key="set_amount").value == min(20, n_unread) > sum(state.calibration.heldout)
    app.number_input(key="set_amount").set_value(2)
    app.number_input(key="set_length").set_value(8)
    run(app)
    assert "Generate 2 × 3" in [button.label for button in app.button]
    click(app, "Generate 2 × 3")
    finish(runner().latest(state.owner))
    app = open_page(PAGE, state)
    made = state.slot(PromptSetState).made
    assert made is not None
    assert len(made.rows) == 2
    row, handles = made.rows[0], state.variants
    assert list(row.pieces) == [ORIGINAL, CUT, "second"]
    assert "".join(row.pieces["second"]) == "".join(compare.stream(handles["second"].handle, row.prompt, max_new_tokens=8))
    assert row.kl["second"] > 0
    table = next(frame.value for frame in app.dataframe if "KL, second" in frame.value.columns)
    assert table["KL, second"].tolist() == sorted((each.kl["second"] for each in made.rows), reverse=True)
    furthest = max(made.rows, key=lambda each: each.kl["second"])
    assert "".join(item.value for item in app.get("text")) == furthest.prompt.strip()
    next(item for item in app.multiselect if item.label == "Side by side").set_value([ORIGINAL, "first"])
    assert "by other systems than these" in text_of(run(app))


def test_the_progress_of_the_set_stands_in_its_own_section(state: Studio) -> None:
    done = threading.Event()
    job = work.submit(state, words.SET_TITLE, lambda _: done.wait(60))
    try:
        shown = [part.value for part in open_page(PAGE, state).markdown]
        assert shown.index("### Many prompts at once") < shown.index(f"**{words.SET_TITLE}**")
    finally:
        done.set()
        finish(job)
