"""The data that stages hand to one another. Read this file for the words; `pipeline.py` for the order.

**The one convention.** A model with L blocks has L+1 *boundaries*. Boundary i is the residual stream entering
block i (transformers' `hidden_states[i]`); boundary L leaves the last block, before the final norm. `Span(start, end)` removes the blocks
start ... end-1 (0-based, half-open) and joins boundary `start` to boundary `end`. The *transform* is merged into
the *carrier*, block start-1, so 1 <= start < end <= L.

Rows are tokens. H_b is the residual stream at boundary b, M the output of the carrier's *output projection* (the linear that
ends its MLP; `writer` in the code) as it is added to the stream, Y = H_start - M what the stream holds beside it, and the target of every
fit is Z = H_end - Y, so that M T + Y approximates H_end.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from replaceme_core.handle import ModelHandle
from replaceme_core.healing_report import HealingReport
from replaceme_core.span import Cut, Span

Positions = Literal["all", "last"]
Weighting = Literal["uniform", "end_norm"]


@dataclass(frozen=True, eq=False)
class DistanceMatrix:
    """Mean over positions of 1 - cos(H_start, H_end), for every pair of boundaries.

    `values[s, e]` is filled for s < e (0 on the diagonal, NaN below). `spread[s, e]` is the standard deviation over
    sequences of the sequence's own mean; divide by sqrt(n_sequences) for the standard error.
    """

    values: Float64[Tensor, "boundaries boundaries"]
    positions: Positions
    n_tokens: int
    n_sequences: int
    spread: Float64[Tensor, "boundaries boundaries"]
    metric: str = "cosine"
    """or what a criterion made of the same pass: 'path' (see spans), 'sinks_kept' (see sinks), 'missed' (see criteria)"""

    @property
    def n_blocks(self) -> int:
        return self.values.shape[0] - 1

    def at(self, span: Span) -> float:
        return float(self.values[span.start, span.end])

    def angular(self) -> Float64[Tensor, "boundaries boundaries"]:
        """arccos(1 - distance) / pi, the angular distance of arXiv 2403.17887 (of the mean cosine), in [0, 1]."""
        return torch.arccos((1 - self.values).clamp(-1, 1)) / torch.pi


@dataclass(frozen=True, eq=False)
class SpanMoments:
    """Weighted fp64 sums over tokens for one span: all that any quadratic fit of M T to Z needs. Additive."""

    gram: Float64[Tensor, "width width"]
    """sum w m m^T"""
    cross: Float64[Tensor, "width width"]
    """sum w m z^T"""
    energy: float
    """sum w |z|^2"""
    n_tokens: int

    def __add__(self, other: "SpanMoments") -> "SpanMoments":
        return SpanMoments(self.gram + other.gram, self.cross + other.cross, self.energy + other.energy, self.n_tokens + other.n_tokens)

    @property
    def width(self) -> int:
        return self.gram.shape[0]

    def error(self, matrix: Float64[Tensor, "width width"] | None) -> float:
        """sum w |m T - z|^2 / sum w |z|^2, the relative error that T leaves; None means T = I.

        A target of zeros is explained by nothing but zeros: the error is then 0 or infinite. That of a T that is NaN is NaN.
        """
        if matrix is None:
            residual = torch.trace(self.gram) - 2 * torch.trace(self.cross)
        else:
            residual = ((self.gram @ matrix - 2 * self.cross) * matrix).sum()
        return self.share_left(float(residual))

    def share_left(self, residual: float) -> float:
        """The relative error from tr(T' G T) - 2 tr(T' C) alone, for a gram G and a cross-Gram C; see `error`."""
        left = residual + self.energy
        left = 0.0 if left < 0 else left  # rounding; max(0, NaN) would be 0, the best there is
        if self.energy == 0:
            return 0.0 if left == 0 else float("inf")
        return left / self.energy


@dataclass(frozen=True, eq=False)
class FitMoments:
    """Moments of one span and one weighting on the two disjoint parts of the calibration set (split by sequence)."""

    train: SpanMoments
    heldout: SpanMoments


class Moments(Mapping[tuple[Span, Weighting], FitMoments]):
    """Moments by span and token weighting."""

    def of_many(self, spans: Sequence[Span], weighting: Weighting) -> Iterator[tuple[Span, FitMoments]]:
        """Those of many spans, in the order of the spans."""
        return ((span, self[span, weighting]) for span in sorted(spans))


@dataclass(frozen=True, eq=False)
class TokenSample:
    """A bounded sample of tokens: the residual stream and the output projections' results where the spans that are kept need them."""

    boundaries: Mapping[int, Tensor]
    """by boundary: [tokens, width], float32. What the pass did not store is an `InputError`"""
    writers: Mapping[int, Tensor]
    """by block: M [tokens, width], float32"""
    origin: Int64[Tensor, "tokens 2"] | None = None
    """where each token stands: its sequence in the calibration set and its place in that sequence"""

    @property
    def n_tokens(self) -> int:
        return len(next(iter(self.boundaries.values()))) if self.origin is None else len(self.origin)

    @property
    def width(self) -> int:
        return next(iter(self.boundaries.values())).shape[1]


@dataclass(frozen=True, eq=False)
class StreamLengths:
    """|H_b| of single tokens at every boundary, where a mean does not tell: one token a sequence may be a hundred times as long."""

    typical: Float64[Tensor, " boundaries"]
    """geometric mean over tokens, which a few long ones hardly move"""
    largest: Float64[Tensor, " boundaries"]
    first: Float64[Tensor, " boundaries"]
    """mean over the first tokens of the sequences, where the attention sink of most models is"""


