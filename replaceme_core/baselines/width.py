"""What the methods that narrow blocks share: which models they take, and a checked result that keeps the parameter budget.

Llama-like models only: an RMSNorm before attention and before the MLP, heads in groups, a gated MLP. Other families get a sentence.
"""

import copy
from dataclasses import replace
from typing import Any

from replaceme_core.artifacts import ModelHandle, Proof
from replaceme_core.baselines.interface import Pruned, Request
from replaceme_core.errors import FamilyError, InputError
from replaceme_core.models.loading import make_handle
from replaceme_core.models.running import capture
from replaceme_core.surgery import surgery

LLAMA_LIKE = ("llama", "mistral", "qwen2", "qwen3")
IN_MEMORY = "The result stays in memory: no plain configuration describes it, so that it cannot be exported."


def checked(request: Request) -> Request:
    """The request, if its model is one that can be narrowed. Every block stays, so that only the budget limits `n_blocks`."""
    request.check(1).require_text()
    with request.handle.borrow() as model:
        kind = str(model.config.model_type)
    if kind not in LLAMA_LIKE:
        raise FamilyError(
            f"'{request.handle.name}' is of the kind '{kind}'. Methods that narrow blocks are built for {', '.join(LLAMA_LIKE)}: one "
            "RMSNorm before each part of a block and a gated MLP. Choose a method that removes blocks."
        )
    return request


def own_copy(model: Any) -> Any:
    """A copy that shares no tensor with the model, in evaluation mode and without gradients. Raises `ModelError` for one with hooks."""
    capture.require_unhooked(model)
    return copy.deepcopy(model).eval().requires_grad_(False)


def require_budget(request: Request, removed: int) -> None:
    """An `InputError` where a method cannot remove as much as the blocks would."""
    if removed < request.n_parameters:
        raise InputError(
            f"This method can remove at most {max(0, removed):,} parameters of '{request.handle.name}', and {request.n_blocks} blocks have "
            f"{request.n_parameters:,}. Choose a smaller share."
        )


def finished(request: Request, name: str, made: Any, proofs: tuple[Proof, ...], **said: Any) -> Pruned:
    """The narrowed model with its checks. `said`: seconds, figures and notes of `Pruned`."""
    original: ModelHandle = request.handle
    cached = surgery.require(surgery.prove_cache(made, surgery.TOLERANCE[original.dtype]))
    title = f"{original.name}, {name.replace('_', ' ')}, as many parameters as {request.n_blocks} blocks"
    handle = make_handle(title, made, original.tokenizer, original.family, original.revision)
    handle = replace(handle, origin=original.origin, file_sha256=original.file_sha256)
    removed = original.n_parameters - handle.n_parameters
    require_budget(request, removed)
    return Pruned(name, handle, (*proofs, cached), (), removed, training=False, **said)
