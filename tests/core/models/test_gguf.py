"""GGUF as a source: our load is transformers' own to the last bit, what transformers drops in silence is read or refused, exports reload."""

import math
from collections.abc import Callable
from pathlib import Path

import jinja2
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from replaceme_core.errors import ModelError
from replaceme_core.measurement.preflight import preflight
from replaceme_core.models import loading
from replaceme_core.models.checkpoints import stored_shapes
from replaceme_core.models.loading import as_stored, load
from replaceme_core.plans.plan import ModelSection
from replaceme_core.storage import gguf_file
from tests.support.gguf_files import TEMPLATE, write_gguf
from tests.support.tiny_models import save_tiny

WIDE = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "head_dim": 16}
PLAIN = {"attention_bias": False, "mlp_bias": False}
IDS = torch.tensor([[1, 7, 200, 31, 5, 90, 11, 300, 2, 64]])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("plain_llama"), "llama", **WIDE, **PLAIN)


@pytest.fixture(scope="module")
def file(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The tiny llama as a file of one type, written once."""
    folder, made = tmp_path_factory.mktemp("gguf"), {}

    def write(kind: str) -> Path:
        if kind not in made:
            made[kind] = write_gguf(tiny, folder / f"tiny.{kind}.gguf", kind)
        return made[kind]

    return write


def logits(path: Path | str, dtype: str = "float32") -> torch.Tensor:
    with load(ModelSection(path=str(path), dtype=dtype, device="cpu")).borrow() as model:
        return model(input_ids=IDS).logits


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_1", "Q4_0", "Q5_1"])
def test_the_load_is_that_of_transformers_to_the_last_bit(file, kind):
    path = file(kind)
    theirs = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    handle = load(ModelSection(path=str(path), device="cpu"))
    with handle.borrow() as ours, torch.no_grad():
        for name, value in theirs.state_dict().items():
            assert torch.equal(value, ours.state_dict()[name]), name
        assert torch.equal(ours(input_ids=IDS).logits, theirs(input_ids=IDS).logits)
    assert handle.name == f"tiny.{kind}"
    assert handle.file_sha256 == gguf_file.read(path).sha256
    assert kind in handle.origin
    assert ("stays lost" in handle.origin) == (kind not in ("F32", "F16", "BF16"))


def test_a_file_of_plain_numbers_is_the_model_that_was_written(tiny, file):
    """A second route: not through transformers' GGUF code at all."""
    with torch.no_grad():
        written = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)(input_ids=IDS).logits
    assert torch.equal(logits(file("F32")), written)
    assert 0 < (logits(file("F16")) - written).norm() / written.norm() < 2e-3
    assert 1e-3 < (logits(file("Q4_1")) - written).norm() / written.norm() < 0.5


def test_a_split_file_is_the_whole_one_by_any_of_its_parts(tiny, file, tmp_path):
    first = write_gguf(tiny, tmp_path / "parts.gguf", "Q8_0", split=20)
    parts = sorted(tmp_path.glob("*.gguf"))
    assert len(parts) == 3
    whole = logits(file("Q8_0"))
    assert torch.equal(logits(first), whole)
    assert torch.equal(logits(parts[-1]), whole)
    assert torch.equal(logits(tmp_path), whole)
    assert load(ModelSection(path=str(parts[1]))).name == "parts"
    parts[1].unlink()
    with pytest.raises(ModelError, match=r"one of 3 files, and 1 of them are not beside it \(parts-00002-of-00003.gguf\); fetch them all"):
        load(ModelSection(path=str(first)))


def test_a_folder_means_its_only_file_and_a_checkpoint_goes_before_it(tiny, file, tmp_path):
    path = file("F16")
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "model.gguf").write_bytes(path.read_bytes())
    assert torch.equal(logits(tmp_path / "one"), logits(path))
    (tmp_path / "one" / "other.gguf").write_bytes(path.read_bytes())
    with pytest.raises(ModelError, match=r"holds 2 GGUF files \(model.gguf, other.gguf\); name the one"):
        load(ModelSection(path=str(tmp_path / "one")))
    save_tiny(tmp_path / "both", "llama", **WIDE, **PLAIN)
    (tmp_path / "both" / "model.gguf").write_bytes(b"not even a GGUF file")
    with load(ModelSection(path=str(tmp_path / "both"))).borrow() as model, load(ModelSection(path=str(tiny))).borrow() as plain:
        assert torch.equal(model(input_ids=IDS).logits, plain(input_ids=IDS).logits)


