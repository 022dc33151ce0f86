"""The documentation builds without a warning, the tutorial runs while it does, and every public name says what it is."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.app_session import needs_demo

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs" / "reference").glob("*.md"))


@needs_demo
def test_the_documentation_builds_and_its_tutorial_runs_from_load_to_export(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}  # a note about the theme's successor
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert built.returncode == 0, built.stderr[-3000:]
    tutorial = (tmp_path / "site" / "tutorial" / "index.html").read_text(encoding="utf-8")
    for shown in ("removes blocks", "merged = hooked", "KL low", "9 blocks,"):
        assert shown in tutorial
    assert "Traceback" not in tutorial


@needs_demo
def test_the_ten_lines_of_the_readme_do_the_main_job(tmp_path):
    block = (ROOT / "README.md").read_text(encoding="utf-8").split("## Ten lines of Python")[1].split("```python\n")[1].split("```")[0]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", block], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    span, kl = done.stdout.split()
    assert re.fullmatch(r"\d+:\d+", span)
    assert 0 < float(kl) < 1
    assert (tmp_path / "runs" / "first" / "model" / "model.safetensors").is_file()


def public() -> list[tuple[str, str]]:
    """(module, name) of all that the reference pages list."""
    found = []
    for page in PAGES:
        for module, names in re.findall(r"^::: ([\w.]+)\n    options:\n      members: \[(.*)\]", page.read_text(encoding="utf-8"), re.M):
            found += [(module, name.strip()) for name in names.split(",")]
    return found


@pytest.mark.parametrize(("module", "name"), public(), ids=lambda value: value.rpartition(".")[2])
def test_every_public_name_exists_and_is_documented_and_typed(module, name):
    path = ROOT / Path(*module.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    nodes = {
        node.name: node for node in ast.parse(source.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef | ast.FunctionDef)
    }
    assert name in nodes, f"{module} has no {name}"
    node = nodes[name]
    assert ast.get_docstring(node), f"{module}.{name} says nothing of itself"
    if isinstance(node, ast.FunctionDef):
        assert node.returns is not None
        assert all(argument.annotation for argument in node.args.args)
