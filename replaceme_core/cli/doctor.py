"""`doctor`: what this machine can do, tried and not guessed, and what to install for the rest."""

import importlib.metadata
import importlib.util
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import click

from replaceme_core import memory
from replaceme_core.cli.options import JSON, show
from replaceme_core.errors import ReplaceMeError
from replaceme_core.extras import EXTRAS, PACKAGE, install, there
from replaceme_core.storage.shipped import ROOT

State = Literal["ok", "limited", "missing"]
_LOW_DISK = 5
_LOW_MEMORY = 4
"""GiB"""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: `missing` stops something, `limited` makes it slower or smaller."""

    name: str
    state: State
    found: str
    advice: str = ""
    """what to install or change; empty where there is nothing to do"""


@click.command()
@JSON
def doctor(as_json: bool) -> None:
    """What this machine can do, each point tried, and what to install for the rest. Exit code 1 if something needed is missing.

    \b
    Examples:
      replaceme doctor
      replaceme doctor --json
    """
    found = findings()
    width = max(len(each.name) for each in found)
    lines = [
        f"{each.state:8} {each.name:{width}}  {each.found}" + (f"\n{'':{width + 10}} -> {each.advice}" if each.advice else "")
        for each in found
    ]
    show([asdict(each) for each in found], as_json, lambda: "\n".join(lines))
    missing = [each.name for each in found if each.state == "missing"]
    if missing:
        raise ReplaceMeError(f"missing: {', '.join(missing)}; the advice stands above.")


def findings(folder: Path = Path()) -> list[Finding]:
    """Everything, in the order that people ask. `folder` is where runs would be written. A check that fails is a finding too."""
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("python", _python),
        ("packages", _packages),
        ("torch", _torch),
        ("bitsandbytes", _bitsandbytes),
        ("memory", _memory),
        ("disk", lambda: _disk(folder)),
        ("demo", _demo),
        ("real model", _real_model),
        ("app", _app),
        ("browser tests", _browser),
        ("npm", _npm),
    ]
    found: list[Finding] = []
    for name, check in checks:
        try:
            found += list(check())
        except Exception as error:  # whatever a broken installation raises is what the doctor is for
            found.append(Finding(name, "missing", f"{type(error).__name__}: {error}", "reinstall: pip install -r requirements.txt"))
    return found


def _python() -> Iterator[Finding]:
    version = platform.python_version()
    enough = sys.version_info >= (3, 11)
    yield Finding(
        "python", "ok" if enough else "missing", f"{version} on {platform.system()} {platform.machine()}", "" if enough else "Python 3.11"
    )


def _packages() -> Iterator[Finding]:
    """Installed versions against the pinned ones; what an extra would bring is said, and is no fault."""
    wrong, gone, lacks = [], False, []
    pins = _pins()
    extra_of = {name: extra for extra, (_, names) in EXTRAS.items() for name in names}
    for name, pinned in pins.items():
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            if name in extra_of:
                lacks.append(extra_of[name])
                wrong.append(f"{name} is not installed")
            else:
                gone = True
                wrong.append(f"{name} is not installed (pinned: {pinned})")
            continue
        if installed.split("+")[0] != pinned:
            wrong.append(f"{name} {installed} (pinned: {pinned})")
    ways = [*map(install, dict.fromkeys(lacks))] or [
        "pip install -r requirements.txt" if (ROOT / "requirements.txt").is_file() else f"pip install {PACKAGE}"
    ]
    state: State = "missing" if gone else "limited" if wrong else "ok"
    yield Finding(
        "packages", state, "; ".join(wrong) or f"all {len(pins)} pinned packages in their versions", "; ".join(ways) if wrong else ""
    )


def _pins() -> dict[str, str]:
    """From the checkout's requirements.txt; else from the metadata of the installed package."""
    path = ROOT / "requirements.txt"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else importlib.metadata.requires(PACKAGE) or []
    found = (re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)", line) for line in lines)
    return {match[1]: match[2] for match in found if match}


