"""The Space: its head is one that the hub reads, and what its Dockerfile says is done in a clean environment, as far as it goes without a container."""

import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from benchmarks.browser import CHROMIUM, Walk, browser, serve
from tests.support.app_session import needs_demo
from tests.support.wheel import ROOT, build, install

SPACE = ROOT / "space"
LINES = [line for line in (SPACE / "Dockerfile").read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
COMMAND = json.loads(next(line for line in LINES if line.startswith("CMD ")).removeprefix("CMD "))
ENV = dict(line.removeprefix("ENV ").split("=", 1) for line in LINES if line.startswith("ENV "))


def test_the_head_names_docker_and_the_port_of_the_command():
    head = yaml.safe_load((SPACE / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    assert (head["sdk"], head["app_port"]) == ("docker", 7860)
    assert (
        head["app_port"]
        == int(COMMAND[COMMAND.index("--server.port") + 1])
        == int(next(line.split()[1] for line in LINES if line.startswith("EXPOSE")))
    )
    assert len(head["short_description"]) <= 60
    assert {head["colorFrom"], head["colorTo"]} <= {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}


def test_the_dockerfile_installs_this_version_and_the_pins_of_the_requirements():
    text = "\n".join(LINES)
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.M)[1]
    assert text.count(f"replaceme_studio-{version}-py3-none-any.whl") == 2
    pins = dict(line.split("==") for line in (ROOT / "requirements.txt").read_text().splitlines() if "==" in line)
    assert f"torch=={pins['torch']}" in text
    assert {line.split()[0] for line in LINES} == {"FROM", "RUN", "USER", "ENV", "WORKDIR", "COPY", "EXPOSE", "CMD"}


@pytest.fixture
def frozen(tmp_path: Path) -> Iterator[Path]:
    """The installed wheel in an environment that cannot be written."""
    commands = install(build(tmp_path / "built"), tmp_path / "venv")
    packages = next((tmp_path / "venv").glob("lib/python*/site-packages"))
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
def test_its_last_command_serves_the_lesson_first_and_two_models(frozen, tmp_path):
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
