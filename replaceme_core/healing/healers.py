"""What moves while healing, and how it is merged afterwards: the carrier's transform, or LoRA on every linear layer of the blocks."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from replaceme_core.artifacts import LinearTransform, ModelHandle, Proof, Variant
from replaceme_core.models.architecture import modality
from replaceme_core.models.architecture.families import blocks_of
from replaceme_core.models.loading import make_handle
from replaceme_core.models.running import capture
from replaceme_core.plans.plan import HealingSection
from replaceme_core.surgery import surgery
from replaceme_core.surgery.merge import merge

RANK = 8
_SCALE = 2.0
"""LoRA's alpha / rank"""
_PROBE = (2, 24)


class Healer(ABC):
    """A pruned model of its own, with the numbers that move. It shares the tensors that stay with original and variant."""

    parameters: list[nn.Parameter]
    """float32, in a fixed order"""

    def __init__(self, original: ModelHandle, variant: Variant, section: HealingSection) -> None:
        self._original, self._variant, self._section = original, variant, section

    @property
    def started_from(self) -> ModelHandle:
        return self._variant.handle

    @abstractmethod
    def logits(self, ids: Int[Tensor, "batch length"], mask: Tensor) -> Float[Tensor, "batch length vocabulary"]:
        """Of the pruned model with the numbers as they are; gradients flow to them."""

    @abstractmethod
    def healed(self, name: str, recipe: dict[str, Any]) -> Variant:
        """The variant with the numbers merged, checked. Raises `ProofError`."""

    def _probe(self, model: Any) -> tuple[Tensor, Tensor]:
        ids = modality.TEXT.probe(model, None, _PROBE)
        with torch.no_grad():
            return ids, self.logits(ids, torch.ones_like(ids))

    def _merged_is_trained(self, merged: Any, ids: Tensor, trained: Tensor) -> Proof:
        with torch.no_grad():
            found = merged(input_ids=ids, use_cache=False).logits
        tolerance, detail = (
            surgery.TOLERANCE[self._original.dtype],
            f"logits of the merged model against those that were trained, {ids.numel()} random tokens",
        )
        return surgery.require(surgery.proof_of("merged = trained", found, trained, tolerance, detail))


class TransformHealer(Healer):
    """T alone, as an update of the variant's own; a vector where only a diagonal T merges. Weights of a refit stay below it.

    A cut of several spans has one T for each carrier.
    """

    def __init__(self, original: ModelHandle, variant: Variant, section: HealingSection) -> None:
        super().__init__(original, variant, section)
        start, family = variant.transform, original.family
        kept = start.cut.kept(original.n_blocks)
        self._carriers = [span.carrier for span in start.cut.spans]
        self._places = [kept.index(carrier) for carrier in self._carriers]
        self._diagonal = family.merge == "diagonal"
        matrix = torch.eye(original.width, dtype=torch.float64) if start.matrix is None else start.matrix
        self._start = matrix.diagonal() if self._diagonal else matrix
        with original.borrow() as model:
            self._tree = surgery.applied(model, family, start.cut, start.weights)
            self._began = self._start.to(model.device, torch.float32)
        self.parameters = [nn.Parameter(torch.zeros_like(self._began)) for _ in self._carriers]

    def logits(self, ids: Tensor, mask: Tensor) -> Tensor:
        with ExitStack() as hooks:
            for place, moved in zip(self._places, self.parameters, strict=True):
                hooks.enter_context(capture.transformed(self._tree, self._original.family, place, self._through(self._began + moved)))
            found: Tensor = self._tree(input_ids=ids, attention_mask=mask, use_cache=False).logits
        return found

    def healed(self, name: str, recipe: dict[str, Any]) -> Variant:
        ids, trained = self._probe(self._tree)
        made = surgery.prune(self._original, self._transform(), name, recipe)
        with made.handle.borrow() as merged:
            proof = self._merged_is_trained(merged, ids, trained)
        return replace(made, proofs=(proof, *made.proofs))

    def _through(self, matrix: Tensor) -> Callable[[Tensor], Tensor]:
        def through(written: Tensor) -> Tensor:
            wide = written.float()
            return (wide * matrix if self._diagonal else wide @ matrix).to(written.dtype)

        return through

    def _transform(self) -> LinearTransform:
        """T itself; for a refit or several spans, the weights with each T merged into those of its carrier."""
        start, found = self._variant.transform, []
        for parameter in self.parameters:
            moved = self._start + parameter.detach().cpu().double()
            found.append(torch.diag(moved) if self._diagonal else moved)
        if len(found) == 1 and not start.weights:
            return replace(start, matrix=found[0])
        changed: dict[str, Tensor] = {}
        for carrier, place, matrix in zip(self._carriers, self._places, found, strict=True):
            block = blocks_of(self._tree, self._original.family)[place]
            trial = copy.deepcopy(block, memo={id(parameter): parameter for parameter in block.parameters()})
            merge(trial, self._original.family, matrix)
            pairs = zip(trial.named_parameters(), block.parameters(), strict=True)
            changed |= {f"{carrier}.{path}": new.detach() for (path, new), old in pairs if new is not old}
        return replace(start, weights=dict(start.weights) | changed)


