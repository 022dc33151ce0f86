"""Log-likelihoods of the requests of a task, for all models that are asked it: shared beginnings once, shared blocks once.

`prefix_tree` lays the requests out, `comparison.together` runs the blocks that models have in common once for all of them and asks their
heads for the scored positions alone. Whether a model may be run like that is tried, not looked up: of the first rows of every task some
requests are asked plainly as well, and a model whose answers differ by more than rounding (a state that runs through the text, a window
that a mask of our own hides, weights that are rounded by the batch) is asked in lm-eval's own batches instead.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from replaceme_core.artifacts import ModelHandle
from replaceme_core.comparison.next_token import logits_of
from replaceme_core.comparison.together import Ends, Together
from replaceme_core.errors import NumericsError, OutOfMemoryError, ReplaceMeError
from replaceme_core.evaluation.packed_rows import Keys, Packed, kept_keys
from replaceme_core.evaluation.prefix_tree import Request, Row, Stage, plan
from replaceme_core.progress import Progress

logger = logging.getLogger(__name__)
POSITIONS = 384
"""tokens of a row: enough for fast products of matrices, and few beside the width of a model, since attention grows with their square"""
ROWS = 16
"""rows of one pass on a device other than the CPU"""
NATS = 1e-3
"""by which the log-likelihood of a request may differ from a plain pass"""
_ROUNDINGS = 16
"""of the logits' precision by which that of each token may differ, where this is more"""
_PROBED = "The key is in the kitchen (7 + 5 = 12), isn't it?"
"""a text whose tokens tell tokenizers apart"""
Answer = tuple[float, bool]
"""log-likelihood in nats, and whether every token is the likeliest one"""


class _Other(Exception):
    """Models (by number) that do not answer as in a plain pass."""

    def __init__(self, numbers: set[int]) -> None:
        super().__init__(numbers)
        self.numbers = numbers


class Answers:
    """Models of one job, task after task. `most`: requests in one pass at most (None: as many as make it fast)."""

    def __init__(self, handles: Sequence[ModelHandle], most: int | None = None) -> None:
        self._handles, self._most = handles, most
        self._tokens = [handle.tokenizer(_PROBED)["input_ids"] for handle in handles]
        self._plain = {number for number, handle in enumerate(handles) if _carries_a_state(handle)}
        self._together: dict[tuple[int, ...], Together] = {}
        self.begin({})

    def begin(self, asked: Mapping[int, Progress]) -> None:
        """A new task for some of the models; what the last one's answers were is forgotten."""
        self._asked, self._waiting = dict(asked), set(asked)
        self._known: dict[int, dict[Request, Answer]] = {number: {} for number in asked}
        self._done = dict.fromkeys(asked, 0)

    def ask(self, number: int, requests: Sequence[Request], total: int) -> list[Answer] | None:
        """The answers of one model; those of all models that wait for this task are found on the way, and kept for when they ask.

        `total`: requests of the task, for the progress. None: this model is to be asked in lm-eval's own batches.
        """
        self._waiting.discard(number)
        known = self._known.setdefault(number, {})
        while number not in self._plain and (missing := list(dict.fromkeys(each for each in requests if each not in known))):
            group = (number, *sorted(self._waiting - self._plain))
            group = tuple(each for each in group if self._tokens[each] == self._tokens[number])
            self._answer(group, missing, total)
        return None if number in self._plain else [known[request] for request in requests]

    def _answer(self, group: tuple[int, ...], requests: list[Request], total: int) -> None:
        """Answers of a group of models; or it is found that some of them are to be asked otherwise."""
        before = {number: self._done[number] for number in group if number in self._done}

        def advance(n: int) -> None:
            for number in before:
                self._done[number] += n
                name = self._handles[number].name
                self._asked[number].update(min(self._done[number], total), total, "requests", f"benchmarks on {name}")

        try:
            found = self._run(group, requests, advance)
        except _Other as error:
            self._plain |= {group[place] for place in error.numbers}
        except OutOfMemoryError:  # lm-eval's batches are sized by the memory, and say what to do if one request is too much
            self._plain |= set(group)
        else:
            for number, answers in zip(group, found, strict=True):
                self._known.setdefault(number, {}).update(zip(requests, answers, strict=True))
            return
        self._done |= before
        names = ", ".join(self._handles[number].name for number in group if number in self._plain)
        logger.info("the benchmarks on %s are asked in lm-eval's own batches", names)

    def _run(self, group: tuple[int, ...], requests: list[Request], advance: Callable[[int], None]) -> list[list[Answer]]:
        if group not in self._together:
            text = torch.tensor(max(requests, key=lambda request: len(request.tokens)).tokens)
            self._together[group] = Together([self._handles[number] for number in group], text)
        together = self._together[group]
        if whole := {place for place, system in enumerate(together.systems) if system.beside is None}:
            raise _Other(whole)
        at_once = 1 if self._most or any(self._handles[number].device.startswith("cpu") for number in group) else ROWS
        run = _Run(together, requests, at_once, advance)
        run.walk(plan(requests, POSITIONS, self._most), None)
        return run.answers()


def _carries_a_state(handle: ModelHandle) -> bool:
    """A state is no cache: what one text leaves in it, the next one in the row would read."""
    with handle.borrow() as model:
        return bool(getattr(model, "_is_stateful", False))


