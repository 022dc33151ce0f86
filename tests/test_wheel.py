"""The wheel carries the app: it is built, installed outside the checkout, and works in an empty folder; what is heavy is an extra that can be left out."""

import importlib
import json
import os
import stat
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.browser import CHROMIUM, Walk, browser, serve
from replaceme_core.cli import app as app_command
from replaceme_core.errors import ReplaceMeError
from replaceme_core.evaluation.evaluate import evaluate
from replaceme_core.extras import EXTRAS, PACKAGE, missing
from replaceme_core.models.loading import load
from replaceme_core.plans.plan import EvaluationSection, ModelSection
from tests.support.app_session import needs_demo
from tests.support.wheel import ROOT, build, clean, install
from tests.test_space import COMMAND, ENV

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="module")
def commands(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(wheel, tmp_path_factory.mktemp("fresh") / "venv")


def test_the_requirements_are_what_the_wheel_asks_for_with_all_its_extras():
    extras = PROJECT["project"]["optional-dependencies"]
    asked = {*PROJECT["project"]["dependencies"], *(pin for pins in extras.values() for pin in pins)}
    assert asked == {line for line in (ROOT / "requirements.txt").read_text().splitlines() if "==" in line}
    assert set(EXTRAS) | {"all"} == set(extras)
    assert PROJECT["project"]["name"] == PACKAGE
    heavy = {pin.split("==")[0] for name in ("benchmarks", "quantised") for pin in extras[name]}
    assert not heavy & {pin.split("==")[0] for pin in PROJECT["project"]["dependencies"]}
    assert {pin for name in ("benchmarks", "quantised") for pin in extras[name]} == set(extras["all"])


def test_every_package_of_the_library_is_named_for_the_wheel():
    named = set(PROJECT["tool"]["setuptools"]["packages"]) - {"replaceme_studio"}
    assert named == {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "replaceme_core").rglob("__init__.py")}


@needs_demo
def test_the_wheel_holds_the_whole_app_and_neither_tests_nor_screenshots(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    here = [path.relative_to(ROOT) for name in ("ui", "pages") for path in (ROOT / name).rglob("*.py")]
    here += [
        path.relative_to(ROOT)
        for name in ("demo", "lesson", "presets", "smollm2", "tasks")
        for path in (ROOT / "assets" / name).rglob("*")
        if path.is_file()
    ]
    here += [Path("app.py"), Path("assets/icon.svg"), Path("assets/plan.schema.json"), Path(".streamlit/config.toml")]
    assert {f"replaceme_studio/{path.as_posix()}" for path in here} - held == set()
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "replaceme_core").rglob("*.py")} - held == set()
    assert not [name for name in held if "screenshots" in name or ("test" in Path(name).name and "tests" in Path(name).parts)]
    assert wheel.stat().st_size < 12e6


@needs_demo
def test_the_installed_command_works_in_an_empty_folder(commands, tmp_path):
    def run(*words: str) -> str:
        done = subprocess.run(
            [commands / "replaceme", *words], cwd=tmp_path, env=clean(tmp_path), capture_output=True, text=True, timeout=200, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    found = {each["name"]: each["state"] for each in json.loads(run("doctor", "--json"))}
    assert {found["demo model"], found["app"], found["packages"]} == {"ok"}
    run("fit", "--model", "demo", "--span", "6:9", "--max-tokens", "512", "--method", "drop", "--out", "out")
    assert (tmp_path / "out" / "model.safetensors").is_file()


@needs_demo
@pytest.mark.timeout(600)
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)")
def test_the_installed_app_goes_from_start_to_the_matrix_in_an_empty_folder(commands, tmp_path):
    environment = dict.fromkeys(("PYTHONPATH",), "") | {"OMP_NUM_THREADS": "1"}
    with serve(tmp_path, (str(commands / "replaceme"), "app"), tmp_path, **environment) as address, browser() as chromium:
        walk = Walk(chromium.new_page(viewport={"width": 1280, "height": 900})).open(address)
        start = walk.page.get_by_role("button", name="Start with the small demo, in seconds").first
        walk.until(lambda: start.click(timeout=8_000), walk.page.get_by_role("heading", name="Blocks", exact=True), "the start")
        walk.cell(6, 9).wait_for(state="attached")
        walk.healthy()
        size = walk.page.evaluate("getComputedStyle(document.querySelector('h2')).fontSize")
        assert size == "28.8px", "the app's own configuration is read (headings of 1.8rem)"


