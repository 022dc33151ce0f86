"""Cuts blocks out, merges the transform into the carrier, mends the configuration, and checks the result.

The input model is never changed: the pruned one is a new module tree that shares every untouched tensor with it.
Two checks run before a variant exists, the third (reload = memory) runs on export. A failed check is an error.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from replaceme_core import figures, memory
from replaceme_core.artifacts import Cut, LinearTransform, ModelHandle, Proof, Span, Variant
from replaceme_core.errors import ProofError
from replaceme_core.models.architecture import modality
from replaceme_core.models.architecture.families import blocks_of, require_mergeable
from replaceme_core.models.architecture.family import Family
from replaceme_core.models.loading import make_handle
from replaceme_core.models.quantised import require_whole
from replaceme_core.models.running import capture
from replaceme_core.models.running.precision import exact
from replaceme_core.plans.plan import MethodSection
from replaceme_core.surgery import patch
from replaceme_core.surgery.mending import mend, require_cut, settle
from replaceme_core.surgery.merge import merge

TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}
"""largest relative difference (Frobenius) of logits that two routes of the same mathematics may show"""
_ADVICE = {True: "try float32", False: "try another span"}
"""by whether the check allowed for a coarser dtype"""
REWRITTEN = "inv_freq"
"""what the tables of rotary positions are called"""
_PROBE = (2, 24)
_NEW_TOKENS = 8


def prune(handle: ModelHandle, transform: LinearTransform, name: str, recipe: dict[str, Any] | None = None) -> Variant:
    """The pruned model as a variant that passed its checks. Raises `ProofError` if one fails.

    A quantised or offloaded model is a `ModelError`: its transform goes into its checkpoint (`export.export_merged`).
    """
    removed = transform.cut.check(handle.n_blocks)
    family = require_mergeable(handle.family)
    with handle.borrow() as model:
        require_whole(model, handle.name)
        require_cut(model, family, removed)
        pruned = applied(model, family, removed, transform.weights, transform.stand_ins)
        if transform.matrix is not None:
            _put_in(pruned, family, transform, handle.dtype)
        tolerance = TOLERANCE[handle.dtype]
        proofs = (
            prove_merge(model, pruned, family, transform, tolerance),
            _cached(model, pruned, tolerance) if modality.of(family).cached else prove_order(pruned, family, tolerance),
        )
    for proof in proofs:
        require(proof)
    made = make_handle(name, pruned, handle.tokenizer, family, handle.revision, handle)
    new = replace(made, origin=handle.origin, file_sha256=handle.file_sha256)
    return Variant(name, new, handle.fingerprint, transform, proofs, recipe or {})


def require_expressible(handle: ModelHandle, removed: Span | Cut) -> None:
    """Before a pass: a `FamilyError` for blocks that cannot be left out of this model's configuration, with the spans that can."""
    if handle.family.merge == "refused":
        return
    with handle.borrow() as model:
        require_cut(model, handle.family, removed.check(handle.n_blocks))


def cut(model: Any, family: Family, removed: Span | Cut) -> Any:
    """A new module tree without the removed blocks, sharing its tensors with `model`, as it would be read back. Borrow the model first."""
    return applied(model, family, removed)


def opened(model: Any, family: Family, removed: Span | Cut) -> Any:
    """`cut` with every block that stays as it was in the original, weights and factors: new weights can be solved for it and put into it.

    Its configuration is mended. What it computes is what `cut` computes, but its weights may not be those to write (see `mending.settle`).
    Tables that a forward pass rewrites in place (long rope) are its own: original and variant are lent out apart. Raises `ModelError`
    for a model that carries hooks.
    """
    capture.require_unhooked(model)
    tensors = [*model.parameters(), *(buffer for name, buffer in model.named_buffers() if not name.endswith(REWRITTEN))]
    pruned = copy.deepcopy(model, memo={id(tensor): tensor for tensor in tensors})
    blocks = blocks_of(pruned, family)
    kept = [index for index in range(len(blocks)) if index not in removed.blocks]
    parent, _, child = family.blocks.rpartition(".")
    setattr(pruned.get_submodule(parent), child, nn.ModuleList([blocks[index] for index in kept]))
    mend(pruned, family, kept)
    return pruned


def applied(
    model: Any,
    family: Family,
    removed: Span | Cut,
    weights: Mapping[str, Tensor] | None = None,
    stand_ins: Mapping[int, tuple[Tensor, Tensor]] | None = None,
) -> Any:
    """`cut`, with the new weights of blocks that stay and the stand-ins of blocks that go (see `LinearTransform`). Not checked yet."""
    pruned = opened(model, family, removed)
    kept = [number for number in range(len(blocks_of(model, family))) if number not in removed.blocks]
    place(pruned, family, kept, weights or {})
    settle(pruned, family, kept)
    for number, (slope, offset) in sorted((stand_ins or {}).items()):
        before = sum(block < number for block in kept) - 1
        patch.follow(blocks_of(pruned, family)[before], slope, offset)
    return pruned


def _put_in(pruned: Any, family: Family, transform: LinearTransform, dtype: str) -> None:
    """T into the carrier: merged, or as a layer of its own where the method section asks for it."""
    carrier = blocks_of(pruned, family)[transform.span.carrier]
    assert transform.matrix is not None
    if transform.settings.get("separate"):
        patch.attach(carrier, family, transform.matrix, MethodSection.parse(transform.settings, "the method"), getattr(torch, dtype))
    else:
        merge(carrier, family, transform.matrix)


