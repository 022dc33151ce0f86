"""The documentation builds without a warning, the tutorial runs while it does, the README is short and true, every public name says what it is."""

import ast
import os
import re
import shlex
import subprocess
import sys
from functools import cache
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import click
import pytest

from replaceme_core.cli.main import main
from tests.support.app_session import needs_demo

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").rglob("*.md"))
REFERENCE = sorted((ROOT / "docs" / "reference" / "python").glob("*.md"))


@needs_demo
def test_the_documentation_builds_and_its_tutorial_runs_from_load_to_export(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}  # a note about the theme's successor
    # without --quiet, which lets mkdocs count no warning: --strict then passes with broken links
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert built.returncode == 0, built.stderr[-3000:]
    site = tmp_path / "site"
    tutorial = (site / "guide" / "tutorial" / "index.html").read_text(encoding="utf-8")
    for shown in ("removes blocks", "merged = hooked", "KL low", "9 blocks,"):
        assert shown in tutorial
    assert "Traceback" not in tutorial
    for picture in re.findall(r'<img alt="[^"]*" src="([^"]+)"', (site / "guide" / "app" / "index.html").read_text(encoding="utf-8")):
        assert (site / "guide" / "app" / picture).resolve().is_file(), picture
    assert "generated: " not in "".join(page.read_text(encoding="utf-8") for page in site.rglob("*.html")), "a mark that was not filled in"


@needs_demo
def test_the_ten_lines_of_the_readme_do_the_main_job(tmp_path):
    block = README.read_text(encoding="utf-8").split("## Python in ten lines")[1].split("```python\n")[1].split("```")[0]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", block], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    span, kl = done.stdout.split()
    assert re.fullmatch(r"\d+:\d+", span)
    assert 0 < float(kl) < 1
    assert (tmp_path / "runs" / "first" / "model" / "model.safetensors").is_file()


def test_the_readme_is_at_most_200_lines():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 200


@pytest.mark.parametrize("path", [README, ROOT / "demo" / "README.md", *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_of_a_text_leads_to_a_file_of_the_project(path):
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not link.startswith(("http", "#"))]
    assert [link for link in links if not (path.parent / link.partition("#")[0]).exists()] == []


def test_every_page_has_its_pictures_and_together_they_are_small():
    from benchmarks.screenshots import FOLDER, MOST_BYTES, SCHEMES, WIDTHS
    from benchmarks.story import names

    wanted = {f"{at}_{name}_{scheme}_{width}.webp" for at, name in enumerate(names()) for scheme in SCHEMES for width in WIDTHS}
    found = list(FOLDER.iterdir())
    assert {path.name for path in found} == wanted
    assert sum(path.stat().st_size for path in found) <= MOST_BYTES


def test_the_tables_of_the_readme_are_made_of_the_rows():
    from benchmarks import leaderboard, real_rows

    for of, said in ((leaderboard, leaderboard.short(leaderboard.OUT)), (real_rows, real_rows.short(real_rows.OUT, real_rows.MORE))):
        assert README.read_text(encoding="utf-8").split(of.BEGIN)[1].split(of.END)[0].strip() == said


def commands() -> list[tuple[str, str]]:
    """(text, line) of every command of ours in a shell block of the README and the pages."""
    found = []
    for path in [README, *PAGES]:
        for block in re.findall(r"^```sh\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S):
            found += [(str(path.relative_to(ROOT)), line) for line in block.splitlines() if line.startswith("replaceme ")]
    return found


def test_the_readme_and_the_guide_show_commands():
    assert sum(path == "README.md" for path, _ in commands()) > 8
    assert len({path for path, _ in commands()}) > 4


@pytest.mark.parametrize("line", [pytest.param(line, id=f"{path}: {line.partition('  ')[0]}") for path, line in commands()])
def test_a_command_in_a_text_is_a_command_with_these_options(line):
    _, name, *rest = shlex.split(line, comments=True)
    command: click.Command = main.commands[name]
    if isinstance(command, click.Group) and rest:
        name, command, rest = rest[0], command.commands[rest[0]], rest[1:]
    command.make_context(name, rest)


@cache
def generated() -> Any:
    """docs/generate.py, which mkdocs loads by its path."""
    spec = spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_the_code_knows_stands_in_the_generated_pages():
    make = generated().GENERATED
    assert all(f"`{name}`" in make["methods"]() for name in import_module("replaceme_core.plans.methods").METHODS)
    assert all(f"`{name}`" in make["baselines"]() for name in import_module("replaceme_core.baselines").BASELINES)
    assert all(f"## replaceme {name}\n" in make["commands"]() for name in main.commands)
    assert "### replaceme runs clean\n" in make["commands"]()
    assert "UNSET" not in make["commands"]()
    assert all(f"### `{key}`" in make["plan"]() for key in import_module("replaceme_core.plans.plan").PruningPlan.model_fields)
    assert all(f"`{key}`" in make["plan"]() for key in import_module("replaceme_core.plans.plan").CalibrationSection.model_fields)
    files = make["files"]()
    for folder in ("replaceme_core", "ui", "pages", "demo", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            assert path.name == "__init__.py" or f"| `{path.name}` | {generated().first_line(path)[:20]}" in files.replace("\\|", "|")


def test_every_page_asks_for_something_and_everything_that_is_made_is_asked_for():
    asked = {name for page in PAGES for name in re.findall(r"<!-- generated: (\S+) -->", page.read_text(encoding="utf-8"))}
    assert asked == set(generated().GENERATED)
    with pytest.raises(KeyError):
        generated().filled("<!-- generated: nothing -->")


def public() -> list[tuple[str, str]]:
    """(module, name) of all that the reference pages list."""
    found = []
    for page in REFERENCE:
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
