"""Pictures of every page in light and dark, wide and narrow, into assets/screenshots: `make screenshots`.

A real language model goes through the whole story first, so that every page has something to show. The pictures are kept as WebP
without loss: true colours, a third of the bytes of PNG.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.browser import ROOT, Walk, browser, serve
from benchmarks.story import STARTS, STORY, link, measured, names

FOLDER = ROOT / "assets" / "screenshots"
WIDTHS = (1280, 800)
SCHEMES = ("light", "dark")
MOST_BYTES = 4 << 20
"""of all pictures together"""
_TALLEST = 2400
"""pixels; what is further down is left out"""


def small(path: Path) -> int:
    """The picture as WebP in place of the PNG, every colour kept; its bytes."""
    from PIL import Image

    kept = path.with_suffix(".webp")
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    picture.crop((0, 0, picture.width, min(picture.height, _TALLEST))).save(kept, lossless=True, quality=100, method=6)
    path.unlink()
    return kept.stat().st_size


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
    walk.page.emulate_media(color_scheme=SCHEMES[0])
    walk.page.set_viewport_size({"width": 1280, "height": 900})
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", nargs="*", default=names(), choices=names(), help="only these pages")
    parser.add_argument("--model", choices=list(STARTS), default="smollm2", help="what goes through the story")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the pictures go")
    parser.add_argument("--home", type=Path, help="a home to keep: the passes and scores of an earlier run are found again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as new:
        total = pictures(options.home or Path(new), options.model, options.pages, options.folder)
    print(f"{len(options.pages) * len(WIDTHS) * len(SCHEMES)} pictures, {total / 2**20:.1f} MiB, in {options.folder}")
    if total > MOST_BYTES:
        raise SystemExit(f"more than {MOST_BYTES / 2**20:.0f} MiB: take lower pictures")


def pictures(home: Path, model: str, wanted: list[str], folder: Path) -> int:
    """The story in one session, and its pictures; the bytes of them. The app starts in `home`, where it finds and leaves runs."""
    home.mkdir(parents=True, exist_ok=True)
    with browser() as chromium, serve(home, (sys.executable, "-m", "streamlit", "run", str(ROOT / "app.py")), home) as address:
        walk = Walk(chromium.new_page(viewport={"width": 1280, "height": 900}), folder).open(address)
        measured(walk, model)
        total = take(walk, [name for name in wanted if name == "blocks"])  # as it is met: before anything is timed
        for step in STORY:
            step(walk)
            print(f"{step.__name__}: done", flush=True)
        return total + take(walk, [name for name in wanted if name != "blocks"])


if __name__ == "__main__":
    main()
