"""The card on what is inside a block: attention, MLP and the residual stream, with the shapes of the bundled model, and where T lands."""

from html import escape
from math import prod

import streamlit as st

from ui.lesson import words
from ui.lesson.data import Block, Traces
from ui.lesson.parts import lead
from ui.look.layout import split
from ui.look.page_style import NOTE
from ui.look.palette import Palette, palette
from ui.session.state import Studio

_PARTS = {"attn": "attention", "attention": "attention", "mlp": "MLP", "norm": "norm"}


def inside(_state: Studio, traces: Traces) -> None:
    """What a block does to one token's vector, as a picture; the same as a table."""
    block, width = traces.block, int(traces.made["width"])
    said, picture = split("card", [2, 3])
    with said:
        lead(3)
        st.markdown(words.T_LANDS.format(writer=block.writer, width=width, unknowns=traces.unknowns, shape=_shape(_writer(block))))
        st.caption(words.EACH_BLOCK.format(n=block.n_parameters, blocks=traces.stream.n_blocks, model=traces.made["model"]))
    with picture:
        st.html(_picture(block, width, palette()))
        with st.expander("The weights as a table"):
            st.dataframe([_row(name, shape, block) for name, shape in block.weights.items()], hide_index=True)
        st.caption(words.SHAPES_READ.format(model=traces.made["model"], tokens=traces.made["calibration_tokens"]))


def _writer(block: Block) -> tuple[int, ...]:
    return next(shape for name, shape in block.weights.items() if name.startswith(block.writer))


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(f"{n:,}" for n in shape)


def _row(name: str, shape: tuple[int, ...], block: Block) -> dict[str, str]:
    part = next((said for key, said in _PARTS.items() if key in name), "other")
    lands = "T lands here" if name == f"{block.writer}.weight" else ""
    return {
        "part": part,
        "weight": name.removesuffix(".weight"),
        "shape (out × in)": _shape(shape),
        "numbers": f"{prod(shape):,}",
        "": lands,
    }


def _picture(block: Block, width: int, colours: Palette) -> str:
    """The stream as a thick line down the left; two detours that read it and add to it."""
    attention = {name: shape for name, shape in block.weights.items() if "attn" in name and "norm" not in name}
    mlp = {name: shape for name, shape in block.weights.items() if "mlp" in name and "norm" not in name}
    head = width // block.heads
    shared = f", which share {block.kv_heads} sets of keys and values" if block.kv_heads < block.heads else ""
    return (
        f'<div role="img" aria-label="{escape(words.BLOCK_ALT.format(width=width, heads=block.heads), quote=True)}" '
        f'style="color:{colours.ink};border-left:12px solid {colours.pruned};padding:4px 0 4px 0">'
        f"{_station(f'<b>enters</b>: one vector of {width:,} numbers for every token', colours)}"
        f"{_detour('Attention', words.ATTENTION.format(heads=block.heads, head=head, shared=shared), _boxes(attention, block, colours), colours)}"
        f"{_detour('MLP', words.MLP, _boxes(mlp, block, colours), colours)}"
        f"{_station(f'<b>leaves</b>: the same {width:,} numbers, a little corrected', colours)}</div>"
    )


def _station(said: str, colours: Palette) -> str:
    line = f'<span style="flex:0 0 14px;border-top:3px solid {colours.pruned}"></span>'
    return f'<div style="display:flex;align-items:center;gap:8px;padding:4px 0">{line}<span>{said}</span></div>'


def _detour(title: str, said: str, boxes: str, colours: Palette) -> str:
    """Reads the stream (arrow out), adds to it (arrow back, with a plus)."""
    sign = f'<span style="font-weight:700;font-size:1.2rem;color:{colours.pruned};flex:0 0 22px;text-align:center">'
    return (
        f'<div style="display:flex;gap:4px;margin:6px 0"><div style="display:flex;flex-direction:column;justify-content:space-between">'
        f'{sign}→</span>{sign}+</span></div><div style="flex:1;border:1.5px solid {colours.line};border-radius:8px;padding:8px 12px">'
        f'<div><b>{title}</b> <span style="color:{colours.muted};font-size:{NOTE}">{said}</span></div>'
        f'<div style="display:flex;flex-wrap:wrap;gap:8px;margin-top:8px">{boxes}</div></div></div>'
    )


def _boxes(weights: dict[str, tuple[int, ...]], block: Block, colours: Palette) -> str:
    found = []
    for name, shape in weights.items():
        if len(shape) < 2:
            continue
        lands = name == f"{block.writer}.weight"
        edge = f"3px solid {colours.carrier}" if lands else f"1px solid {colours.muted}"
        mark = f'<div style="font-weight:700;color:{colours.ink}">▲ T lands here</div>' if lands else ""
        label = name.removesuffix(".weight").rpartition(".")[2]
        found.append(
            f'<div style="border:{edge};border-radius:6px;padding:3px 9px"><div style="font-weight:600">{escape(label)}</div>'
            f'<div style="font-size:{NOTE}">{_shape(shape)}</div>{mark}</div>'
        )
    return "".join(found)
