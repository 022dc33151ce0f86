"""Passes that go on from a stream: the blocks before it compute nothing. Hooks as in `capture`: the model is borrowed, and none stays.

What `read_outputs` found of a model is enough to go on from any of its boundaries, or to ask its end alone.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from replaceme_core.models.architecture import modality
from replaceme_core.models.architecture.families import blocks_of
from replaceme_core.models.architecture.family import Family
from replaceme_core.models.running.capture import Enough, first


@dataclass(frozen=True, eq=False)
class Start:
    """Where a pass goes on: the stream at a boundary. What is before it is not computed."""

    boundary: int
    stream: Float[Tensor, "batch length width"]


Beside = Sequence[tuple[Any, ...] | None]
"""what each block hands on beside the stream; None: the stream alone"""


def read_outputs(model: Any, family: Family, ids: Tensor) -> tuple[Tensor, list[Tensor], Beside]:
    """One pass of a language model with its head: its logits, the stream at every boundary, and what the blocks hand on beside it.

    Of the last, tensors are left out: they are of this very text (attention weights, which a model gathers if it is asked to).
    """
    streams: list[Tensor] = []
    beside: list[tuple[Any, ...] | None] = []

    def on_enter(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        streams.append((args[0] if args else kwargs["hidden_states"]).clone())

    def on_leave(_module: nn.Module, _args: Any, output: Any) -> None:
        beside.append(tuple(None if isinstance(each, Tensor) else each for each in output[1:]) if isinstance(output, tuple) else None)
        if len(beside) == len(blocks):
            streams.append(first(output).clone())

    blocks = blocks_of(model, family)
    with ExitStack() as hooks, torch.no_grad():
        for block in blocks:
            hooks.callback(block.register_forward_pre_hook(on_enter, with_kwargs=True).remove)
            hooks.callback(block.register_forward_hook(on_leave).remove)
        logits: Tensor = model(input_ids=ids, use_cache=False).logits
    return logits, streams, beside


def read_streams(
    model: Any,
    family: Family,
    inputs: Tensor,
    mask: Tensor | None,
    boundaries: Collection[int],
    start: Start | None,
    beside: Beside,
    told: Mapping[str, Any] | None = None,
) -> dict[int, Float[Tensor, "batch length width"]]:
    """The stream at some boundaries behind `start` (or at it) in a pass that is `resumed` there. Inputs as in `read_states`.

    `told`: more arguments of a language model's forward pass (positions, a mask of its own, a cache).
    """
    blocks = blocks_of(model, family)
    begin = start.boundary if start else 0
    found = {begin: start.stream} if start and begin in boundaries else {}

    def on_leave(number: int, _module: nn.Module, _args: Any, output: Any) -> None:
        if number + 1 in boundaries:
            found[number + 1] = first(output).clone()
        if number + 1 >= max(boundaries):
            raise Enough

    if max(boundaries) > begin:
        with ExitStack() as hooks, torch.no_grad(), suppress(Enough):
            hooks.enter_context(resumed(model, family, start, beside))
            for number in range(begin, len(blocks)):
                hooks.callback(blocks[number].register_forward_hook(partial(on_leave, number)).remove)
            modality.of(family).run(model, family, inputs, mask, **(told or {}))
    return found


def read_before_head(
    model: Any, family: Family, streams: Float[Tensor, "positions width"], beside: Beside
) -> Float[Tensor, "positions inner"]:
    """What a language model's head reads of streams behind the last block, each in a sequence of one token."""
    found: list[Tensor] = []

    def on_enter(_module: nn.Module, args: tuple[Any, ...]) -> None:
        found.append(args[0])
        raise Enough

    start = Start(len(blocks_of(model, family)), streams.unsqueeze(1))
    any_token = torch.ones(len(streams), 1, dtype=torch.long, device=model.device)
    with ExitStack() as hooks, torch.no_grad(), suppress(Enough):
        hooks.enter_context(resumed(model, family, start, beside))
        hooks.callback(model.get_output_embeddings().register_forward_pre_hook(on_enter).remove)
        model(input_ids=any_token, use_cache=False)
    return found[0][:, 0]


@contextmanager
def resumed(model: Any, family: Family, start: Start | None, beside: Beside) -> Iterator[None]:
    """Within this block the blocks before `start` compute nothing, and the pass goes on from its stream (None: from the beginning).

    Embedding, masks and positions are the model's own, as is all that follows; `beside` is what `read_outputs` found.
    """

    skipped = blocks_of(model, family)[: start.boundary if start else 0]

    def skip(number: int, *args: Any, **options: Any) -> Any:
        stream, rest = args[0] if args else options["hidden_states"], beside[number]
        if start and number == len(skipped) - 1:
            stream = start.stream.to(stream, copy=True)
        return stream if rest is None else (stream, *rest)

    with ExitStack() as after:
        for number, block in enumerate(skipped):
            after.callback(_restore, block, vars(block).get("forward"))
            block.forward = partial(skip, number)
        yield


def _restore(block: nn.Module, forward: Callable[..., Any] | None) -> None:
    """A block's own `forward` again: that of its class, or what somebody had put in its place."""
    del block.forward
    if forward is not None:
        block.forward = forward
