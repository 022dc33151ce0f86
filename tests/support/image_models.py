"""Encoders of images: tiny random ViT and CLIP as checkpoints, and their calibration sets."""

from pathlib import Path
from typing import Any

import torch
import transformers as hf

from replaceme_core import pipeline
from replaceme_core.artifacts import ModelHandle
from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.plans.plan import CalibrationSection

_SHAPE: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 6, "num_attention_heads": 4}
PIXELS: dict[str, Any] = _SHAPE | {"image_size": 32, "patch_size": 8}
_WORDS: dict[str, Any] = _SHAPE | {"vocab_size": 320, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
POSITIONS = 17
N_IMAGES = 40


def clip_config() -> Any:
    return hf.CLIPConfig(text_config=_WORDS, vision_config=PIXELS, projection_dim=16)


MODELS = {
    "vit": lambda: hf.ViTForImageClassification(hf.ViTConfig(**PIXELS, num_labels=5)),
    "vit_bare": lambda: hf.ViTModel(hf.ViTConfig(**PIXELS)),
    "clip": lambda: hf.CLIPModel(clip_config()),
    "clip_vision": lambda: hf.CLIPVisionModel(hf.CLIPVisionConfig(**PIXELS)),
    "clip_projection": lambda: hf.CLIPVisionModelWithProjection(hf.CLIPVisionConfig(**PIXELS, projection_dim=16)),
}

OTHERS = {
    "deit": lambda: hf.DeiTForImageClassification(hf.DeiTConfig(**PIXELS, num_labels=5)),
    "siglip": lambda: hf.SiglipModel(hf.SiglipConfig(text_config=_WORDS, vision_config=PIXELS)),
    "siglip_vision": lambda: hf.SiglipVisionModel(hf.SiglipVisionConfig(**PIXELS)),
}


def save_tiny(folder: Path, name: str, make: Any = None) -> Path:
    """Random weights large enough that every block matters, norms and biases perturbed, with the image processor."""
    torch.manual_seed(0)
    model = (make or MODELS[name])()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
            else:
                parameter.mul_(4)
    model.save_pretrained(folder)
    size = {"height": 32, "width": 32}
    kind = hf.CLIPImageProcessorPil if name.startswith("clip") else hf.ViTImageProcessorPil
    (kind(size={"shortest_edge": 32}, crop_size=size) if name.startswith("clip") else kind(size=size)).save_pretrained(folder)
    return folder


def prepared(handle: ModelHandle, images: Path, **changes: Any) -> CalibrationSet:
    return pipeline.prepare_for(handle, CalibrationSection(source=str(images), holdout=0.2, **changes))
