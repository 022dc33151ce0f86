"""`write-text`: a file that can be named as calibration text, and a manifest that says how it was made."""

import json

from click.testing import CliRunner

from replaceme_core.calibration.calibration import prepare
from replaceme_core.cli.main import main
from replaceme_core.plans.plan import CalibrationSection


def test_a_model_writes_a_file_that_can_be_calibrated_on_and_a_manifest(llama, llama_folder, tmp_path):
    out = tmp_path / "prose.jsonl"
    given = [
        "write-text",
        "--model",
        str(llama_folder),
        "--max-tokens",
        "300",
        "--max-length",
        "24",
        "--seed",
        "5",
        "--out",
        str(out),
        "--json",
    ]
    done = CliRunner().invoke(main, given)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == found["n_texts"] > 2
    assert all(set(row) == {"text"} for row in rows)
    assert prepare(CalibrationSection(source=str(out), max_tokens=300, test_tokens=0), llama.tokenizer).n_tokens == 300
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest == {"prose": {key: value for key, value in found.items() if key != "out"}}
    facts = manifest["prose"]
    assert facts["fingerprint"] == llama.fingerprint
    assert facts["settings"]["seed"] == 5
    assert facts["n_tokens"] >= 300
    assert facts["share_dropped"] == round(facts["n_dropped"] / (facts["n_dropped"] + facts["n_texts"]), 4)
    assert CliRunner().invoke(main, [*given[:-2], str(tmp_path / "again.jsonl")]).exit_code == 0
    assert (tmp_path / "again.jsonl").read_text() == out.read_text()
    assert set(json.loads((tmp_path / "manifest.json").read_text())) == {"prose", "again"}


def test_what_cannot_be_written_is_one_sentence(llama_folder, tmp_path):
    asked = ["write-text", "--model", str(llama_folder), "--max-tokens", "50", "--max-length", "24", "--out"]
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(main, [*asked, str(tmp_path / "file" / "text.jsonl")])
    assert done.exit_code == 1
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.output
    done = CliRunner().invoke(main, [*asked, str(tmp_path / "text.jsonl"), "--kind", "chats"])
    assert done.exit_code == 1
    assert "has no chat template" in done.stderr
