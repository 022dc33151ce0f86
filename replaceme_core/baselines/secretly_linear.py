"""Your Transformer is Secretly Linear (arXiv 2405.12250): how linear each block is, and the most linear ones replaced by their matrix.

The score of block i (section 3.1) is 1 - min_A |X A - Y|^2 / |Y|^2, with X the stream before and Y the stream behind it over all
tokens, both centred; dividing by |Y|^2 is the paper's normalisation. 1 is exactly linear. Most of a stream is what it was before,
so the score of the block's own part, Y - X, stands beside it: 1 - (the same rest) / |Y - X|^2.

A and b are least squares on the train part. They are solved for Y - X, so that the ridge, chosen by held-out error (0 among the
candidates, which is the paper's), pulls A to the identity. A block that is replaced becomes a layer of its own, d^2 + d
parameters: no plain model folder holds it, so the result stays in memory.
"""

from dataclasses import dataclass, field
from math import inf, isnan

import torch
from jaxtyping import Float64
from torch import Tensor

from replaceme_core import memory
from replaceme_core.artifacts import ModelHandle, SpanMoments
from replaceme_core.baselines.interface import Choice, Request
from replaceme_core.baselines.passes import passes
from replaceme_core.calibration.calibration import CalibrationSet
from replaceme_core.progress import SILENT, Progress
from replaceme_core.solvers.spectrum import RIDGES, decompose

_SCARCE = 10
_NOTHING = 1e-20
"""share of the stream's spread below which a block's own part is a constant, which is linear"""


@dataclass(frozen=True, eq=False)
class BlockFit:
    """The best linear map in the place of one block."""

    block: int
    slope: Float64[Tensor, "width width"]
    """A, acting on rows"""
    offset: Float64[Tensor, " width"]
    train_score: float
    heldout_score: float
    heldout_own_score: float
    """of the block's own part, Y - X: what is left when the stream that passes by is not counted"""
    ridge: float
    """relative to the mean eigenvalue of the Gram matrix"""
    n_tokens: int
    n_heldout_tokens: int


def choose(request: Request) -> Choice:
    """The n blocks of highest held-out score, each replaced by its matrix. Block 0 stays."""
    request.check(1)
    found = fits(request.handle, request.calibration, request.progress)
    chosen = sorted(found[1:], key=lambda fit: (-fit.heldout_score, fit.block))[: request.n_blocks]
    figures = {"train_score": [fit.train_score for fit in found], "heldout_score": [fit.heldout_score for fit in found]}
    figures |= {"own_score": [fit.heldout_own_score for fit in found], "ridge": [fit.ridge for fit in found]}
    notes = ["Each replaced block is a layer of its own, which no plain model folder holds: the result stays in memory."]
    if found[0].n_tokens < _SCARCE * request.handle.width:
        notes.append(
            f"Only {found[0].n_tokens:,} tokens for a width of {request.handle.width}: use {_SCARCE * request.handle.width:,} or more."
        )
    stand_ins = {fit.block: (fit.slope, fit.offset) for fit in chosen}
    return Choice(tuple(sorted(stand_ins)), stand_ins=stand_ins, figures=figures, notes=tuple(notes))


def fits(handle: ModelHandle, calibration: CalibrationSet, progress: Progress = SILENT, budget_bytes: int | None = None) -> list[BlockFit]:
    """Every block's best linear map and its scores; as many passes as the memory needs (one for small models), half of what is free if unsaid."""
    at_once = max(1, (memory.spare() if budget_bytes is None else budget_bytes) // (4 * 8 * handle.width**2))
    found = []
    with memory.told("for the linearity of the blocks", "fewer tokens"):
        for begin in range(0, handle.n_blocks, at_once):
            blocks = range(begin, min(begin + at_once, handle.n_blocks))
            sums = {block: (BlockSums.zeros(handle.width), BlockSums.zeros(handle.width)) for block in blocks}
            for batch in passes(handle, calibration, "linearity of the blocks", progress):
                for block in blocks:
                    for part in (False, True):
                        sums[block][part].add(batch.rows(block, part), batch.rows(block + 1, part))
            found += [fit(block, *sums[block]) for block in blocks]
    return found


@dataclass(eq=False)
class BlockSums:
    """fp64 sums of X and U = Y - X over the tokens of one part."""

    gram: Float64[Tensor, "width width"]
    cross: Float64[Tensor, "width width"]
    before: Float64[Tensor, " width"]
    own: Float64[Tensor, " width"]
    own_energy: float = 0.0
    energy: float = field(default=0.0)
    """sum |y|^2"""
    n_tokens: int = 0

    @classmethod
    def zeros(cls, width: int) -> "BlockSums":
        square, row = torch.zeros(2, width, width, dtype=torch.float64), torch.zeros(2, width, dtype=torch.float64)
        return cls(square[0], square[1], row[0], row[1])

    def add(self, before: Float64[Tensor, "tokens width"], behind: Float64[Tensor, "tokens width"]) -> None:
        own = behind - before
        self.gram.addmm_(before.T, before)
        self.cross.addmm_(before.T, own)
        self.before += before.sum(0)
        self.own += own.sum(0)
        self.own_energy += float(own.square().sum())
        self.energy += float(behind.square().sum())
        self.n_tokens += len(before)

    def about(self, x: Float64[Tensor, " width"], u: Float64[Tensor, " width"]) -> SpanMoments:
        """The sums of X - x and U - u."""
        n = self.n_tokens
        gram = self.gram - torch.outer(self.before, x) - torch.outer(x, self.before) + n * torch.outer(x, x)
        cross = self.cross - torch.outer(self.before, u) - torch.outer(x, self.own) + n * torch.outer(x, u)
        return SpanMoments(gram, cross, self.own_energy - 2 * float(self.own @ u) + n * float(u @ u), n)

    def spread(self) -> tuple[float, float]:
        """sum |y - mean|^2, sum |u - mean|^2."""
        n = max(1, self.n_tokens)
        mean = (self.before + self.own) / n
        return self.energy - n * float(mean @ mean), self.own_energy - float(self.own @ self.own) / n


def fit(block: int, train: BlockSums, heldout: BlockSums) -> BlockFit:
    """A and b by least squares on the train part, the ridge by the held-out part."""
    x, u = train.before / max(1, train.n_tokens), train.own / max(1, train.n_tokens)
    own, other = train.about(x, u), heldout.about(x, u)
    spectrum = decompose(own.gram, own.cross)
    tried = [(ridge, spectrum.solve(ridge)) for ridge in (0.0, *RIDGES)]
    ridge, change = min(tried, key=lambda pair: _rest(other, pair[1]))
    spread, spread_own = heldout.spread()
    return BlockFit(
        block=block,
        slope=torch.eye(len(x), dtype=torch.float64) + change,
        offset=u - x @ change,
        train_score=1 - _rest(own, change) / train.spread()[0],
        heldout_score=1 - _rest(other, change) / spread,
        heldout_own_score=1 - _rest(other, change) / spread_own if spread_own > _NOTHING * spread else 1.0,
        ridge=ridge,
        n_tokens=train.n_tokens,
        n_heldout_tokens=heldout.n_tokens,
    )


def _rest(moments: SpanMoments, change: Float64[Tensor, "width width"]) -> float:
    """sum |x B - u|^2."""
    left = float(((moments.gram @ change - 2 * moments.cross) * change).sum()) + moments.energy
    return inf if isnan(left) else max(0.0, left)
