"""What only the browser can do: say that its colours were turned over or which token of a text was clicked, save a chart or a table.

Pictures are drawn in the colours of the theme that the browser showed when the page was run. When the system turns dark in the middle of a page,
streamlit turns its own parts over and runs nothing; the first listener asks for the run that turns the pictures over, too. PNG and CSV of
a chart are in streamlit's own bar above it, and so is CSV of a data frame; tables of HTML get both from here.
"""

from functools import cache
from typing import Any

import streamlit as st

_THEME = """export default function({ setTriggerValue }) {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  let late = 0;
  const turned = () => { clearTimeout(late); late = setTimeout(() => setTriggerValue("turned", dark.matches ? "dark" : "light"), 250); };
  dark.addEventListener("change", turned);
  const save = (name, type, content) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([content], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
  const drawing = chart => {
    const copy = chart.querySelector("svg.marks, svg").cloneNode(true);
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    return new XMLSerializer().serializeToString(copy);
  };
  const cells = table => [...table.rows].map(row => [...row.cells].flatMap(cell =>
    Array(cell.colSpan).fill(cell.innerText.trim().replace(/\\s+/g, " "))));
  const csv = table => cells(table).map(row => row.map(text => /[",]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text).join(",")).join("\\n");
  const copy = async (table, button) => {
    const text = cells(table).map(row => row.join("\\t")).join("\\n");
    try { await navigator.clipboard.writeText(text); }
    catch {  // a page that came without https has no clipboard
      const field = document.body.appendChild(document.createElement("textarea"));
      field.value = text;
      field.select();
      document.execCommand("copy");
      field.remove();
      button.focus();
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  };
  const button = (kind, text, said, act) => {
    const made = document.createElement("button");
    made.className = `save ${kind}`;
    made.type = "button";
    made.textContent = text;
    made.setAttribute("aria-label", said);
    made.addEventListener("click", event => { event.stopPropagation(); act(made); });
    return made;
  };
  const offer = () => {
    document.querySelectorAll('[data-testid="stVegaLiteChart"]').forEach(chart => {
      if (chart.querySelector("svg") && !chart.querySelector(".save-svg"))
        chart.append(button("save-svg", "SVG", "Save this chart as SVG", () => save("chart.svg", "image/svg+xml", drawing(chart))));
    });
    document.querySelectorAll(".save-table").forEach(bar => bar.previousElementSibling?.tagName === "TABLE" || bar.remove());
    document.querySelectorAll('[data-testid="stMain"] :is([data-testid="stHtml"],[data-testid="stTable"]) table').forEach(table => {
      if (table.nextElementSibling?.className === "save-table") return;
      const bar = document.createElement("div");
      bar.className = "save-table";
      bar.append(
        button("save-csv", "CSV", "Save this table as CSV", () => save("table.csv", "text/csv", "\\ufeff" + csv(table))),
        button("save-copy", "Copy", "Copy this table", made => copy(table, made)));
      table.after(bar);
    });
  };
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
    """Runs the page again when the browser's colours are turned over, and gives every chart its SVG button and every table of HTML its CSV. Once on every page."""
    _component("replaceme_theme", _THEME)(key="watch_theme", on_turned_change=_nothing)


def token(strip: str, key: str) -> int | None:
    """The token that was just clicked on the text marked `data-strip=strip`, whose tokens are marked `data-token`; None: none was."""
    found = _component("replaceme_tokens", _TOKENS)(key=key, data={"strip": strip}, on_token_change=_nothing)
    clicked = getattr(found, "token", None)
    return clicked if isinstance(clicked, int) else None


def _nothing() -> None:
    """The run itself is what was wanted."""
