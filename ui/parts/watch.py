"""What only the browser can do: say that its colours were turned over or which token of a text was clicked, and save a chart as SVG.

Pictures are drawn in the colours of the theme that the browser showed when the page was run. When the system turns dark in the middle of a page,
streamlit turns its own parts over and runs nothing; the first listener asks for the run that turns the pictures over, too. PNG and CSV of
a chart are in streamlit's own bar above it.
"""

from functools import cache
from typing import Any

import streamlit as st

_THEME = """export default function({ setTriggerValue }) {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  let late = 0;
  const turned = () => { clearTimeout(late); late = setTimeout(() => setTriggerValue("turned", dark.matches ? "dark" : "light"), 250); };
  dark.addEventListener("change", turned);
  const save = chart => {
    const drawn = chart.querySelector("svg.marks, svg");
    if (!drawn) return;
    const copy = drawn.cloneNode(true);
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([new XMLSerializer().serializeToString(copy)], { type: "image/svg+xml" }));
    link.download = "chart.svg";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
  const offer = () => document.querySelectorAll('[data-testid="stVegaLiteChart"]').forEach(chart => {
    if (!chart.querySelector("svg") || chart.querySelector(".save-svg")) return;
    const button = document.createElement("button");
    button.className = "save-svg";
    button.type = "button";
    button.textContent = "SVG";
    button.setAttribute("aria-label", "Save this chart as SVG");
    button.addEventListener("click", event => { event.stopPropagation(); save(chart); });
    chart.append(button);
  });
  const watch = new MutationObserver(offer);
  watch.observe(document.body, { childList: true, subtree: true });
  offer();
  return () => { clearTimeout(late); watch.disconnect(); dark.removeEventListener("change", turned); };
}"""
_TOKENS = """export default function({ data, setTriggerValue }) {
  const clicked = event => {
    const token = event.target.closest?.("[data-token]");
    if (token && token.closest(`[data-strip="${data.strip}"]`)) setTriggerValue("token", Number(token.dataset.token));
  };
  document.addEventListener("click", clicked);
  return () => document.removeEventListener("click", clicked);
}"""


@cache
def _component(name: str, js: str) -> Any:
    return st.components.v2.component(name, js=js)


def theme() -> None:
    """Runs the page again when the browser's colours are turned over, and gives every chart its SVG button. Once on every page."""
    _component("replaceme_theme", _THEME)(key="watch_theme", on_turned_change=_nothing)


def token(strip: str, key: str) -> int | None:
    """The token that was just clicked on the text marked `data-strip=strip`, whose tokens are marked `data-token`; None: none was."""
    found = _component("replaceme_tokens", _TOKENS)(key=key, data={"strip": strip}, on_token_change=_nothing)
    clicked = getattr(found, "token", None)
    return clicked if isinstance(clicked, int) else None


def _nothing() -> None:
    """The run itself is what was wanted."""
