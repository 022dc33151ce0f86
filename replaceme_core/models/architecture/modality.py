"""What differs between a model of text and an encoder of images: how it is run, probed, compared, loaded. The row of the family decides.

A sequence of text is token ids; a sequence of an image model is one image, and its tokens are the CLS token, which comes
first, and the patches. All positions of an image count; there is no padding and no cache. Where a text is summed up by its
last token, an image is by its CLS token (boundary distances "last"); a model without one is left with its first patch.
"""

from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from replaceme_core.models.architecture.families import counted
from replaceme_core.models.architecture.family import Family
from replaceme_core.models.image_files import ImageReader


class Modality(Protocol):
    """The questions that stages ask about a model's inputs."""

    cached: bool
    """whether generation has a key-value cache that can be wrong"""
    summary: Literal["last", "first"]
    """which token sums up a sequence"""
    compared: str
    """what `outputs` returns, in words"""
    processor: str
    """the transformers class that a person reads the processor with"""

    def model_class(self, config: Any) -> Any:
        """The transformers class that loads a checkpoint of this configuration."""

    def build(self, config: Any) -> Any:
        """A model of this configuration with random weights."""

    def read_processor(self, path: str, options: dict[str, Any]) -> Any:
        """The tokenizer, or the reader of images; it has `save_pretrained`."""

    def run(self, model: Any, family: Family, batch: Tensor, mask: Tensor | None, **told: Any) -> None:
        """One pass through the blocks without a head; hooks read what it does. `told`: more arguments of a language model's pass."""

    def probe(self, model: Any, family: Family | None, shape: tuple[int, int]) -> Tensor:
        """Random inputs, the same at every call: `shape` is (sequences, tokens); images have a length of their own."""

    def outputs(self, model: Any, family: Family, batch: Tensor) -> Tensor:
        """What two routes of the same mathematics are compared on."""

    def amount(self, batch: Tensor) -> str:
        """The size of a probe, in words."""


class _Text:
    cached = True
    summary: Literal["last", "first"] = "last"
    compared = "logits"
    processor = "AutoTokenizer"

    def model_class(self, config: Any) -> Any:  # noqa: ARG002
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM

    def build(self, config: Any) -> Any:
        return self.model_class(config).from_config(config, trust_remote_code=False)

    def read_processor(self, path: str, options: dict[str, Any]) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(path, **options)

    def run(self, model: Any, family: Family, batch: Tensor, mask: Tensor | None, **told: Any) -> None:  # noqa: ARG002
        mask = torch.ones_like(batch) if mask is None else mask
        model.base_model(**{"input_ids": batch, "attention_mask": mask, "use_cache": False, **told})

    def probe(self, model: Any, family: Family | None, shape: tuple[int, int]) -> Tensor:  # noqa: ARG002
        vocabulary = model.get_input_embeddings().num_embeddings
        return torch.randint(0, vocabulary, shape, generator=torch.Generator().manual_seed(0)).to(model.device)

    def outputs(self, model: Any, family: Family, batch: Tensor) -> Tensor:  # noqa: ARG002
        logits: Tensor = model(input_ids=batch, use_cache=False).logits
        return logits

    def amount(self, batch: Tensor) -> str:
        return f"{batch.numel()} random tokens"


class _Images:
    cached = False
    summary: Literal["last", "first"] = "first"
    compared = "last hidden states and the head's output"
    processor = "AutoImageProcessor"

    def model_class(self, config: Any) -> Any:
        """The architecture that the checkpoint names, if it is one of transformers' own for this configuration; else AutoModel."""
        import transformers

        for name in getattr(config, "architectures", None) or ():
            found: Any = getattr(transformers, str(name), None)
            if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel) and type(config) is _config_class(found):
                return found
        return transformers.AutoModel

    def build(self, config: Any) -> Any:
        kind = self.model_class(config)
        return kind.from_config(config, trust_remote_code=False) if kind.__name__ == "AutoModel" else kind(config)

    def read_processor(self, path: str, options: dict[str, Any]) -> ImageReader:
        return ImageReader.read(path, options)

    def run(self, model: Any, family: Family, batch: Tensor, mask: Tensor | None, **told: Any) -> None:  # noqa: ARG002
        model.get_submodule(family.tower)(pixel_values=batch.to(model.device, model.dtype))

    def probe(self, model: Any, family: Family | None, shape: tuple[int, int]) -> Tensor:
        assert family is not None
        tower = counted(model.config, family)
        height, width = tower.image_size if isinstance(tower.image_size, list | tuple) else (tower.image_size, tower.image_size)
        pixels = torch.randn(shape[0], tower.num_channels, height, width, generator=torch.Generator().manual_seed(0))
        return pixels.to(model.device, model.dtype)

    def outputs(self, model: Any, family: Family, batch: Tensor) -> Tensor:
        """The tower's last hidden states at every position, and behind them what the head above it makes of them; flat."""
        tower = model.get_submodule(family.tower)
        states: Tensor = tower(pixel_values=batch).last_hidden_state
        if tower is model:
            return states.flatten()
        if hasattr(model, "get_image_features"):  # the text tower of a full CLIP is not asked
            head = model.get_image_features(pixel_values=batch).pooler_output
        else:
            head = model(pixel_values=batch)[0]
        return torch.cat([states.flatten(), head.flatten()])

    def amount(self, batch: Tensor) -> str:
        return f"{len(batch)} random images"


def _config_class(model_class: Any) -> Any:
    return model_class.config_class


TEXT: Modality = _Text()
IMAGES: Modality = _Images()


def of(family: Family) -> Modality:
    """How models of this family are run, calibrated and proved."""
    return IMAGES if family.inputs == "images" else TEXT
