"""Scripts that people run on machines which this project does not have: they run here in a small form, so that they run there."""

import json

from click.testing import CliRunner

from benchmarks import gpu_check, real_rows, reference


def test_every_part_of_the_gpu_check_runs_on_a_cpu_and_it_says_what_it_could_not_try():
    done = CliRunner().invoke(gpu_check.main, ["--tiny", "--device", "cpu", "--tokens", "512", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout.splitlines()[-1])
    assert {name for name, part in found["parts"].items() if "failed" in part} == set()
    assert {"pass", "cosine", "sequential_refit", "compare", "benchmarks", "healing"} < set(found["parts"])
    both = [found["parts"][name]["log_likelihoods"] for name in ("benchmarks", "benchmarks_in_lm_eval_batches")]
    assert abs(both[0] - both[1]) < 0.01
    assert found["sums"]["largest_difference"] == 0
    assert "no GPU" in found["not_run"][0]
    assert any("torch.cuda" in line for line in found["not_run"])


def test_a_part_that_fails_is_a_sentence_and_the_rest_goes_on():
    check = gpu_check.Check(gpu_check.random_model(tiny=True, device="cpu"), 256, tiny=True)
    check.timed("broken", lambda: int("x"))
    check.timed("whole", lambda: {"more": 1})
    assert check.parts["broken"] == {"failed": "ValueError: invalid literal for int() with base 10: 'x'"}
    assert check.parts["whole"]["more"] == 1


def test_our_seconds_beside_the_public_code_have_every_stage_and_what_the_proofs_cost():
    done = CliRunner().invoke(reference.main, ["--json", "--model", "demo", "--text", "demo:mixture", "--tokens", "512", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout.splitlines()[-1])
    seconds = found["seconds"]
    assert set(seconds) >= {"distances", "choice", "least_squares", "cosine", "on_disk_with_proofs", "on_disk_without_proofs"}
    stages = sum(seconds[name] for name in ("distances", "choice", "least_squares", "on_disk_without_proofs"))
    assert abs(seconds["all_without_proofs"] - stages) < 0.01
    assert seconds["all_with_proofs"] > seconds["all_without_proofs"]
    assert found["peak_memory_gib"] > 0.1
    assert found["peak_device_memory_gib"] is None


def test_a_row_of_fewer_questions_is_held_against_the_original_on_those_questions(tmp_path):
    def asked(method: str, n_removed: int, bits: str) -> dict:
        share = bits.count("1") / len(bits)
        task = {"value": share, "stderr": 0.1, "n": len(bits)}
        of = {"average": share, "n_items": len(bits), "tasks": {"real_copa": task}, "answers": {"real_copa": bits}}
        return {"method": f"{method}|benchmarks", "n_removed": n_removed} | of

    made = [
        {"method": f"{method}|made", "n_removed": n, "removed": [1, 2], "seconds": 1.0, "training": False}
        for method, n in (("drop", 8), ("refit", 8), ("drop", 6))
    ]
    rows = [asked("original", 0, "11110000"), *made, asked("drop", 8, "1110"), asked("refit", 8, "011000"), asked("drop", 6, "11")]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    six, eight = (
        [line for line in part.splitlines() if line[:5] in ("| the", "| rem", "| ref")] for part in real_rows.full(path).split("### 8")
    )
    cells = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:]] for line in eight[:3]}
    assert cells["the original"][1] == "66.7%", "four of the six that are asked here"
    assert cells["removed, no transform"][1] == "75.0% of 4"
    assert cells["removed, no transform"][2].startswith("75.0%"), "three of the four that the original has right"
    assert cells["removed, no transform"][3] == "50%", "(3/4 - 1/2) / (4/4 - 1/2), though the original has half of all its questions right"
    assert eight[3:] == ["| the original | 66.7% |", "| removed, no transform (4 questions) | 75.0% |", "| refit | 33.3% |"]
    assert six[2:] == ["| the original | 100.0% |", "| removed, no transform | 100.0% |"]
