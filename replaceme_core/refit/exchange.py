"""Neurons of the removed blocks in the place of a kept block's own: of all, those that the stream needs most, their writing rows solved anew.

A removed block reads nearly the same stream as the block before it, which is why it can go; its neurons, put there, compute much of what
it added. What its norm does otherwise goes into the rows that read: norm_j(z) = slope * norm(z) + offset, channel by channel. Nothing is
added and no shape changes.

    1. Of every removed block's neurons: how long is what each would write, at the stream of the kept block?
    2. The block's own and as many of the longest are put into one wide MLP, and its sums are made.
    3. From these the neurons that cost least to leave out go, until as many are left as before (refit/elimination.py).

The block keeps its own where that is no worse on held-out tokens, and where a neuron turns out not to be what it was taken for.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from replaceme_core.models.architecture.families import scale_of
from replaceme_core.models.running import capture
from replaceme_core.models.running.precision import exact
from replaceme_core.refit import report
from replaceme_core.refit.elimination import change, eliminate, ridge_for
from replaceme_core.refit.layers import linear
from replaceme_core.refit.neurons import Mlp, Neurons, NotExchanged
from replaceme_core.refit.streams import Streams, Targets
from replaceme_core.refit.sums import rows_of, token_weights
from replaceme_core.refit.update import has_signal

CANDIDATES = 2
"""times the block's own number of neurons: three times as many change the KL by less than one percent (benchmarks/LOG.md)"""
_EXACT = 1e-3
"""share by which two ways to the same numbers may differ in float32"""


@dataclass(frozen=True, eq=False)
class Exchange:
    """What a block is to have in the place of its own neurons."""

    mlp: Mlp
    neurons: Neurons
    """with their writing rows solved"""
    n_own: int
    """how many of them are the block's own"""
    ridge: float
    """that they were chosen and solved by"""
    before: float
    """held-out error of the block as it is"""
    after: float
    """and with these"""

    def put(self, block: nn.Module) -> None:
        self.mlp.put(block, self.neurons)


@dataclass(frozen=True, eq=False)
class _Place:
    """The block that is to have other neurons, and what it is to make of the pruned stream."""

    streams: Streams
    block: nn.Module
    number: int
    """in the original"""
    targets: Targets
    mlp: Mlp


def exchange(
    streams: Streams, block: nn.Module, number: int, donors: list[nn.Module], targets: Targets, tell: Callable[[str], None]
) -> Exchange:
    """The best neurons of a kept block and of `donors`, blocks of the original. Raises `NotExchanged`. `tell` hears what is done."""
    place = _Place(streams, block, number, targets, Mlp.of(block, streams.handle.family))
    norm = _norm_of(place)
    fitting = [_fitting(place, donor, norm) for donor in donors]
    own, wide = place.mlp.neurons(block), copy.deepcopy(block)
    candidates = _candidates(place, own, fitting, wide, tell)
    _require_same(place, wide, len(own))
    tell("choosing among both")
    with streams.handle.borrow() as model:
        scale = scale_of(model, streams.handle.family)
    train, heldout = report.sums(streams, wide, number, linear("writer", wide.get_submodule(place.mlp.writer), scale), targets)
    if not has_signal(train):
        raise NotExchanged("what goes into the layer that writes is zero or not finite")
    writing = exact(candidates.writing)
    ours = torch.arange(len(own), device=writing.device)
    ridge = ridge_for(len(writing), sum(int(batch.part(False).sum()) for batch in streams.batches))
    best = eliminate(train, writing, len(own), ridge)
    before = heldout.kept(ours, writing).error(None)
    changes = [change(train.kept(kept, writing), ridge) for kept in (ours, best)]
    misses = [heldout.kept(kept, writing).error(solved) for kept, solved in zip((ours, best), changes, strict=True)]
    if not misses[1] < min(before, misses[0]):
        raise NotExchanged(f"with them it misses {misses[0]:.2%} of what it is to hand on, with the best of all {misses[1]:.2%} (held-out)")
    chosen = replace(candidates.only(best), writing=(writing[best] + changes[1]).to(candidates.writing))
    return Exchange(place.mlp, chosen, int((best < len(own)).sum()), ridge, before, misses[1])


@dataclass(frozen=True, eq=False)
class _Norm:
    """The norm before the MLP, at the real tokens of the first batch."""

    path: str
    """in a block"""
    stream: Float[Tensor, "tokens width"]
    """what the kept block's reads"""
    own: Float[Tensor, "tokens width"]
    """what it makes of that"""


