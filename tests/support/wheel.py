"""The wheel of this checkout, built once and installed into a fresh environment outside of it, which sees the packages of this one."""

import os
import shutil
import site
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_LEFT = shutil.ignore_patterns("__pycache__", "screenshots", "*.pyc")
_TAKEN = ("replaceme_core", "ui", "pages", "assets", ".streamlit")


def build(folder: Path) -> Path:
    """The wheel, of a copy, so that the checkout is not written to."""
    source = folder / "source"
    for name in _TAKEN:
        shutil.copytree(ROOT / name, source / name, ignore=_LEFT)
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE", "app.py"):
        shutil.copy(ROOT / name, source)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        str(source),
        "--no-deps",
        "--no-build-isolation",
        "--quiet",
        "--wheel-dir",
        str(folder / "wheel"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return next((folder / "wheel").glob("*.whl"))


def install(wheel: Path, folder: Path) -> Path:
    """The folder of the commands of a new environment that holds this wheel and sees the packages that are installed here."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=100)
    packages = next(folder.glob("lib/python*/site-packages"))
    (packages / "present.pth").write_text("\n".join(site.getsitepackages()) + "\n", encoding="utf-8")
    python = folder / "bin" / "python"
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--no-deps",
        "--no-index",
        "--quiet",
        "--force-reinstall",
        str(wheel),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, env=clean(folder))
    assert done.returncode == 0, done.stderr
    return folder / "bin"


def clean(home: Path, **more: str) -> dict[str, str]:
    """An environment that knows nothing of the checkout."""
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return kept | {"HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "REPLACEME_CACHE": str(home / "cache")} | more