class LoraHealer(Healer):
    """Low-rank updates of every linear layer and every stack of experts in the blocks (arXiv 2106.09685), by peft; routers stay."""

    def __init__(self, original: ModelHandle, variant: Variant, section: HealingSection) -> None:
        from peft import LoraConfig, LoraModel

        super().__init__(original, variant, section)
        with variant.handle.borrow() as model:
            self._tree = _own(model)
        blocks = blocks_of(self._tree, original.family)  # without the model's configuration, by which peft would rename layers
        linears, experts = layers_of(blocks)
        config = LoraConfig(
            r=section.rank or RANK,
            lora_alpha=_SCALE * (section.rank or RANK),
            target_modules=linears or None,
            target_parameters=experts or None,
            fan_in_fan_out=any(not isinstance(blocks.get_submodule(path), nn.Linear) for path in linears),
            lora_dropout=0.0,
        )
        self._lora = LoraModel(blocks, config, "healing")
        self._lora.eval()
        self.parameters = []
        generator = torch.Generator().manual_seed(section.seed)
        for path, parameter in self._lora.named_parameters():
            if parameter.requires_grad:
                parameter.data = _begun(path, parameter, generator)
                self.parameters.append(parameter)

    def logits(self, ids: Tensor, mask: Tensor) -> Tensor:
        found: Tensor = self._tree(input_ids=ids, attention_mask=mask, use_cache=False).logits
        return found

    def healed(self, name: str, recipe: dict[str, Any]) -> Variant:
        """The transform stays as it was before the training: the weights of all blocks have moved on from it."""
        ids, trained = self._probe(self._tree)
        self._lora.merge_and_unload(progressbar=False, safe_merge=True)
        before = self._variant.handle
        made = make_handle(name, self._tree, before.tokenizer, before.family, before.revision, before)
        handle = replace(made, origin=before.origin, file_sha256=before.file_sha256)
        assert handle.n_parameters == before.n_parameters, "LoRA left a parameter behind"
        cached = surgery.require(surgery.prove_cache(self._tree, surgery.TOLERANCE[before.dtype]))
        proofs = (self._merged_is_trained(self._tree, ids, trained), cached)
        return Variant(name, handle, self._original.fingerprint, self._variant.transform, proofs, recipe)


HEALERS: dict[str, type[Healer]] = {"transform": TransformHealer, "lora": LoraHealer}


def layers_of(blocks: nn.ModuleList) -> tuple[list[str], list[str]]:
    """Paths of the linear layers (a router is a layer of its own kind, and none), and of the stacked weights of experts."""
    from transformers.pytorch_utils import Conv1D

    linears = [
        path
        for path, module in blocks.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and "router" not in type(module).__name__.lower()
    ]
    experts = [path for path, parameter in blocks.named_parameters() if parameter.ndim == 3 and "experts" in path]
    return linears, experts


def _own(model: Any) -> Any:
    """A module tree with parameters of its own that share their values: what is set on them leaves the model alone.

    Tables that a forward pass rewrites are its own too. Raises `ModelError` for a model that carries hooks.
    """
    capture.require_unhooked(model)
    parameters = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in model.parameters()}
    buffers = {id(b): b for name, b in model.named_buffers() if not name.endswith(surgery.REWRITTEN)}
    return copy.deepcopy(model, memo={**parameters, **buffers})


def _begun(path: str, parameter: Tensor, generator: torch.Generator) -> Tensor:
    """A random, B zero, so that the first step starts at the variant; float32 whatever the model's dtype."""
    if "lora_A" not in path:
        return torch.zeros_like(parameter, dtype=torch.float32)
    bound = parameter.shape[-1] ** -0.5
    drawn: Tensor = torch.rand(parameter.shape, generator=generator) * 2 * bound - bound
    return drawn.to(parameter.device)
