"""LaCo, layer collapse (arXiv 2402.11187, algorithm 1): from the top down, blocks are merged into the block below them.

Block l becomes theta_l + sum_k (theta_l+k - theta_l) over the next m blocks, which then go. All differences are those of the weights
as they are before the merge; with a copy that is changed while it is summed up, the terms cancel and what is left is the last
of the m blocks, which is plain dropping. A merge is kept if the last hidden state of the merged model stays close to the
original's, by the mean cosine over tokens; then the next one begins `_INTERVAL` blocks lower, else one block lower.

The paper sets the threshold by hand for each model. Here it is the highest at which one way down removes as many blocks as are
asked for: it starts at 1 and is lowered to the best cosine that was refused. The last merge takes no more blocks than are still to go.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from replaceme_core.baselines.interface import Choice, Request, cut_of
from replaceme_core.baselines.passes import passes
from replaceme_core.errors import FamilyError
from replaceme_core.models.architecture.families import blocks_of
from replaceme_core.models.running.precision import exact
from replaceme_core.surgery import surgery

Merge = tuple[int, int]
"""(place of the block that is merged into among those still there, blocks merged into it)"""
_AT_ONCE = 3
"""m, the paper's C - 1"""
_INTERVAL = 2
_LOWEST = 1
_TOKENS = 4096
"""of the calibration set that the cosine is read from (the paper takes a few sentences)"""


def choose(request: Request) -> Choice:
    """The merges at the highest threshold that removes n blocks."""
    request.check(1 + _LOWEST)
    trials = Trials(request)
    threshold, merges = 1.0, tuple[Merge, ...]()
    while True:
        way = collapse(trials, merges, request.n_blocks, threshold)
        if sum(count for _, count in way.merges) == request.n_blocks:
            break
        if way.refused:
            threshold = max(way.refused)
        else:
            merges = way.merges  # everything was kept on the way down and it was not enough: once more from the top
    made = trials.made(way.merges)
    figures = {"threshold": threshold, "cosine": trials.cosine(way.merges), "merges": made.told, "trials": trials.count}
    return Choice(tuple(sorted(set(range(request.handle.n_blocks)) - set(made.kept))), made.weights, figures=figures)


@dataclass(frozen=True)
class Way:
    """One way down: what was merged, and the cosines that were refused."""

    merges: tuple[Merge, ...]
    refused: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Made:
    """A model after some merges."""

    kept: list[int]
    weights: dict[str, Tensor]
    """named as in `LinearTransform`"""
    told: list[dict[str, object]]


def collapse(trials: "Trials", merges: tuple[Merge, ...], n_blocks: int, threshold: float) -> Way:
    """From the top down, until `n_blocks` are gone in all or the lowest block is reached."""
    left = trials.n_blocks - sum(count for _, count in merges)
    place, refused = max(_LOWEST, left - 1 - _AT_ONCE), []
    while place >= _LOWEST and left > trials.n_blocks - n_blocks:
        count = min(_AT_ONCE, left - 1 - place, left - trials.n_blocks + n_blocks)
        cosine = trials.cosine((*merges, (place, count)))
        if cosine >= threshold:
            merges, left = (*merges, (place, count)), left - count
            place = min(place - _INTERVAL, left - 1 - _AT_ONCE)
        else:
            refused.append(cosine)
            place -= 1
    return Way(merges, tuple(refused))


class Trials:
    """Merged models, each tried once."""

    def __init__(self, request: Request) -> None:
        self._handle, self._progress = request.handle, request.progress
        self.n_blocks, self.count = request.handle.n_blocks, 0
        self._calibration = request.calibration.first(_TOKENS)
        self._intact = [batch.rows(-1) for batch in passes(self._handle, self._calibration, "the intact model", self._progress)]
        self._seen: dict[tuple[Merge, ...], float] = {}

    def cosine(self, merges: tuple[Merge, ...]) -> float:
        """Mean over tokens of the cosine of the stream after the last block to the intact model's."""
        if merges not in self._seen:
            made = self.made(merges)
            removed = cut_of([block for block in range(self.n_blocks) if block not in made.kept])
            with self._handle.borrow() as model:
                merged = surgery.applied(model, self._handle.family, removed, made.weights)
            self.count += 1
            total, count = 0.0, 0
            what = f"LaCo, trial {self.count}"
            runs = passes(self._handle, self._calibration, what, self._progress, merged)
            for batch, intact in zip(runs, self._intact, strict=True):
                total += float(torch.nn.functional.cosine_similarity(batch.rows(-1), intact, dim=-1).sum())
                count += len(intact)
            self._seen[merges] = total / count
        return self._seen[merges]

    def made(self, merges: tuple[Merge, ...]) -> Made:
        """What is left after the merges, in order."""
        with self._handle.borrow() as model:
            blocks = blocks_of(model, self._handle.family)
            now = {number: dict(block.named_parameters()) for number, block in enumerate(blocks)}
            _require_alike(blocks)
        kept, told = list(range(self.n_blocks)), list[dict[str, object]]()
        changed: set[int] = set()
        for place, count in merges:
            base, gone = kept[place], kept[place + 1 : place + 1 + count]
            now[base] = {name: merged(own, [now[number][name] for number in gone]) for name, own in now[base].items()}
            changed.add(base)
            del kept[place + 1 : place + 1 + count]
            told.append({"into": base, "blocks": gone})
        weights = {f"{number}.{name}": value.detach() for number in sorted(changed & set(kept)) for name, value in now[number].items()}
        return Made(kept, weights, told)


def merged(base: Tensor, others: list[Tensor]) -> nn.Parameter:
    """theta + sum_k (theta_k - theta), in fp64, in the dtype of the base."""
    total = exact(base)
    for other in others:
        total = total + (exact(other) - exact(base))
    return nn.Parameter(total.to(base), requires_grad=False)


def _require_alike(blocks: nn.ModuleList) -> None:
    shapes = [{name: parameter.shape for name, parameter in block.named_parameters()} for block in blocks]
    if any(shape != shapes[0] for shape in shapes):
        raise FamilyError(
            "LaCo adds the weights of blocks to one another, and the blocks of this model differ in shape; choose another method."
        )
