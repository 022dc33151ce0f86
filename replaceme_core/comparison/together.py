"""Several models on one text: what they share is run once, and their heads are asked for a few positions at a time.

A model goes on from the stream of the one it shares the most blocks with; its masks, positions, norm and head are always its own. The
head reads each position by itself, so that no table of tokens x vocabulary is made. Both are tried on a few tokens against a plain pass
first; a model for which they do not give the same is run whole.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from replaceme_core import memory
from replaceme_core.artifacts import ModelHandle
from replaceme_core.comparison.next_token import SHORTER
from replaceme_core.models.running import resume
from replaceme_core.models.running.beginnings import Layout, layout, shared_blocks
from replaceme_core.models.running.divergence import require_finite
from replaceme_core.models.running.slices import Side

_TRIED = 8
"""tokens that both ways are tried on"""
_ROUNDINGS = 16
"""of the model's precision by which the two ways may differ, relative (Frobenius)"""
_NUMBERS = 6 * 2**20
"""of one table of logits: 24 MiB in float32, as many positions at 49,152 words as a matrix product needs to be fast"""


@dataclass(eq=False)
class _System:
    """One model, and how it is run."""

    handle: ModelHandle
    beside: resume.Beside | None = None
    """None: the model is run whole"""
    layout: Layout | None = None
    linear: bool = False
    """whether its logits are what its head makes of its input, and nothing more (no scale, no soft cap)"""
    parent: int = -1
    """the model whose stream it takes"""
    shared: int = 0
    """blocks that are the parent's"""
    wanted: set[int] = field(default_factory=set)
    """boundaries at which its stream is read, the last one among them"""


class Together:
    """Models that share a vocabulary. `ids` are any text: its first tokens are what the two ways are tried on.

    `size`: only so many words, which all models have.
    """

    def __init__(self, handles: Sequence[ModelHandle], ids: Int64[Tensor, " length"], size: int | None = None) -> None:
        self._size = size
        self.systems = [_System(handle) for handle in handles]
        tried, streams = ids[:_TRIED].unsqueeze(0), list[list[Tensor]]()
        with memory.told(f"to compare the next-token probabilities of {len(handles)} model(s)", SHORTER):
            for number, system in enumerate(self.systems):
                logits, own = _try_end(system, tried)
                streams.append(own)
                if system.beside is not None:
                    self._share(number, tried, logits, streams)
        for system in self.systems:
            system.wanted.add(system.handle.n_blocks)
            if system.shared:
                self.systems[system.parent].wanted.add(system.shared)

    @property
    def whole(self) -> bool:
        """Whether a model is run whole, so that its logits of all positions are in memory at once: give it one sequence at a time."""
        return any(system.beside is None for system in self.systems)

    @property
    def shared(self) -> list[int]:
        """Blocks of each model that another one computes for it."""
        return [system.shared for system in self.systems]

    def read(
        self, ids: Int64[Tensor, "batch length"], mask: Tensor | None = None, told: Sequence[Mapping[str, Any]] | None = None
    ) -> "Ends":
        """All models on one batch, up to their heads. `told`: more arguments of each model's pass; then none may be run whole."""
        found: list[dict[int, Tensor]] = []
        with memory.told(f"to compare the next-token probabilities of {ids.numel():,} tokens", SHORTER):
            for number, system in enumerate(self.systems):
                start = resume.Start(system.shared, found[system.parent][system.shared]) if system.shared else None
                found.append({} if system.beside is None else _streams(system, ids, mask, start, told[number] if told else None))
        return Ends(
            self.systems, self._size, ids, mask, [own.get(system.handle.n_blocks) for system, own in zip(self.systems, found, strict=True)]
        )

    def ends(
        self, ids: Int64[Tensor, "batch length"], mask: Tensor | None, streams: Sequence[Float[Tensor, "batch length width"]]
    ) -> "Ends":
        """The first model, with each of these streams behind its last block in turn. It must be one whose end is asked alone."""
        return Ends([self.systems[0]] * len(streams), self._size, ids, mask, list(streams))

    def _share(self, number: int, ids: Tensor, logits: Tensor, streams: list[list[Tensor]]) -> None:
        """Finds the earlier model with the most blocks in common, and tries to go on from its stream."""
        system = self.systems[number]
        for parent, other in enumerate(self.systems[:number]):
            shared = shared_blocks(system.layout, other.layout) if system.layout and other.layout else 0
            if shared > system.shared:
                system.parent, system.shared = parent, shared
        if system.shared:
            start = resume.Start(system.shared, streams[system.parent][system.shared])
            with system.handle.borrow() as model, torch.no_grad(), resume.resumed(model, system.handle.family, start, system.beside or []):
                if not agree(logits, model(input_ids=ids.to(model.device), use_cache=False).logits):
                    system.parent, system.shared = -1, 0


