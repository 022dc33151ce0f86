"""Pictures of every page in light and dark, wide and narrow, into assets/screenshots: `make screenshots`.

The demo model goes through the whole story first, so that every page has something to show. The pictures have few colours
and are kept with few, so that the repository stays small.
"""

import argparse
import tempfile
from pathlib import Path

from PIL import Image, ImageChops

from benchmarks.browser import ROOT, Walk, browser, serve
from ui.look.site import EXTRAS, PAGES, STEPS

FOLDER = ROOT / "assets" / "screenshots"
WIDTHS = (1280, 800)
SCHEMES = ("light", "dark")
MOST_BYTES = 4 << 20
"""of all pictures together"""
_EXACT = 128
"""of the 256 colours of a picture, so many are the commonest ones as they are"""
_SEEN = 24
"""of 255: how far a colour may be off before it shows beside its neighbours"""
_TALLEST = 2400
"""pixels; what is further down is left out"""


def names() -> list[str]:
    return ["overview", *STEPS, *EXTRAS]


def link(name: str) -> str:
    """What the sidebar calls a page."""
    title = PAGES[name].title
    return f"{STEPS.index(name) + 1} · {title}" if name in STEPS else title


def measured(walk: Walk) -> None:
    """The demo model up to its matrix."""
    walk.press("Start with the small demo, in seconds", walk.page.get_by_role("heading", name="Blocks", exact=True))
    walk.cell(2, 5).wait_for()
    walk.page.get_by_text("tokens so far").first.wait_for(state="hidden", timeout=180_000)  # the pass has ended
    walk.settle()


def story(walk: Walk) -> None:
    """From there to a packed zip, with a comparison and benchmarks on the way."""
    page = walk.page
    walk.go(link("fit"))
    walk.press("Save and stay", page.get_by_role("heading", name="Saved variants"))
    walk.go(link("compare"))
    walk.press("Generate", page.get_by_role("heading", name="Where do they part?"))
    walk.press("Measure on test text", page.get_by_text("which no fit and no choice has read"))
    walk.go(link("benchmarks"))
    walk.press("Run on", page.get_by_role("heading", name="Which answers changed?"))
    walk.go(link("export"))
    page.get_by_role("radio", name="Zip download").click()
    walk.settle()
    walk.press("Pack the zip", page.locator("[data-testid=stDownloadButton]", has_text=".zip").first)


def small(path: Path) -> int:
    """The picture with few colours, not dithered, unless that shows somewhere (a legend's gradient gets bands); its bytes."""
    picture = Image.open(path).convert("RGB")
    picture = picture.crop((0, 0, picture.width, min(picture.height, _TALLEST)))
    few = picture.quantize(palette=_palette(picture), dither=Image.Dither.NONE)
    wrong = ImageChops.difference(picture, few.convert("RGB")).getextrema()
    (few if max(most for _, most in wrong) <= _SEEN else picture).save(path, optimize=True)
    return path.stat().st_size


def _palette(picture: Image.Image) -> Image.Image:
    """The commonest colours exactly, so that a quiet background keeps its tint, and a choice of the others."""
    counted = sorted(picture.getcolors(picture.width * picture.height), reverse=True)
    exact = [colour for _, colour in counted[:_EXACT]]
    others = picture.quantize(256 - len(exact), method=Image.Quantize.MEDIANCUT).getpalette() or []
    found = Image.new("P", (1, 1))
    found.putpalette([value for colour in exact for value in colour] + others)
    return found


def take(walk: Walk, wanted: list[str]) -> int:
    """All pictures; the bytes of them."""
    total = 0
    for scheme in SCHEMES:
        walk.page.emulate_media(color_scheme=scheme)
        for width in WIDTHS:
            for name in wanted:
                walk.page.set_viewport_size({"width": 1280, "height": 900})  # where the sidebar shows its links
                walk.go(link(name))
                walk.page.set_viewport_size({"width": width, "height": 900})
                walk.settle()
                total += small(walk.shot(f"{names().index(name)}_{name}_{scheme}_{width}"))
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", nargs="*", default=names(), choices=names(), help="only these pages")
    wanted = parser.parse_args().pages
    with tempfile.TemporaryDirectory() as home, serve(Path(home)) as address, browser() as chromium:
        walk = Walk(chromium.new_page(viewport={"width": 1280, "height": 900}), FOLDER).open(address)
        measured(walk)
        total = take(walk, [name for name in wanted if name == "blocks"])  # as it is met: before anything is timed
        story(walk)
        total += take(walk, [name for name in wanted if name != "blocks"])
    print(f"{len(wanted) * len(WIDTHS) * len(SCHEMES)} pictures, {total / 2**20:.1f} MiB, in {FOLDER.relative_to(ROOT)}")
    if total > MOST_BYTES:
        raise SystemExit(f"more than {MOST_BYTES / 2**20:.0f} MiB: keep fewer colours, or lower pictures")


if __name__ == "__main__":
    main()