def test_tokenizer_template_and_special_tokens_come_along(file):
    path = file("F16")
    ours, theirs = load(ModelSection(path=str(path))).tokenizer, AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    for text in ("w1 w22", " w3\n\nw4 ünïcode 2024!", "<s>w5</s>"):
        assert ours(text)["input_ids"] == theirs(text)["input_ids"]
    assert ours.special_tokens_map == theirs.special_tokens_map | {"pad_token": "</s>"}
    chat = [{"role": "user", "content": "w1 w2"}, {"role": "assistant", "content": "w3"}]
    rendered = ours.apply_chat_template(chat, tokenize=False)
    assert rendered == jinja2.Template(TEMPLATE, keep_trailing_newline=True).render(messages=chat, bos_token="<s>")
    assert ours("w1")["input_ids"].count(1) == 1
    assert ours.apply_chat_template(chat, tokenize=True, return_dict=False).count(1) == 1


def test_the_preflight_reads_the_header_alone(file):
    """The values of the file are overwritten with nonsense, and it gives the same figures."""
    path = file("Q4_1")
    blank = path.with_name("blank.gguf")
    data, start = path.read_bytes(), min(tensor.offset for tensor in gguf_file.read(path).tensors.values())
    blank.write_bytes(data[:start] + b"\xff" * (len(data) - start))
    found, whole = preflight(ModelSection(path=str(blank))), load(ModelSection(path=str(path)))
    assert (found.n_blocks, found.width, found.n_parameters, found.family.name) == (6, 64, whole.n_parameters, "llama")
    assert found.weights_bytes == 4 * whole.n_parameters


@pytest.mark.parametrize("changes", [PLAIN, {}, PLAIN | {"tie_word_embeddings": True}])
def test_header_and_built_model_count_alike(changes, tmp_path, monkeypatch):
    path = write_gguf(save_tiny(tmp_path / "some", "llama", **(WIDE | changes)), tmp_path / "some.gguf", "Q8_0")
    found = loading.weigh(ModelSection(path=str(path)))
    assert stored_shapes.read_gguf(gguf_file.read(path)) is not None
    monkeypatch.setattr(stored_shapes, "read_gguf", lambda _file: None)
    assert found == loading.weigh(ModelSection(path=str(path)))


@pytest.mark.parametrize(("kind", "dtype"), [("F32", "float32"), ("F16", "float16"), ("BF16", "bfloat16"), ("Q8_0", "float32")])
def test_the_dtype_of_a_file_is_that_of_its_numbers_and_float32_for_what_was_quantised(file, kind, dtype):
    section = ModelSection(path=str(file(kind)))
    assert as_stored(section).dtype == dtype
    assert as_stored(ModelSection(path=section.path, dtype="float32")).dtype == "float32"
    assert load(as_stored(section)).dtype == dtype


def test_the_model_is_plain_and_what_it_saves_loads_by_itself(file, tmp_path):
    handle = load(ModelSection(path=str(file("Q8_0"))))
    with handle.borrow() as model:
        model.save_pretrained(tmp_path / "saved")
        handle.tokenizer.save_pretrained(tmp_path / "saved")
        config = (tmp_path / "saved" / "config.json").read_text()
        assert "quantization" not in config
        assert "_name_or_path" not in config
        again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=torch.float32)
        assert torch.equal(again(input_ids=IDS).logits, model(input_ids=IDS).logits)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert tokenizer("w1 w22")["input_ids"] == handle.tokenizer("w1 w22")["input_ids"]
    assert tokenizer.chat_template == TEMPLATE


def test_biases_are_read_that_transformers_leaves_out(tmp_path):
    """The reader of transformers builds a llama without biases, and drops those of the file without a word."""
    folder = save_tiny(tmp_path / "biased", "llama", **WIDE)
    path = write_gguf(folder, tmp_path / "biased.gguf", "F32")
    with torch.no_grad():
        written = AutoModelForCausalLM.from_pretrained(folder)(input_ids=IDS).logits
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype=torch.float32)(input_ids=IDS).logits
    assert torch.equal(logits(path), written)
    assert not torch.allclose(theirs, written, atol=1e-2)


def _rope(folder: Path, **scaled: object) -> Path:
    rope = {"rope_theta": 10000.0, **scaled}
    return save_tiny(folder, "llama", **WIDE, **PLAIN, rope_parameters=rope, max_position_embeddings=16384)