class Ends:
    """Where the models stand behind their last block, for one batch."""

    def __init__(self, systems: list[_System], size: int | None, ids: Tensor, mask: Tensor | None, ends: list[Tensor | None]) -> None:
        self._systems, self._size, self._ids, self._mask = systems, size, ids, mask
        self._ends = [None if end is None else end.flatten(0, 1) for end in ends]
        self._whole = any(end is None for end in ends)

    def parts(self, positions: Int64[Tensor, " positions"]) -> Sequence[Int64[Tensor, " some"]]:
        """Positions of which two models' logits can be in memory at once, part by part; a model that is run whole is run for each part."""
        with self._systems[0].handle.borrow() as model:
            vocabulary = model.get_output_embeddings().weight.shape[0] if not self._whole else 1
        found: tuple[Tensor, ...] = positions.split(len(positions) if self._whole else max(1, _NUMBERS // vocabulary))
        return found

    def sides(self, positions: Int64[Tensor, " positions"]) -> list[Side] | None:
        """All models before their heads, to be compared slice by slice of the vocabulary; None where a head is more than a matrix, or
        where they are on different devices or in different precision."""
        if (
            not all(system.linear for system in self._systems)
            or len({(end.device, end.dtype) for end in self._ends if end is not None}) > 1
        ):
            return None
        with memory.told(f"to compare the next-token probabilities of {len(positions):,} tokens", SHORTER):
            found = [
                _side(system, end, positions, self._size) for system, end in zip(self._systems, self._ends, strict=True) if end is not None
            ]
        return found if len({side.n_words for side in found}) == 1 else None

    def logits(self, number: int, positions: Int64[Tensor, " positions"]) -> Float[Tensor, "positions vocabulary"]:
        """What one model says after some positions (numbers in the batch's flat order), in its precision: a table of the caller's own.

        Raises `NumericsError` where that is not finite.
        """
        system, end = self._systems[number], self._ends[number]
        with memory.told(f"to compare the next-token probabilities of {len(positions):,} tokens", SHORTER):
            if end is None or system.beside is None:
                found = _whole(system.handle, self._ids, self._mask).flatten(0, 1)
                found = found[positions.to(found.device)]
            else:
                found = answers(system.handle, end[positions.to(end.device)], system.beside)
            if len(found):
                require_finite(found, system.handle.name)
        return found[:, : self._size]


def answers(handle: ModelHandle, streams: Float[Tensor, "positions width"], beside: resume.Beside) -> Float[Tensor, "positions vocabulary"]:
    """The logits that a model's own end (norm, head, scale, soft cap) makes of streams; `beside` is what `resume.read_outputs` found.

    An end treats every position by itself: each stream stands for a sequence of one token.
    """
    with handle.borrow() as model, torch.no_grad():
        any_token = torch.ones(len(streams), 1, dtype=torch.long, device=model.device)
        with resume.resumed(model, handle.family, resume.Start(handle.n_blocks, streams.unsqueeze(1)), beside):
            logits: Tensor = model(input_ids=any_token, use_cache=False).logits[:, 0]
    return logits


def _side(system: _System, end: Tensor, positions: Tensor, size: int | None) -> Side:
    with system.handle.borrow() as model:
        head = model.get_output_embeddings()
        states = resume.read_before_head(model, system.handle.family, end[positions.to(end.device)], system.beside or [])
        return Side(states, head.weight.detach()[:size], None if head.bias is None else head.bias.detach()[:size])


def _streams(
    system: _System, ids: Tensor, mask: Tensor | None, start: resume.Start | None, told: Mapping[str, Any] | None
) -> dict[int, Tensor]:
    with system.handle.borrow() as model:
        here, there = ids.to(model.device), None if mask is None else mask.to(model.device)
        return resume.read_streams(model, system.handle.family, here, there, system.wanted, start, system.beside or [], told)


def _whole(handle: ModelHandle, ids: Tensor, mask: Tensor | None) -> Tensor:
    with handle.borrow() as model, torch.no_grad():
        logits: Tensor = model(
            input_ids=ids.to(model.device), attention_mask=None if mask is None else mask.to(model.device), use_cache=False
        ).logits
    return logits


def _try_end(system: _System, ids: Tensor) -> tuple[Tensor, list[Tensor]]:
    """A plain pass over a few tokens, and whether the end alone says the same. The logits, and the stream at every boundary."""
    handle = system.handle
    if not handle.family.blocks or handle.family.inputs != "text":
        return torch.empty(0), []
    with handle.borrow() as model:
        logits, streams, beside = resume.read_outputs(model, handle.family, ids.to(model.device))
        with suppress(AttributeError, TypeError, RuntimeError):  # of a model that reads what its blocks hand on beside the stream
            if agree(logits[0], answers(handle, streams[-1][0], beside)):
                system.beside, system.layout = beside, layout(model, handle.family)
                system.linear = _is_linear(model, handle, streams[-1][0], beside, logits[0])
    return logits, streams


def _is_linear(model: Any, handle: ModelHandle, streams: Tensor, beside: resume.Beside, logits: Tensor) -> bool:
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear or head.weight.is_meta:  # torch multiplies by an offloaded weight without an error, and returns anything
        return False
    states = resume.read_before_head(model, handle.family, streams, beside)
    return agree(logits, nn.functional.linear(states, head.weight, head.bias))


def agree(plain: Tensor, other: Tensor) -> bool:
    """Whether two ways to one table of logits differ by rounding only. A model that is broken is so in both ways."""
    if plain.shape != other.shape or not torch.equal(plain.isfinite(), other.isfinite()):
        return False
    ours, theirs = (table.double().nan_to_num(0, 0, 0) for table in (plain, other))
    return bool((ours - theirs).norm() <= _ROUNDINGS * torch.finfo(plain.dtype).eps * ours.norm())
