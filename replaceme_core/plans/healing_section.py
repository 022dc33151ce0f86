"""The plan's section of healing, which is training."""

from typing import Literal

from pydantic import Field, model_validator

from replaceme_core.plans.section import Section


class HealingSection(Section):
    """Training after the cut: the pruned model's next-token probabilities are pulled back to the original's. None in a plan: no training."""

    kind: Literal["transform", "lora"] = Field("transform", description="what moves: T alone, or LoRA on every linear layer of the blocks")
    steps: int = Field(200, ge=1, description="optimiser steps (AdamW, warm-up, then cosine to 0)")
    rate: float | None = Field(None, gt=0, allow_inf_nan=False, description="highest learning rate; empty: that of the kind")
    batch_tokens: int = Field(2048, ge=2, description="positions of one step at most")
    rank: int | None = Field(None, ge=1, description="of LoRA's updates; empty: 8")
    seed: int = 0
    label: Literal["healed (training)"] = Field(
        "healed (training)", description="what the result is called, so that every run config says it"
    )

    @model_validator(mode="after")
    def _nothing_ignored(self) -> "HealingSection":
        if self.kind == "transform" and self.rank is not None:
            raise ValueError("healing of kind 'transform' takes no rank; it goes with kind: lora")
        return self
