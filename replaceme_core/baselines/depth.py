"""From what a method of depth decided to a pruned model with its checks and its evidence."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from replaceme_core.artifacts import FitReport, LinearTransform, ModelHandle, Proof, Variant
from replaceme_core.baselines.interface import Choice, Clock, Pruned, Request
from replaceme_core.baselines.passes import passes
from replaceme_core.models.architecture.families import blocks_of
from replaceme_core.surgery import surgery

_TINY = torch.finfo(torch.float64).tiny
_TOKENS = 4096
"""of the calibration set that the evidence is read from, both parts together"""
AT_THE_END = "The errors of this report are those of the stream after the last block, not at the cut."


def by(name: str, arxiv: str, choose: Callable[[Request], Choice], training: bool = False) -> Callable[[Request], Pruned]:
    """The method as the table of names wants it."""
    return partial(_make, name, arxiv, choose, training)


def _make(name: str, arxiv: str, choose: Callable[[Request], Choice], training: bool, request: Request) -> Pruned:
    """Chooses, cuts, checks. Raises `ProofError` where the pruned model is not what was decided."""
    clock = Clock()
    choice = choose(request)
    seconds = clock.seconds + choice.spent
    report = _report(request, choice, seconds)
    first, *others = choice.cut.spans
    settings: dict[str, Any] = {"name": name} | ({"separate": True} if choice.stand_ins else {})
    transform = LinearTransform(first, name, None, report, settings, choice.weights, others=tuple(others), stand_ins=choice.stand_ins)
    said: dict[str, Any] = {"name": name, "arxiv": arxiv, "blocks": list(choice.blocks), "n_blocks": request.n_blocks, "seed": request.seed}
    said |= {"calibration": request.calibration.name, "calibration_fingerprint": request.calibration.fingerprint}
    recipe = {"baseline": said}
    variant = surgery.prune(request.handle, transform, f"{request.handle.name}, {name.replace('_', ' ')}, {choice.cut}", recipe)
    proofs = (*variant.proofs, surgery.require(_prove_shapes(request.handle, variant.handle, choice)))
    variant = Variant(variant.name, variant.handle, variant.original_fingerprint, transform, proofs, recipe)
    removed = request.handle.n_parameters - variant.handle.n_parameters
    return Pruned(name, variant.handle, proofs, choice.blocks, removed, seconds, training, choice.figures, choice.notes, variant)


def _prove_shapes(original: ModelHandle, pruned: ModelHandle, choice: Choice) -> Proof:
    """Every block that stays has tensors of the original's names and shapes, and nothing is there beside them but the stand-ins."""
    with original.borrow() as model:
        whole = blocks_of(model, original.family)
        expected = [_shapes(whole[number]) for number in choice.cut.kept(len(whole))]
    with pruned.borrow() as model:
        found = [_shapes(block) for block in blocks_of(model, pruned.family)]
    wrong = sum(a != b for a, b in zip(expected, found, strict=False)) + abs(len(expected) - len(found))
    added = sum(slope.numel() + offset.numel() for slope, offset in choice.stand_ins.values())
    detail = f"{len(found)} blocks with the original's tensors, {added:,} parameters of linear layers beside them"
    return Proof("shapes as in the original", wrong == 0, float(wrong), 0.0, detail)


def _shapes(block: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(p.shape) for name, p in block.named_parameters() if not name.startswith("followers.")}


def _report(request: Request, choice: Choice, seconds: float) -> FitReport:
    """The stream after the last block beside the intact one, and what removing the same blocks without a transform does to it."""
    handle, calibration = request.handle, request.calibration.first(_TOKENS)
    changed = bool(choice.weights or choice.stand_ins)
    with handle.borrow() as model:
        plain = surgery.cut(model, handle.family, choice.cut)
        made = surgery.applied(model, handle.family, choice.cut, choice.weights, choice.stand_ins) if changed else plain
    sums = {"train": _Sums(), "heldout": _Sums(), "removal": _Sums()}
    runs = [passes(handle, calibration, "comparing the streams", request.progress, model) for model in (None, made)]
    runs += [passes(handle, calibration, "comparing the streams", request.progress, plain)] if changed else []
    for intact, pruned, *removal in zip(*runs, strict=True):
        sums["train"].add(pruned.rows(-1, False), intact.rows(-1, False))
        sums["heldout"].add(pruned.rows(-1, True), intact.rows(-1, True))
        sums["removal"].add((removal[0] if removal else pruned).rows(-1, True), intact.rows(-1, True))
    return FitReport(
        n_tokens=sums["train"].count,
        n_heldout_tokens=sums["heldout"].count,
        unknowns=sum(w.numel() for w in choice.weights.values()) + sum(a.numel() + b.numel() for a, b in choice.stand_ins.values()),
        train_error=sums["train"].error,
        heldout_error=sums["heldout"].error,
        removal_error=sums["removal"].error,
        heldout_cosine=sums["heldout"].cosine,
        removal_cosine=sums["removal"].cosine,
        condition=1.0,
        rank=0,
        ridge=0.0,
        seconds=seconds,
        notes=(*choice.notes, AT_THE_END),
    )


class _Sums:
    """Means over tokens of |x - z|^2 / |z|^2 and of cos(x, z)."""

    def __init__(self) -> None:
        self.count, self._error, self._cosine = 0, 0.0, 0.0

    def add(self, rows: Tensor, goal: Tensor) -> None:
        self.count += len(rows)
        self._error += float(((rows - goal).square().sum(-1) / goal.square().sum(-1).clamp_min(_TINY)).sum())
        self._cosine += float(torch.nn.functional.cosine_similarity(rows, goal, dim=-1).sum())

    @property
    def error(self) -> float:
        return self._error / max(1, self.count)

    @property
    def cosine(self) -> float:
        return self._cosine / max(1, self.count)