@pytest.fixture
def frozen(commands: Path) -> Iterator[Path]:
    """The installed wheel in an environment that cannot be written."""
    packages = next(commands.parent.glob("lib/python*/site-packages"))
    ours = [path for name in ("replaceme_core", "replaceme_studio") for path in [packages / name, *(packages / name).rglob("*")]]
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in ours}
    for path, mode in modes.items():
        path.chmod(mode & ~0o222)
    yield commands
    for path, mode in modes.items():
        path.chmod(mode)


@needs_demo
@pytest.mark.timeout(600)
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)")
def test_the_last_command_of_the_space_serves_the_lesson_first_and_two_models(frozen, tmp_path):
    """What its Dockerfile says, in a clean environment, as far as it goes without a container."""
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    at = COMMAND.index("--server.port")
    command = (str(frozen / COMMAND[0]), *COMMAND[1:at], *COMMAND[at + 2 :])  # the port is a free one here
    environment = {key: value for key, value in ENV.items() if key not in ("HOME", "PATH")}
    with serve(home, command, work, **environment, PYTHONPATH="", PATH=f"{frozen}:{os.defpath}") as address, browser() as chromium:
        walk = Walk(chromium.new_page(viewport={"width": 1280, "height": 900})).open(address)
        lesson = walk.page.get_by_role("button", name="Learn it in ten minutes").first
        walk.until(lambda: lesson.click(timeout=8_000), walk.page.get_by_role("heading", name="Lesson", exact=True), "the lesson")
        walk.go("1 · Model")
        walk.page.get_by_text("Where is it?").first.wait_for()
        assert walk.page.get_by_role("button", name="Local folder or GGUF file").count() == 0
        walk.healthy()
    assert sorted(path.name for path in work.iterdir()) == []


@pytest.mark.parametrize("module", ["lm_eval", "bitsandbytes", "streamlit"])
def test_what_is_left_out_is_named_with_its_extra_when_it_is_asked_for(monkeypatch, llama, llama_folder, module):
    for name in [name for name in sys.modules if name.split(".")[0] == module or name == "replaceme_core.evaluation.lm_eval_model"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    asked = {
        "lm_eval": lambda: evaluate(llama, EvaluationSection(tasks="demo", limit=2)),
        "bitsandbytes": lambda: load(ModelSection(path=str(llama_folder), quantisation="int8")),
        "streamlit": lambda: app_command.app.callback(()),
    }[module]
    with pytest.raises(ReplaceMeError) as caught:
        asked()
    extra = {"lm_eval": "benchmarks", "bitsandbytes": "quantised", "streamlit": "app"}[module]
    assert f'which is not installed: pip install "replaceme-studio[{extra}]"' in str(caught.value)


def test_every_module_of_the_library_imports_without_the_extras():
    """In a process that cannot import any of them."""
    modules = sorted(
        path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for path in (ROOT / "replaceme_core").rglob("*.py")
    )
    needing = {"replaceme_core.evaluation.lm_eval_model", "replaceme_core.__main__"}
    blocked = sorted({name for _, names in EXTRAS.values() for name in names})
    code = f"import sys\nfor name in {blocked}: sys.modules[name] = None\nimport importlib\nfor name in {sorted(set(modules) - needing)}: importlib.import_module(name)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr


def test_another_import_that_fails_is_not_blamed_on_an_extra():
    with pytest.raises(ImportError) as caught:
        importlib.import_module("no_such_module_xyz")
    assert missing(caught.value) is None