def _norm_of(place: _Place) -> _Norm:
    streams, batch = place.streams, place.streams.batches[0]
    reader = place.block.get_submodule(place.mlp.readers[0])
    found = capture.source_of(place.block, reader, lambda: streams.run(batch, place.block, place.number, batch.pruned))
    if found is None:
        raise NotExchanged("what its MLP reads comes from no layer of its own")
    path, stream = found[0], rows_of(batch.real, found[1])[0].float()
    return _Norm(path, stream, _normed(place.block, path, stream))


def _normed(block: nn.Module, path: str, stream: Float[Tensor, "tokens width"]) -> Float[Tensor, "tokens width"]:
    """What a block's norm makes of the stream, in float32 whatever its weights are held in."""
    with torch.no_grad():
        return exact(copy.deepcopy(block.get_submodule(path)).to(stream.device, torch.float32)(stream))


def _fitting(place: _Place, donor: nn.Module, norm: _Norm) -> Callable[[], Neurons]:
    """A way to a donor's neurons as they read what the block's own norm makes; they are not held all at once."""
    if Mlp.of(donor, place.streams.handle.family) != place.mlp:
        raise NotExchanged("the MLPs of the removed blocks are made otherwise")
    with place.streams.handle.borrow():  # others may have hooks on the original's blocks
        theirs = _normed(donor, norm.path, norm.stream)
    slope, offset = (each.to(norm.stream) for each in between(norm.own, theirs))
    return lambda: place.mlp.neurons(donor).behind(slope, offset)


def between(
    own: Float[Tensor, "tokens width"], theirs: Float[Tensor, "tokens width"]
) -> tuple[Float[Tensor, " width"], Float[Tensor, " width"]]:
    """theirs = slope * own + offset, channel by channel; `NotExchanged` where that does not hold. An offset that is rounding is 0."""
    middle, other = own.mean(0), theirs.mean(0)
    spread = (own - middle).square().sum(0)
    slope = ((own - middle) * (theirs - other)).sum(0) / spread.clamp_min(torch.finfo(spread.dtype).tiny)
    offset = other - slope * middle
    offset[offset.abs() <= _EXACT * theirs.square().mean(0).sqrt()] = 0
    if not (slope * own + offset - theirs).norm() <= _EXACT * theirs.norm():
        raise NotExchanged("the norms of the removed blocks are no multiple of its own")
    return slope, offset


def _candidates(place: _Place, own: Neurons, fitting: list[Callable[[], Neurons]], wide: nn.Module, tell: Callable[[str], None]) -> Neurons:
    """The block's own and the strongest of the others, put into the copy `wide`: by the root mean square of what each would write."""
    lengths = []
    for number, neurons in enumerate(fitting, start=1):
        tell(f"neurons of removed block {number} of {len(fitting)}")
        offered = neurons()
        place.mlp.put(wide, offered)
        said = torch.zeros(len(offered), dtype=torch.float64)
        for features, goal in _features(place, wide):
            said += (token_weights(goal) @ exact(features).square()).cpu()
        lengths.append(said * exact(offered.writing).square().sum(1).cpu())
    n_more = min((CANDIDATES - 1) * len(own), sum(map(len, lengths)))
    chosen = torch.cat(lengths).topk(n_more).indices.sort().values
    for neurons, of_one in zip(fitting, lengths, strict=True):
        own = own.beside(neurons().only(chosen[(chosen >= 0) & (chosen < len(of_one))]))
        chosen = chosen - len(of_one)
    place.mlp.put(wide, own)
    return own


def _features(place: _Place, block: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    """What goes into the layer that writes, and the target in fp64, for the train tokens of every batch."""
    with torch.no_grad(), capture.seen(block.get_submodule(place.mlp.writer), "input") as seen:
        for batch in place.streams.batches:
            seen.clear()
            place.streams.run(batch, block, place.number, batch.pruned)
            features, goal = rows_of(batch.part(False), seen[-1], place.targets(batch).to(seen[-1].device))
            yield features, exact(goal)


def _require_same(place: _Place, wide: nn.Module, n_own: int) -> None:
    """The wide MLP says of the block's own neurons what the block says of them: a neuron is what it was taken for."""
    batch, said = place.streams.batches[0], []
    for each in (place.block, wide):
        with torch.no_grad(), capture.seen(each.get_submodule(place.mlp.writer), "input") as seen:
            place.streams.run(batch, each, place.number, batch.pruned)
            said.append(rows_of(batch.real, seen[-1])[0][:, :n_own])
    allowed = max(_EXACT, 4 * torch.finfo(said[0].dtype).eps)
    own, again = map(exact, said)
    if not (own - again).norm() <= allowed * own.norm():
        raise NotExchanged("its neurons do not act one by one")