@dataclass(frozen=True, eq=False)
class Measurement:
    """Everything one calibration pass leaves behind. What depends on the number of tokens is on the disk (`measurement.activation_store`)."""

    model_fingerprint: str
    calibration_name: str
    calibration_fingerprint: str
    distances: dict[Positions, DistanceMatrix]
    norms: Float64[Tensor, " boundaries"]
    """mean over tokens of |H_b|"""
    lengths: StreamLengths
    moments: Moments
    """of any span that can be fitted; computed when it is asked for (`measurement.stored`)"""
    sample: TokenSample
    """held-out tokens, for cosines"""
    train_sample: TokenSample
    """train tokens, for fits that look at single tokens"""
    n_tokens: int
    n_heldout_tokens: int
    padding_share: float
    """share of the computed positions that were padding (and were dropped)"""
    seconds: float
    store: Any = None
    """the `ActivationStore` that moments and samples are read from, where this process holds all of it"""
    lacking: str = ""
    """why nothing can be fitted from it, where the disk could not take the activations"""

    @property
    def n_blocks(self) -> int:
        return len(self.norms) - 1

    def spans(self) -> list[Span]:
        """The spans that can be fitted without touching the model again."""
        return sorted({span for span, _ in self.moments})


@dataclass(frozen=True)
class FitReport:
    """The evidence for one fit. Errors are relative errors of the target, under the fit's own token weights."""

    n_tokens: int
    n_heldout_tokens: int
    unknowns: int
    train_error: float
    heldout_error: float
    removal_error: float
    """held-out error where the blocks are removed without a transform (T = I), same tokens, same weights"""
    heldout_cosine: float
    """mean cos(M T + Y, H_end) over the held-out token sample"""
    removal_cosine: float
    """mean cos(H_start, H_end) over the same tokens"""
    condition: float
    """condition number of the (ridged) Gram matrix that was solved"""
    rank: int
    ridge: float
    """ridge relative to the mean eigenvalue of the Gram matrix"""
    seconds: float
    notes: tuple[str, ...] = ()
    """warnings in plain words, each with the knob to turn"""
    remarks: tuple[str, ...] = ()
    """what a refit left as it was, and why: no fault"""
    iterations: int | None = None
    """steps that an iterative method took; None for a closed form"""
    gradient: float | None = None
    """norm of the loss's gradient at the end, relative to that at T = I (with an l1 penalty: of its least subgradient)"""
    converged: bool | None = None


@dataclass(frozen=True)
class RefitStep:
    """One part of one block solved anew; errors are held-out, sum w |out - target|^2 / sum w |target|^2, w = 1/|target|, of gradient steps 1/|target|^2."""

    block: int
    """in the original model"""
    part: str
    ridge: float | None
    """relative to the mean eigenvalue of the features' Gram matrix; None for gradient steps"""
    before: float
    after: float
    condition: float | None = None
    """of the Gram matrix with that ridge"""
    own_neurons: int | None = None
    """how many are the block's own, where others were exchanged for those of removed blocks"""


@dataclass(frozen=True, eq=False)
class LinearTransform:
    """A fitted transform: the carrier's MLP output m becomes m @ matrix. A refit carries new weights in its place.

    Neither matrix nor weights: the blocks are removed, no transform.
    """

    span: Span
    method: str
    matrix: Float64[Tensor, "width width"] | None
    report: FitReport
    settings: dict[str, Any] = field(default_factory=dict)
    """the plan's method section that repeats the fit, as plain data"""
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    """new values of parameters, named 'block.path' by the block's number in the original model: '8.mlp.down_proj.weight'"""
    steps: tuple[RefitStep, ...] = ()
    """how a refit came about, in order"""
    lookaheads: Mapping[int, float] = field(default_factory=dict)
    """held-out error where the last span ends, for every lookahead that was tried"""
    others: tuple[Span, ...] = ()
    """further spans of the same cut, for a refit of several"""
    stand_ins: Mapping[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """(A, b) by removed block: in that block's place the stream x becomes x A + b, as a layer of its own (see patch)"""

    @classmethod
    def removal(cls, cut: Cut) -> "LinearTransform":
        """The blocks removed with nothing in their place. Nothing was fitted or measured, so that its report has 0 tokens and NaN for errors."""
        unknown = float("nan")
        report = FitReport(0, 0, 0, unknown, unknown, unknown, unknown, unknown, condition=1.0, rank=0, ridge=0.0, seconds=0.0)
        first, *others = cut.spans
        return cls(first, "drop", None, report, {"name": "drop"}, others=tuple(others))

    @property
    def cut(self) -> Cut:
        """All that is removed."""
        return Cut.of((self.span, *self.others))

    @property
    def solved(self) -> list[int]:
        """The blocks that a fit in sequence gave new weights, ascending; none for a matrix and for a removal."""
        return sorted({int(name.partition(".")[0]) for name in self.weights})


@dataclass(frozen=True)
class Proof:
    """One check that a pruned model is what it claims to be."""

    name: str
    passed: bool
    error: float
    tolerance: float
    detail: str


@dataclass(frozen=True, eq=False)
class Variant:
    """A named result: a pruned model that passed its checks, with how it was made and what it scored."""

    name: str
    handle: ModelHandle
    original_fingerprint: str
    transform: LinearTransform
    proofs: tuple[Proof, ...]
    recipe: dict[str, Any]
    """the run config: the plan that repeats it (see plan.py), as plain data"""
    scores: dict[str, Any] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    """sentences on what was asked for and could not be measured"""
    files: dict[str, bytes] = field(default_factory=dict)
    """by name: texts that the run config reads from beside itself, written with every export"""
    healing: HealingReport | None = None
    """of a variant that was trained after the cut; with kind 'lora' the transform is that of before the training"""
    distances: DistanceMatrix | None = None
    """of the original on the calibration set, for the picture in the model card"""
