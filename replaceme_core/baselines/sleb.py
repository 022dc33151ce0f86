"""SLEB (arXiv 2402.09025, algorithm 1): greedily, the block goes whose removal leaves the least loss; never the first, never the last.

The loss is the mean negative log-likelihood of the calibration text, of about 8,192 tokens of it at most. A round of n tries L
candidates, which as full passes are n L^2 runs of a block. Here the stream in front of each candidate is carried along and only what
follows it is run again, and the stream behind block 0, which no candidate changes, is kept over all rounds: little more than half of
that, for the same numbers.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from replaceme_core.artifacts import Span
from replaceme_core.baselines.interface import Choice, Request
from replaceme_core.calibration.batches import batches, inputs_of
from replaceme_core.errors import NumericsError
from replaceme_core.models.architecture.families import blocks_of
from replaceme_core.models.running import capture
from replaceme_core.models.running.divergence import WAY_OUT
from replaceme_core.models.running.precision import exact
from replaceme_core.surgery import surgery

_POSITIONS, _TOKENS = 4096, 8192
_LOGITS = 2**26
"""numbers in one batch's logits at most"""


def choose(request: Request) -> Choice:
    """The n blocks that n greedy rounds remove, by the loss on the train part; the held-out loss is reported beside it."""
    request.check(2).require_text()
    search = Search(request)
    removed: list[int] = []
    rounds = []
    for number in range(request.n_blocks):
        losses, heldout = search.round(removed, f"SLEB, round {number + 1} of {request.n_blocks}")
        block = min(losses, key=lambda candidate: (losses[candidate], candidate))
        removed.append(block)
        rounds.append({"block": block, "train_loss": losses[block], "heldout_loss": heldout[block]})
    figures = {"rounds": rounds, "block_runs": search.runs, "block_runs_of_full_passes": search.full}
    return Choice(tuple(sorted(removed)), figures=figures)


@dataclass(eq=False)
class _Batch:
    ids: Tensor
    targets: Tensor
    """the next token, or -100 where there is none"""
    heldout: Tensor
    calls: list[capture.Call]
    behind_first: Tensor
    """the stream at boundary 1, which every candidate shares"""


class Search:
    """The calibration set with what every round reuses."""

    def __init__(self, request: Request) -> None:
        self.handle, self._progress = request.handle, request.progress
        self.runs, self.full = 0, 0
        """runs of a block per batch so far, and what full passes had needed"""
        calibration = request.calibration.first(_TOKENS)
        with self.handle.borrow() as model:
            most = min(_POSITIONS, max(*calibration.lengths, _LOGITS // model.get_input_embeddings().num_embeddings))
            self._end: Any = surgery.cut(model, self.handle.family, Span(1, self.handle.n_blocks)) if self.handle.n_blocks > 1 else model
        self._batches: list[_Batch] = []
        for batch in batches(calibration.lengths, most):
            ids, mask = inputs_of(calibration, batch)
            targets = torch.where(mask.bool(), ids, -100).roll(-1, 1)
            targets[:, -1] = -100
            with self.handle.borrow() as model:
                ids, mask = ids.to(model.device), mask.to(model.device)
                calls, found = capture.read_calls(model, self.handle.family, ids, mask, {1})
            heldout = torch.tensor([calibration.heldout[i] for i in batch])
            self._batches.append(_Batch(ids, targets, heldout, calls, found[1].cpu()))

    def round(self, removed: list[int], what: str) -> tuple[dict[int, float], dict[int, float]]:
        """Train and held-out loss after the removal of each candidate beside those that are gone."""
        kept = [block for block in range(self.handle.n_blocks) if block not in removed]
        sums = {block: torch.zeros(2, 2, dtype=torch.float64) for block in kept[1:-1]}
        for number, batch in enumerate(self._batches):
            with torch.no_grad(), self.handle.borrow() as model:
                blocks = blocks_of(model, self.handle.family)
                stream = batch.behind_first.to(batch.ids.device)
                for place, block in enumerate(kept[1:-1], start=1):
                    sums[block] += self._losses(batch, self._through(blocks, batch, kept[place + 1 :], stream))
                    stream = self._through(blocks, batch, [block], stream)
                    self._progress.update(number * len(sums) + place, len(self._batches) * len(sums), "tries", what)
            self.full += len(sums) * (len(kept) - 1)
        if not all(both.isfinite().all() for both in sums.values()):
            raise NumericsError(
                f"The loss without one of the blocks is not finite (NaN or infinity), so that no block can be chosen. {WAY_OUT}"
            )
        parts = [{block: float(both[part, 0] / both[part, 1]) for block, both in sums.items()} for part in (0, 1)]
        return parts[0], parts[1]

    def _through(self, blocks: Any, batch: _Batch, numbers: list[int], stream: Tensor) -> Tensor:
        for number in numbers:
            stream = batch.calls[number].run(blocks[number], stream)
            self.runs += 1
        return stream

    def _losses(self, batch: _Batch, stream: Tensor) -> Tensor:
        """[part, (sum of the loss, tokens)] of a stream after the last block, through the model's own norm and head."""
        with capture.handed_on(self._end, self.handle.family, stream.flatten(0, 1)):
            logits = self._end(input_ids=batch.ids, use_cache=False).logits
        targets = batch.targets.to(logits.device)
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), targets.flatten(), ignore_index=-100, reduction="none"
        ).view_as(targets)
        each = torch.stack([exact(loss).sum(1).cpu(), (batch.targets != -100).sum(1).double()], 1)
        return torch.stack([each[~batch.heldout].sum(0), each[batch.heldout].sum(0)])