def test_scaled_positions_are_read_that_transformers_leaves_out(tmp_path):
    """Llama 3.1 stores what its rotary frequencies are divided by as a tensor, linear scaling is an entry; both change every logit."""
    llama3 = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    folder = _rope(tmp_path / "llama3", **llama3)
    wavelengths = 2 * math.pi * 10000.0 ** (np.arange(8) / 8)
    smooth = np.clip((8192 / wavelengths - 1) / 3, 0, 1)
    divisors = (1 / ((1 - smooth) / 8 + smooth)).astype(np.float32)
    assert divisors.min() == 1
    assert divisors.max() > 1
    path = write_gguf(folder, tmp_path / "llama3.gguf", "F32", extra={"rope_freqs.weight": divisors})
    check(folder, path, "llama3")
    folder = _rope(tmp_path / "linear", rope_type="linear", factor=4.0)
    entries = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    check(folder, write_gguf(folder, tmp_path / "linear.gguf", "F32", entries=entries), "linear")


def check(folder: Path, path: Path, kind: str) -> None:
    ids = torch.randint(0, 320, (1, 400), generator=torch.Generator().manual_seed(0))  # long enough for slow frequencies to matter
    with load(ModelSection(path=str(path))).borrow() as model, torch.no_grad():
        written = AutoModelForCausalLM.from_pretrained(folder)(input_ids=ids).logits
        theirs = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)(input_ids=ids).logits
        assert model.config.rope_parameters["rope_type"] == kind
        ours = model(input_ids=ids).logits
    assert torch.allclose(ours, written, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(theirs, written, rtol=1e-3, atol=1e-3)


def test_divisors_of_no_known_rule_are_kept_as_numbers(tiny, tmp_path):
    """Dividing the frequencies by these by hand, in the model without them, gives the same logits."""
    divisors = np.linspace(1, 3, 8).astype(np.float32)
    path = write_gguf(tiny, tmp_path / "odd.gguf", "F32", extra={"rope_freqs.weight": divisors})
    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    model.model.rotary_emb.inv_freq /= torch.from_numpy(divisors)
    with torch.no_grad():
        assert torch.allclose(logits(path), model(input_ids=IDS).logits, rtol=1e-4, atol=1e-4)


REFUSED = {
    "an architecture": (
        {"general.architecture": "unheard"},
        None,
        "holds the architecture 'unheard', which transformers cannot read out of GGUF",
    ),
    "positions": ({"llama.rope.scaling.type": "strange"}, None, "scales its positions by 'strange'"),
    "a tensor": (None, {"blk.0.attn_sinks.weight": np.ones(4, np.float32)}, r"has no place for \(blk.0.attn_sinks.weight\)"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_what_would_be_read_wrongly_is_one_sentence(tiny, tmp_path, case):
    entries, extra, sentence = REFUSED[case]
    path = write_gguf(
        tiny, tmp_path / "odd.gguf", "F16", extra=extra, entries={k: v for k, v in (entries or {}).items() if k != "general.architecture"}
    )
    if entries and "general.architecture" in entries:
        path.write_bytes(path.read_bytes().replace(b"\x05\0\0\0\0\0\0\0llama", b"\x07\0\0\0\0\0\0\0unheard", 1))
    with pytest.raises(ModelError, match=sentence) as error:
        load(ModelSection(path=str(path)))
    assert "\n" not in str(error.value)


def test_a_type_that_cannot_be_dequantised_is_one_sentence_before_weights_are_read(file, tmp_path):
    data = bytearray(file("Q8_0").read_bytes())
    name = b"blk.0.ffn_down.weight"
    place = data.index(name) + len(name) + 4 + 16  # behind its two sides
    data[place : place + 4] = (9).to_bytes(4, "little")  # Q8_1, an inner format of llama.cpp
    path = tmp_path / "odd.gguf"
    path.write_bytes(data + bytes(10_000))
    with pytest.raises(ModelError, match="stores weights as Q8_1, which cannot be dequantised here"):
        preflight(ModelSection(path=str(path)))


@pytest.mark.parametrize("held", [{"quantisation": "nf4"}, {"device": "spread"}])
def test_a_file_is_not_held_quantised_or_spread(file, held):
    with pytest.raises(ModelError, match="a GGUF file is dequantised whole"):
        load(ModelSection(path=str(file("Q8_0")), **held))


def test_a_path_that_does_not_exist_is_one_sentence(tmp_path):
    for path in (tmp_path / "none.gguf", "owner/name/none.gguf", "none.gguf"):
        with pytest.raises(ModelError, match=r"none.gguf' does not exist; check the path"):
            load(ModelSection(path=str(path)))
