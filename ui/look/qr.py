"""An address as a QR code, for those who sit in front of the picture and have no keyboard at hand."""

from html import escape
from io import BytesIO

from ui.look.palette import Palette


def qr_html(address: str, colours: Palette, pixels: int = 220) -> str:
    """The code as an SVG on a white ground, which cameras need in either theme."""
    import segno  # only where a code is shown

    drawn = BytesIO()
    segno.make(address, error="m", micro=False).save(
        drawn, kind="svg", border=3, xmldecl=False, svgns=True, dark="#000000", light="#FFFFFF", omitsize=True
    )
    code = drawn.getvalue().decode()
    return (
        f'<div role="img" aria-label="QR code of {escape(address, quote=True)}" style="width:{pixels}px;max-width:100%;'
        f'border:1px solid {colours.line};border-radius:6px;overflow:hidden;line-height:0">{code}</div>'
    )