def place(pruned: Any, family: Family, kept: list[int], weights: Mapping[str, Tensor]) -> None:
    """Puts the new weights of a refit (see `LinearTransform`) into the blocks of a model that was cut; `kept` are their old numbers."""
    blocks = blocks_of(pruned, family)
    for name, value in weights.items():
        number, _, path = name.partition(".")
        block = blocks[kept.index(int(number))]
        parent, _, leaf = path.rpartition(".")
        old = block.get_parameter(path)
        new = nn.Parameter(value.to(old.device, old.dtype), requires_grad=old.requires_grad)
        setattr(block.get_submodule(parent), leaf, new)


def prove_merge(model: Any, pruned: Any, family: Family, transform: LinearTransform, tolerance: float) -> Proof:
    """Outputs of the pruned model against the unchanged model with the transform and the cut put in by hooks."""
    inputs = modality.of(family)
    probe = inputs.probe(model, family, _PROBE)
    with torch.no_grad():
        merged = inputs.outputs(pruned, family, probe)
        with capture.simulated(model, family, transform.cut, transform.matrix, transform.weights, transform.stand_ins):
            hooked = inputs.outputs(model, family, probe)
    detail = f"{inputs.compared} of the merged model against hooks on the original, {inputs.amount(probe)}"
    return proof_of("merged = hooked", merged, hooked, tolerance, detail)


def prove_cache(pruned: Any, tolerance: float) -> Proof:
    """Logits of greedy generation with the key-value cache against one uncached pass over what it wrote, whatever the checkpoint's own rules are."""
    ids = modality.TEXT.probe(pruned, None, _PROBE)[:1]
    try:
        with _greedy(pruned) as rules:
            steps = pruned.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=rules)
    except Exception as error:  # a model's own code fails anywhere
        if memory.is_short(error):
            raise
        raise ProofError(
            f"The pruned model cannot generate with its cache ({type(error).__name__}: {error}), so it is not offered; choose another span."
        ) from error
    with torch.no_grad():
        whole = pruned(input_ids=steps.sequences, use_cache=False).logits[:, ids.shape[1] - 1 : -1]
    detail = f"logits of {_NEW_TOKENS} generated tokens with and without the key-value cache"
    return proof_of("cached = uncached", torch.stack(steps.logits, 1), whole, tolerance, detail)


@contextmanager
def _greedy(model: Any) -> Iterator[Any]:
    """Within this block the model generates by these rules alone: greedily, with its cache, to the full length.

    What such rules leave open, `generate` takes from the checkpoint's: no cache at all, so that there is nothing to check, beams, words to stop at.
    """
    from transformers import GenerationConfig

    rules = GenerationConfig(max_new_tokens=_NEW_TOKENS, use_cache=True, num_beams=1, do_sample=False, pad_token_id=0)
    rules.output_logits = rules.return_dict_in_generate = True
    own, model.generation_config = getattr(model, "generation_config", None), rules
    try:
        yield rules
    finally:
        model.generation_config = own


def _cached(model: Any, pruned: Any, tolerance: float) -> Proof:
    """`prove_cache`; where it fails because the original itself fails it, a `ProofError` says so, for no other span would help."""
    proof = prove_cache(pruned, tolerance)
    if proof.passed or (own := prove_cache(model, tolerance)).passed:
        return proof
    raise ProofError(
        f"The original model generates other logits with its key-value cache than without (relative difference {figures.number(own.error)}, allowed "
        f"{figures.number(tolerance)}), so that a pruned one cannot be checked. No span of it is offered; choose another model."
    )


def prove_order(pruned: Any, family: Family, tolerance: float) -> Proof:
    """An encoder of images has no cache. In its place: its own pass against the kept blocks called one after the other."""
    probe = modality.of(family).probe(pruned, family, _PROBE)
    boundaries = capture.read_states(pruned, family, probe, None).boundaries
    stream = boundaries[0]
    with torch.no_grad():
        for block in blocks_of(pruned, family):
            stream = block(stream, None)
    detail = f"the stream after the last of {len(boundaries) - 1} blocks, {len(probe)} random images; an image encoder has no cache"
    return proof_of("forward = block by block", boundaries[-1], stream, tolerance, detail)


def require(proof: Proof) -> Proof:
    """The check if it passed, else a `ProofError`."""
    if proof.passed:
        return proof
    raise ProofError(
        f"The pruned model failed the check '{proof.name}': relative difference {figures.number(proof.error)}, allowed {figures.number(proof.tolerance)} "
        f"({proof.detail}). It is not offered; {_ADVICE[proof.tolerance > TOLERANCE['float32']]}, and report the model's family if it stays."
    )


def proof_of(name: str, left: Float[Tensor, "..."], right: Float[Tensor, "..."], tolerance: float, detail: str) -> Proof:
    """Two routes of the same mathematics: the relative difference (Frobenius) of what they give."""
    left, right = exact(left), exact(right)
    error = float((left - right).norm() / right.norm().clamp_min(1e-30))
    return Proof(name, error <= tolerance, error, tolerance, detail)
