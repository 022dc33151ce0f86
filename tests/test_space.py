"""The Space: its head is one that the hub reads, and its Dockerfile installs what there is. test_wheel.py does what its last line says."""

import json
import re

import yaml

from tests.support.wheel import ROOT

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
