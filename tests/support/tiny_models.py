"""What all tests share: tiny random models from real configurations, saved and loaded through the real entry points."""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from replaceme_core.artifacts import Measurement, ModelHandle, Span, Variant
from replaceme_core.calibration.calibration import CalibrationSet, prepare
from replaceme_core.export import card_plots
from replaceme_core.export import export as exporting
from replaceme_core.measurement import past_passes
from replaceme_core.measurement.measure import measure
from replaceme_core.models.loading import load, make_handle
from replaceme_core.plans.plan import CalibrationSection, ModelSection
from replaceme_core.solvers import fit
from replaceme_core.surgery.surgery import prune
from tests.support.family_configs import FAMILIES, SHAPE

torch.set_num_threads(1)

_SHAPE = {name: value for name, value in SHAPE.items() if name != "pad_token_id"}
_LAYERS = ["full_attention", "sliding_attention", "full_attention", "sliding_attention", "sliding_attention", "full_attention"]
_WIDE = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "head_dim": 16}
CONFIGS = {
    "llama": LlamaConfig(**_SHAPE, mlp_bias=True, attention_bias=True),
    "llama_tied": LlamaConfig(**_SHAPE, tie_word_embeddings=True),
    "mistral": MistralConfig(**_SHAPE, sliding_window=8, head_dim=8),
    "qwen2": Qwen2Config(**_SHAPE, use_sliding_window=True, sliding_window=8, layer_types=_LAYERS),
    "qwen3": Qwen3Config(**_SHAPE, use_sliding_window=True, sliding_window=8, layer_types=_LAYERS, head_dim=8),
}
_MOST_PASSES = 40
"""kept for the next module"""
CHAT_TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
WORDS = [f"w{i}" for i in range(150)]


@pytest.fixture(scope="module", autouse=True)
def few_passes() -> Iterator[None]:
    """Every pass looks at the size of all that are kept; the thousands of a whole suite are not kept."""
    yield
    if past_passes.held()[0] > _MOST_PASSES:
        past_passes.clear()


@pytest.fixture(scope="session", autouse=True)
def drawn_once() -> Iterator[None]:
    """Every export draws the pictures of its card, which is a third of its time; those of the first one serve for all that show the same
    things. tests/core/export/test_card_plots.py draws every one."""
    drawn: dict[tuple[object, ...], dict[str, bytes]] = {}

    def once(variant: Variant) -> dict[str, bytes]:
        shown = (variant.distances is None, *(row[:2] for row in card_plots.score_rows(variant.scores)))
        if shown not in drawn:
            drawn[shown] = card_plots.card_plots(variant)
        return drawn[shown]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "card_plots", once)
        yield


def save_tiny(folder: Path, kind: str, seed: int = 0, **changes: object) -> Path:
    """A random model of one family, norms and biases perturbed, with a word tokenizer that has no pad token."""
    torch.manual_seed(seed)
    config = copy.deepcopy(CONFIGS[kind]) if kind in CONFIGS else FAMILIES[kind]()
    for name, value in changes.items():
        setattr(config, name, value)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
            elif "embed" in name:
                parameter.mul_(20)
            else:
                parameter.mul_(4)
    model.save_pretrained(folder)
    tokenizer(folder)
    return folder


def tokenizer(folder: Path) -> None:
    """A byte-level BPE, the kind that every family's tokenizer class accepts; it has no pad token."""
    from tokenizers import ByteLevelBPETokenizer, processors

    words = ByteLevelBPETokenizer()
    words.train_from_iterator(WORDS, vocab_size=320, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    words.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=words._tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(folder)


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Sixty texts of 5 to 40 random words."""
    generator = torch.Generator().manual_seed(5)
    lengths = torch.randint(5, 40, (60,), generator=generator).tolist()
    return [" ".join(WORDS[i] for i in torch.randint(0, len(WORDS), (n,), generator=generator).tolist()) for n in lengths]


@pytest.fixture(scope="session")
def texts_file(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Path:
    """The same as a calibration file."""
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    return path


@pytest.fixture(scope="session", params=list(CONFIGS))
def handle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelHandle:
    """One tiny model of every exact family."""
    return load(ModelSection(path=str(save_tiny(tmp_path_factory.mktemp(request.param), request.param))))


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny_llama"), "llama")


@pytest.fixture(scope="session")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Checkpoints whose widths a CPU can compute in 4 bits, by (kind, dtype, shard size); made once each."""
    made: dict[tuple[str, str, str], Path] = {}

    def make(kind: str = "llama", dtype: str = "float32", shard: str = "5GB") -> Path:
        key = (kind, dtype, shard)
        if key not in made:
            folder = save_tiny(tmp_path_factory.mktemp(f"wide_{kind}"), kind, **_WIDE)
            if (dtype, shard) != ("float32", "5GB"):
                model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
                (folder / "model.safetensors").unlink()
                model.save_pretrained(folder, max_shard_size=shard)
            made[key] = folder
        return made[key]

    return make


@pytest.fixture(scope="session")
def llama(llama_folder: Path) -> ModelHandle:
    return load(ModelSection(path=str(llama_folder)))


@pytest.fixture(scope="session")
def calibration(llama: ModelHandle, texts: list[str]) -> CalibrationSet:
    return prepare(CalibrationSection(max_tokens=1200, max_length=32), llama.tokenizer, texts, name="random words")


@pytest.fixture(scope="session")
def measurement(llama: ModelHandle, calibration: CalibrationSet) -> Measurement:
    """One pass over the tiny llama with every span kept."""
    return measure(llama, calibration)


@pytest.fixture(scope="session")
def llama64(llama_folder: Path, llama: ModelHandle) -> ModelHandle:
    """The same tiny llama in float64, for comparisons to the last digits."""
    model = AutoModelForCausalLM.from_pretrained(llama_folder, dtype=torch.float64).eval().requires_grad_(False)
    return make_handle("tiny llama in float64", model, llama.tokenizer, llama.family)


@pytest.fixture(scope="session")
def measurement64(llama64: ModelHandle, calibration: CalibrationSet) -> Measurement:
    return measure(llama64, calibration)


@pytest.fixture(scope="session")
def variant(llama: ModelHandle, llama_folder: Path, measurement: Measurement) -> Variant:
    """The tiny llama without its blocks 2 and 3."""
    recipe = {"model": {"path": str(llama_folder)}, "span": {"start": 2, "end": 4}, "method": {"name": "least_squares", "ridge": 0.01}}
    return prune(llama, fit(measurement, Span(2, 4), "least_squares", 0.01), "tiny llama, 2:4", recipe)
