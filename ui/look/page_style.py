"""One type scale and one sheet of style for every page. HTML takes its sizes from here in rem, charts take theirs in pixels.

Five steps: small (marks in a strip, axis figures), note (captions), body, lead (the question of a page, what a picture says),
and the headings, which `.streamlit/config.toml` sets from the same scale.
"""

from ui.look.layout import STACKING
from ui.look.palette import Palette

SMALL, NOTE, BODY, LEAD, FIGURE = "0.8rem", "0.9rem", "1rem", "1.15rem", "1.5rem"
CHART_LABEL, CHART_TITLE, CHART_MARK = 13, 14, 15
"""pixels in a chart: figures on an axis, its title, and what is written on a mark for the back row"""

_CSS = """
[data-testid="stMainBlockContainer"]{{padding-top:2.6rem;padding-bottom:4rem;max-width:1240px}}
[data-testid="stSidebarUserContent"]{{padding-bottom:1.5rem}}
[data-testid="stSidebarUserContent"] hr{{margin:0.6rem 0}}
[data-testid="stSidebarUserContent"] [data-testid="stCaptionContainer"] p{{margin-bottom:0.2rem}}
[data-testid="stMetricValue"]{{font-size:{figure}}}
[data-testid="stMetricValue"],[data-testid="stMetricValue"] *{{white-space:normal;overflow:visible;text-overflow:clip}}
[data-testid="stSlider"] [data-testid="stWidgetLabel"]{{margin-bottom:0.5rem}}
[data-testid="stVegaLiteChart"]{{position:relative}}
.save{{font-size:0.75rem;padding:0 7px;border:1px solid {line};border-radius:5px;background:{background};color:{muted};opacity:0;cursor:pointer}}
.save-svg{{position:absolute;right:0;bottom:0}}
.save-table{{position:sticky;left:0;display:flex;gap:4px;width:fit-content;margin:4px 0}}
[data-testid="stVegaLiteChart"]:hover .save-svg,table:hover+.save-table .save,.save-table:hover .save,.save:focus-visible{{opacity:1}}
.st-key-steps [data-testid="stCaptionContainer"]{{padding-left:2rem}}
[data-testid="stMultiSelectTagsContainer"],[data-testid="stMultiSelectTagsContainer"]>span{{flex-wrap:wrap!important;overflow:visible!important;mask-image:none!important;-webkit-mask-image:none!important}}
[data-testid="stMultiSelect"] [role="group"],[data-testid="stMultiSelectTagsContainer"],[data-testid="stMultiSelectTagsContainer"]>span{{height:auto!important;max-height:none!important}}
@media (max-width:1000px){{
[data-testid="stSidebar"][data-collapsed="false"]{{width:214px!important;min-width:214px!important;max-width:214px!important}}
[data-testid="stSidebarUserContent"]{{margin-left:-0.9rem;margin-right:-0.9rem}}
}}
[data-testid="stCaptionContainer"]{{font-size:{note};color:{muted};opacity:1}}
[data-testid="stSliderThumbValue"],[data-testid="stSliderThumbValue"] *{{color:{ink};font-size:{body};font-weight:600}}
button[data-variant="segmented_control"][aria-checked="true"],button[data-variant="segmented_control"][aria-checked="true"] *{{color:{ink};font-weight:600}}
[class*="st-key-lead"] p{{font-size:{lead}}}
[data-testid="stCode"] .token:is(.key,.atrule,.number,.string,.boolean){{color:{cut}}}
[data-testid="stCode"] .token:is(.parameter,.variable,.function,.keyword){{color:{pruned}}}
"""


def page_css(colours: Palette) -> str:
    """The style sheet of every page in one theme, as a <style> element."""
    sizes = {"note": NOTE, "body": BODY, "lead": LEAD, "figure": FIGURE}
    return f"<style>{_CSS.format(**sizes, **vars(colours))}{STACKING}</style>"
