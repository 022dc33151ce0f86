"""Tokens that a model has no row for, sequences longer than it was built for, and models whose vocabularies differ."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config

from replaceme_core import pipeline, refit
from replaceme_core.artifacts import ModelHandle, Span
from replaceme_core.calibration.calibration import CalibrationSet, prepare
from replaceme_core.comparison.compare import divergence
from replaceme_core.comparison.reading import token_differences
from replaceme_core.errors import InputError
from replaceme_core.measurement.measure import measure
from replaceme_core.models.loading import load
from replaceme_core.models.running.divergence import divergences
from replaceme_core.models.running.limits import positions
from replaceme_core.plans.plan import CalibrationSection, ModelSection
from tests.core.cli.test_cli import inside
from tests.support.tiny_models import save_tiny, tokenizer


def sequences(length: int, largest: int) -> CalibrationSet:
    ids = [torch.arange(3, 3 + length) % 300 for _ in range(4)]
    ids[1][-1] = largest
    return CalibrationSet("four", ids, [False, True, False, True], "four", [])


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("short"), "llama", max_position_embeddings=12)


@pytest.mark.parametrize("fit", [measure, lambda handle, own: refit.fit(handle, own, Span(2, 4), "refit")])
def test_what_cannot_be_read_is_told_before_the_pass(fit, llama: ModelHandle, short: Path) -> None:
    with pytest.raises(InputError, match=r"gives the token 320, and the embedding of .* has rows for 0 to 319 only"):
        fit(llama, sequences(8, 320))
    with pytest.raises(
        InputError, match=r"A sequence has 13 tokens, and .* was built for 12 .*Set the sequence length \(max_length\) to 12 or less"
    ):
        fit(load(ModelSection(path=str(short))), sequences(13, 5))


def test_the_length_is_capped_to_the_models_and_said(short: Path, texts_file: Path, tmp_path: Path) -> None:
    arguments = ("--model", short, "--calibration", texts_file, "--max-tokens", 400)
    done = inside("fit", *arguments, "--span", "2:4", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "Sequences have 12 tokens at most and not 512 (max_length)" in done.stderr
    assert "Sequences have 12 tokens at most" in json.loads((tmp_path / "out" / "report.json").read_text())["report"]["notes"][-1]
    assert inside("distances", *arguments, "--max-length", 12).stderr.count("at most") == 0


def test_learned_positions_are_capped_too(tmp_path: Path, texts: list[str]) -> None:
    config = GPT2Config(n_embd=16, n_layer=3, n_head=2, vocab_size=320, n_positions=10, bos_token_id=1, eos_token_id=2)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer(tmp_path)
    handle = load(ModelSection(path=str(tmp_path)))
    section, said = pipeline.within(CalibrationSection(max_tokens=300, max_length=64), handle)
    assert measure(handle, prepare(section, handle.tokenizer, texts, name="few")).n_tokens > 0
    assert "10 tokens at most" in said
    with handle.borrow() as model:
        assert positions(model) == 10


def test_a_comparison_reads_no_further_than_the_models_do_and_says_so(short: Path) -> None:
    handle = load(ModelSection(path=str(short)))
    row = divergence(handle, [handle], [torch.arange(3, 40)])[0]
    assert (row.n_tokens, row.text) == (11, "the text given, cut to the 12 tokens that the models read")
    assert row.perplexity == divergence(handle, [handle], [torch.arange(3, 15)])[0].perplexity, "the first ones"


@pytest.fixture(scope="module")
def resized(llama_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fine-tune with five added tokens."""
    folder = tmp_path_factory.mktemp("resized")
    model, words = AutoModelForCausalLM.from_pretrained(llama_folder), AutoTokenizer.from_pretrained(llama_folder)
    words.add_tokens([f"<added{i}>" for i in range(5)])
    torch.manual_seed(1)
    model.resize_token_embeddings(325, mean_resizing=False)
    with torch.no_grad():
        model.model.layers[3].mlp.down_proj.weight.mul_(0.9)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def test_a_fine_tune_with_more_tokens_is_compared_on_those_of_both(llama: ModelHandle, resized: Path) -> None:
    other = load(ModelSection(path=str(resized)))
    ids = torch.arange(3, 23)
    for reference, beside in ((llama, other), (other, llama)):
        row = divergence(reference, [beside], [ids])[1]
        logits = []
        for handle in (reference, beside):
            with handle.borrow() as model, torch.no_grad():
                logits.append(model(input_ids=ids.view(1, -1)).logits[0, :-1, :320])
        assert row.kl == pytest.approx(float(divergences(*logits).mean()), abs=1e-8)  # terms in float32
        assert "Compared on the 320 tokens that all models have" in row.note
        assert "has 5 more" in row.note
    assert len(token_differences(llama, other, "w1 w2 w3")) > 3
    with pytest.raises(InputError, match=r"has rows for 0 to 319 only|only some of the models have"):
        divergence(other, [llama], [torch.tensor([3, 4, 322, 5])])


def test_tokenizers_that_disagree_are_told(llama: ModelHandle, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, "llama", seed=1)
    data = json.loads((folder / "tokenizer.json").read_text())
    words = data["model"]["vocab"]
    first, second = [word for word, number in words.items() if number in (100, 101)]
    words[first], words[second] = words[second], words[first]
    (folder / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"have different tokenizers \(token 100 is .* share a tokenizer"):
        divergence(llama, [load(ModelSection(path=str(folder)))], [torch.arange(3, 23)])
