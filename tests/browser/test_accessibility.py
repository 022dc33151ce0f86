"""axe-core on every page in light and dark, text for every chart, and the keyboard: what the app itself gets wrong fails.

What streamlit gets wrong and we cannot change stands in LEDGER with its reason. Nothing else may be there, and nothing idle.
"""

import pytest

from benchmarks.story import link, names
from tests.support.browser_walk import CHROMIUM, ROOT, Walk

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)"),
    pytest.mark.skipif(not (ROOT / "assets/demo/model/config.json").is_file(), reason="the demo model is not built"),
]
IMPACTS = ("serious", "critical")
LEDGER: dict[tuple[str, str], str] = {}
"""(axe's rule, a piece of the element's HTML) -> why it is streamlit's and stays"""
PRIMARY = {
    "overview": "Continue with",
    "model": "Measure again",
    "fit": "Save and stay",
    "export": "Export",
}
"""a control of the page, in the state of `full`, that the Tab key must reach"""
_MOST_TABS = 60


def violations(walk: Walk) -> list[tuple[str, str, str]]:
    """(rule, HTML of the element, axe's message) of every serious or critical violation that is not in the ledger."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(walk.page, options={"resultTypes": ["violations"]}).response["violations"]
    return [
        (rule["id"], node["html"][:300], node["failureSummary"])
        for rule in found
        if rule["impact"] in IMPACTS
        for node in rule["nodes"]
        if not any(rule["id"] == known and piece in node["html"] for known, piece in LEDGER)
    ]


def charts_without_text(walk: Walk) -> int:
    """Charts that say nothing to a screen reader."""
    return walk.page.evaluate(
        """() => [...document.querySelectorAll('[data-testid="stVegaLiteChart"]')].filter(chart =>
             ![chart, ...chart.querySelectorAll('[aria-label]')].some(e => (e.getAttribute('aria-label') || '').length > 10)).length"""
    )


@pytest.fixture(scope="module")
def full(walk: Walk) -> Walk:
    """The demo model measured, one variant kept, one prompt written: every page has something to show."""
    walk.press("Start with the small demo, in seconds", walk.page.get_by_role("heading", name="Blocks", exact=True))
    walk.cell(2, 5).wait_for()
    walk.settle()
    walk.go(link("fit"))
    walk.press("Save and stay", walk.page.get_by_role("heading", name="Saved variants"))
    walk.go(link("compare"))
    walk.press("Generate", walk.page.get_by_role("heading", name="Where do they part?"))
    return walk


@pytest.fixture(scope="module", params=["light", "dark"])
def themed(request: pytest.FixtureRequest, full: Walk) -> Walk:
    full.page.emulate_media(color_scheme=request.param)
    full.settle()
    return full


@pytest.mark.parametrize("name", names())
def test_a_page_has_no_serious_fault_and_a_text_for_every_chart(themed: Walk, name: str) -> None:
    themed.go(link(name))
    assert violations(themed) == []
    assert charts_without_text(themed) == 0


@pytest.mark.parametrize("name", list(PRIMARY))
def test_the_tab_key_reaches_the_primary_control_and_shows_where_it_is(full: Walk, name: str) -> None:
    full.go(link(name))
    full.page.evaluate("document.activeElement.blur()")
    for _ in range(_MOST_TABS):
        full.page.keyboard.press("Tab")
        focused = full.page.evaluate(
            "() => { const e = document.activeElement, s = getComputedStyle(e);"
            " return [e.tagName === 'BUTTON' ? e.innerText : '', s.outlineStyle + s.boxShadow]; }"
        )
        if PRIMARY[name] in focused[0]:
            assert focused[1] != "nonenone", "the focus cannot be seen"
            return
    raise AssertionError(f"'{PRIMARY[name]}' is not reached within {_MOST_TABS} steps of the Tab key")
