"""Pruned models of earlier sessions: kept as what they are made of, not as models, and made again from the original to the last bit.

What is kept is the run config and the transform. Of a variant that was trained (LoRA) the transform does not say all: the tensors that
differ from the original's are kept beside it, where they are few.
"""

import base64
import logging
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from torch import Tensor, nn

from replaceme_core import memory
from replaceme_core.artifacts import ModelHandle, Proof, Variant
from replaceme_core.errors import Cancelled, OutOfMemoryError, quoted
from replaceme_core.healing_report import HealingPoint, HealingReport
from replaceme_core.models import fingerprints
from replaceme_core.models.loading import make_handle
from replaceme_core.storage import shelf
from replaceme_core.storage.transform_record import put_together, taken_apart
from replaceme_core.surgery import surgery

_logger = logging.getLogger(__name__)
KIND = "variants"
_CHANGED = "changed."
SMALL = 64 * 2**20
"""bytes of changed tensors that are always few"""
SHARE = 4
"""beyond that, a variant is kept whose changed tensors are at most one part of so many of its model"""


def keep(original: ModelHandle, variant: Variant, key: str) -> str:
    """Keeps the variant under a name of the shelf; a sentence where that is not done."""
    tensors, transform = taken_apart(variant.transform)
    changed = _changed(original, variant) if _is_trained(variant) else {}
    size = sum(tensor.numel() * tensor.element_size() for tensor in changed.values())
    if size > max(SMALL, variant.handle.n_bytes // SHARE):
        return (
            f"'{variant.name}' lasts as long as this model stays loaded: the training changed {memory.size(size)} of its weights, which is "
            "too much to keep beside the run config. Export it to have it later."
        )
    said = {
        "name": variant.name,
        "fingerprint": variant.handle.fingerprint,
        "transform": transform,
        "recipe": variant.recipe,
        "proofs": [asdict(proof) for proof in variant.proofs],
        "files": {name: base64.b64encode(data).decode() for name, data in variant.files.items()},
        "healing": asdict(variant.healing) if variant.healing is not None else None,
    }
    if shelf.put(KIND, key, tensors | {_CHANGED + name: tensor for name, tensor in changed.items()}, said):
        return ""
    return f"'{variant.name}' lasts as long as this model stays loaded: the cache folder has no room for it. Export it to have it later."


def found(original: ModelHandle, key: str) -> Variant | None:
    """The variant that was kept under that name, made again and checked; one that cannot be is removed. Raises `OutOfMemoryError`."""
    kept = shelf.get(KIND, key)
    if kept is None:
        return None
    try:
        return _made(original, *kept)
    except (Cancelled, OutOfMemoryError):
        raise
    except Exception as error:  # written by a program that knew other parts, or a check that fails
        _logger.warning("the variant %s cannot be made again (%s)", key, quoted(error))
        shelf.remove(KIND, key)
        return None


def _made(original: ModelHandle, tensors: dict[str, Tensor], said: dict[str, Any]) -> Variant:
    changed = {name.removeprefix(_CHANGED): tensors.pop(name) for name in [*tensors] if name.startswith(_CHANGED)}
    transform = put_together(tensors, said["transform"], original.device)
    variant = surgery.prune(original, transform, said["name"], said["recipe"])
    if changed:
        handle = _placed(variant.handle, changed)
        if handle.fingerprint != said["fingerprint"]:
            raise ValueError("the weights are not those that were kept")
        variant = replace(variant, handle=handle, proofs=tuple(Proof(**proof) for proof in said["proofs"]))
    files = {name: base64.b64decode(data) for name, data in said["files"].items()}
    return replace(variant, files=files, healing=_healing(said["healing"]))


def _placed(before: ModelHandle, changed: dict[str, Tensor]) -> ModelHandle:
    """The pruned model, whose modules are its own, with other tensors in the place of those of these names."""
    with before.borrow() as model:
        for name, value in changed.items():
            parent, _, leaf = name.rpartition(".")
            old = model.get_parameter(name)
            setattr(model.get_submodule(parent), leaf, nn.Parameter(value.to(old.device, old.dtype), requires_grad=old.requires_grad))
        made = make_handle(before.name, model, before.tokenizer, before.family, before.revision, before)
    return replace(made, origin=before.origin, file_sha256=before.file_sha256)


def _healing(said: dict[str, Any] | None) -> HealingReport | None:
    if said is None:
        return None
    points = tuple(HealingPoint(**point) for point in said["points"])
    return HealingReport(**(said | {"points": points, "notes": tuple(said["notes"])}))


def _is_trained(variant: Variant) -> bool:
    """Whether the transform does not say all (see `healing.healers`)."""
    return variant.healing is not None and variant.healing.lowered and variant.healing.kind == "lora"


def _changed(original: ModelHandle, variant: Variant) -> dict[str, Tensor]:
    """Parameters of the variant whose values the original has nowhere, by their names in the variant."""
    known = {digest for _, _, digest in original.digests.values()}
    with variant.handle.borrow() as model:
        return dict(_others(model, variant.handle.digests, known))


def _others(model: Any, digests: fingerprints.Digests, known: set[bytes]) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in model.named_parameters():
        own = digests.get(id(parameter))
        if own is None or own[2] not in known:
            yield name, parameter