@dataclass(eq=False)
class _Sums:
    """Of one model: per request the log-likelihood so far, and whether a token was not the likeliest one."""

    total: Tensor
    missed: Tensor


class _Run:
    """One plan on models that are run together."""

    def __init__(self, together: Together, requests: list[Request], at_once: int, advance: Callable[[int], None]) -> None:
        self._together, self._requests, self._at_once, self._advance = together, requests, at_once, advance
        n = len(requests)
        self._sums = [_Sums(torch.zeros(n, dtype=torch.float64), torch.zeros(n, dtype=torch.bool)) for _ in together.systems]
        self._tried: set[bool] = set()

    def walk(self, stage: Stage, past: list[Keys] | None) -> None:
        """Runs a stage and all behind it, the longest text first: what differs with the length shows at once."""
        if stage.row is not None:
            past = self._pass([stage.row], past, keep=True)
        rows = sorted(stage.rows, key=lambda row: -row.longest)
        units: list[Stage | list[Row]] = [rows[at : at + self._at_once] for at in range(0, len(rows), self._at_once)]
        for unit in sorted([*units, *stage.stages], key=lambda unit: -(unit.longest if isinstance(unit, Stage) else unit[0].longest)):
            if isinstance(unit, Stage):
                self.walk(unit, past)
            else:
                self._pass(unit, past)

    def answers(self) -> list[list[Answer]]:
        """By model, in the order of the requests."""
        return [
            [(total, not missed) for total, missed in zip(sums.total.tolist(), sums.missed.tolist(), strict=True)] for sums in self._sums
        ]

    def _pass(self, rows: list[Row], past: list[Keys] | None, keep: bool = False) -> list[Keys] | None:
        packed = Packed(rows, 0 if past is None else rows[0].base, keep)
        told = [packed.told(system.handle, past[place] if past else None) for place, system in enumerate(self._together.systems)]
        try:
            ends = self._together.read(packed.ids, told=told)
        except ReplaceMeError:
            raise
        except (
            Exception
        ) as error:  # of a model that takes no positions, no such mask or no cache: a plain pass says what is wrong, if it is
            logger.info("rows of several texts cannot be read (%s: %s)", type(error).__name__, error)
            raise _Other(set(range(len(told)))) from error
        for place in range(len(told)):
            self._score(place, ends, packed)
        if any(row.requests for row in rows):
            self._try(next(row for row in rows if row.requests), past is not None)
        self._advance(sum(len(row.requests) for row in rows))
        return [kept_keys(each["past_key_values"]) for each in told] if keep else None

    def _score(self, place: int, ends: Ends, packed: Packed) -> None:
        """Adds what the asked positions say of the tokens that follow them."""
        positions, of, following, requests = packed.asked
        sums, begin = self._sums[place], 0
        try:
            for part in ends.parts(positions):
                logits = ends.logits(place, part)
                here = (of >= begin) & (of < begin + len(part))
                rows, tokens = (of[here] - begin).to(logits.device), following[here].to(logits.device)
                sums.total.index_add_(0, requests[here], _as_lm_eval(logits)[rows, tokens].double().cpu())
                sums.missed[requests[here][(logits.argmax(-1)[rows] != tokens).cpu()]] = True
                begin += len(part)
        except NumericsError as error:  # this model's own error is raised when it is asked by itself
            raise _Other({place}) from error

    def _try(self, row: Row, cached: bool) -> None:
        """Asks the longest and the last request of a row plainly as well, once with a cache before the row and once without."""
        if cached in self._tried:
            return
        self._tried.add(cached)
        chosen = {max(row.requests, key=lambda number: len(self._requests[number].tokens)), row.requests[-1]}
        other = set()
        for place, system in enumerate(self._together.systems):
            if not all(_agrees(system.handle, self._requests[number], float(self._sums[place].total[number])) for number in chosen):
                other.add(place)
        if other:
            raise _Other(other)


def _as_lm_eval(logits: Tensor) -> Tensor:
    """The logarithm of the probabilities in the model's own precision, as lm-eval takes it: over 49,152 words in float32 on a CPU torch is
    1e-5 nats too high, the same for every way of asking."""
    return torch.nn.functional.log_softmax(logits, dim=-1)


def _agrees(handle: ModelHandle, request: Request, found: float) -> bool:
    """Whether a plain pass says the same of a request."""
    ids = torch.tensor(request.tokens)
    try:
        logits = logits_of(handle, ids, request.scored)
    except NumericsError:
        return False
    plain = _as_lm_eval(logits).gather(-1, ids[-request.scored :, None].to(logits.device)).double()
    rounding = _ROUNDINGS * torch.finfo(logits.dtype).eps * max(len(plain) ** 0.5, float(plain.norm()))
    return abs(float(plain.sum()) - found) <= max(NATS, float(rounding))


def request_of(context: Sequence[int], continuation: Sequence[int], longest: int) -> Request:
    """A request as lm-eval's own model reads it: cut on the left to what the model reads, and one token more."""
    return Request(tuple([*context, *continuation][-(longest + 1) :]), len(continuation))


def at_most(batch_size: Any) -> int | None:
    """The plan's `batch_size` as a bound; 'auto' is none."""
    return batch_size if isinstance(batch_size, int) else None