def _torch() -> Iterator[Finding]:
    import torch

    build = "CUDA " + torch.version.cuda if torch.version.cuda else "CPU build"
    threads = f"{torch.get_num_threads()} threads"
    if torch.cuda.is_available():
        for index, (name, free, total) in enumerate(memory.cards()):
            yield Finding(f"gpu cuda:{index}", "ok", f"{name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free")
        yield Finding("torch", "ok", f"{torch.__version__} ({build}), {threads}")
    elif torch.backends.mps.is_available():
        yield Finding("torch", "ok", f"{torch.__version__}, Apple GPU (its sums run on the CPU, which has fp64), {threads}")
    else:
        advice = "" if torch.version.cuda is None else "check the driver (nvidia-smi), or use the CPU build to save disk"
        yield Finding("torch", "limited", f"{torch.__version__} ({build}), no GPU: models run on the CPU, {threads}", advice)


def _bitsandbytes() -> Iterator[Finding]:
    """A layer in 4 and one in 8 bits, computed on the device that models would use."""
    import torch

    if importlib.util.find_spec("bitsandbytes") is None:
        yield Finding("bitsandbytes", "limited", "not installed: no 4 or 8 bits", install("quantised"))
        return
    import bitsandbytes

    device = "cuda" if torch.cuda.is_available() else "cpu"
    works: list[str] = []
    fails: list[str] = []
    layers = {
        "nf4": lambda: bitsandbytes.nn.Linear4bit(64, 64, bias=False, quant_type="nf4", compute_dtype=torch.bfloat16),
        "int8": lambda: bitsandbytes.nn.Linear8bitLt(64, 64, bias=False, has_fp16_weights=False),
    }
    for name, make in layers.items():
        try:
            layer = make().to(device)
            out = layer(torch.ones(2, 64, dtype=torch.bfloat16 if name == "nf4" else torch.float16, device=device))
            (works if bool(torch.isfinite(out).all()) else fails).append(name)
        except Exception as error:  # kernels that are missing raise what they like
            fails.append(f"{name} ({type(error).__name__}: {str(error).splitlines()[0][:80] if str(error) else ''})")
    found = f"{bitsandbytes.__version__} on {device}: {', '.join(works) or 'nothing'} computed" + (
        f"; failed: {', '.join(fails)}" if fails else ""
    )
    yield Finding("bitsandbytes", "limited" if fails else "ok", found, "a bitsandbytes that knows this device" if fails else "")


def _memory() -> Iterator[Finding]:
    import psutil

    memory = psutil.virtual_memory()
    low = memory.available < _LOW_MEMORY * 2**30
    advice = "close other programs, or hold models in bfloat16, nf4 or int8" if low else ""
    yield Finding("memory", "limited" if low else "ok", f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free", advice)


def _disk(folder: Path) -> Iterator[Finding]:
    usage = shutil.disk_usage(folder)
    low = usage.free < _LOW_DISK * 2**30
    advice = "free space, or write runs elsewhere; an export takes about two bytes per parameter in bfloat16" if low else ""
    yield Finding("disk", "limited" if low else "ok", f"{usage.free / 2**30:.1f} GiB free at {folder.resolve()}", advice)


def _demo() -> Iterator[Finding]:
    whole = (ROOT / "assets" / "demo" / "model" / "config.json").is_file()
    advice = "" if whole else "install the wheel, or clone the repository and pip install -e . there"
    yield Finding("demo model", "ok" if whole else "missing", "there, works offline" if whole else "not there", advice)


def _real_model() -> Iterator[Finding]:
    from replaceme_core.models.checkpoints import smollm2

    there = smollm2.packaged() is not None
    found = (
        "smollm2 works offline" if there else "the package that carries smollm2 is not installed; it then comes from the hub or its cache"
    )
    yield Finding("real language model", "ok" if there else "limited", found, "" if there else smollm2.INSTALL)


def _app() -> Iterator[Finding]:
    whole, streamlit = (ROOT / "app.py").is_file(), there("streamlit")
    advice = "" if whole and streamlit else install("app")
    found = "replaceme app starts it" if whole and streamlit else "app.py is not there" if streamlit else "streamlit is not installed"
    yield Finding("app", "ok" if not advice else "missing", found, advice)


def _browser() -> Iterator[Finding]:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = importlib.util.find_spec("playwright") is not None
    lacks = [name for name, there in (("chromium", path), ("playwright", driver)) if not there]
    advice = "" if not lacks else "apt-get install chromium; pip install -r requirements-dev.txt (only for tests of the pages)"
    yield Finding("browser tests", "limited" if lacks else "ok", f"lacks {', '.join(lacks)}" if lacks else str(path), advice)


def _npm() -> Iterator[Finding]:
    path = shutil.which("npm")
    yield Finding("npm", "ok", path or "not there; nothing needs it")
