"""The only file with hooks. Reads the residual stream and the writers; runs a transform without surgery.

Every hook lives inside one call and is removed when the call ends, however it ends. Callers borrow the model first
(`ModelHandle.borrow`): two threads that hook one model would read each other's captures.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from replaceme_core.artifacts import Span
from replaceme_core.families import Family, blocks_of, writer_of


@dataclass(frozen=True, eq=False)
class States:
    """What one forward pass left at the points of measurement, in the model's dtype, on its device."""

    boundaries: tuple[Float[Tensor, "batch length width"], ...]
    """the residual stream at boundary 0 ... stop"""
    writers: tuple[Float[Tensor, "batch length width"], ...]
    """the output of each block's writer, block 0 ... stop-1"""


class _Enough(Exception):
    """Raised inside the last block needed, to skip what follows it."""


def read_states(
    model: Any, family: Family, ids: Int[Tensor, "batch length"], mask: Int[Tensor, "batch length"], stop: int | None = None
) -> States:
    """One forward pass of the base model (no LM head), ended after block stop-1; `stop` None reads every boundary."""
    blocks = blocks_of(model, family)
    stop = len(blocks) if stop is None else stop
    boundaries: list[Tensor] = []
    writers: list[Tensor] = []

    def on_enter(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        boundaries.append((args[0] if args else kwargs["hidden_states"]).clone())

    def on_write(_module: nn.Module, _args: Any, output: Tensor) -> None:
        writers.append(output.clone())

    def on_leave(_module: nn.Module, _args: Any, output: Any) -> None:
        boundaries.append(_first(output).clone())
        raise _Enough

    with ExitStack() as hooks, torch.no_grad():
        for block in blocks[:stop]:
            hooks.callback(block.register_forward_pre_hook(on_enter, with_kwargs=True).remove)
            hooks.callback(writer_of(block, family).register_forward_hook(on_write).remove)
        hooks.callback(blocks[stop - 1].register_forward_hook(on_leave).remove)
        with suppress(_Enough):
            model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
    return States(tuple(boundaries), tuple(writers))


@contextmanager
def simulated(model: Any, family: Family, span: Span, matrix: Float[Tensor, "width width"] | None) -> Iterator[None]:
    """Within this block the *unchanged* model computes what the pruned one should: the second route of the merge proof.

    The writer of the carrier has its output multiplied by `matrix`, and every block of the span hands on its input.
    """
    blocks = blocks_of(model, family)

    def transform(_module: nn.Module, _args: Any, output: Tensor) -> Tensor | None:
        return None if matrix is None else (output.double() @ matrix.to(output.device)).to(output.dtype)

    def skip(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        entering = args[0] if args else kwargs["hidden_states"]
        return (entering, *output[1:]) if isinstance(output, tuple) else entering

    with ExitStack() as hooks:
        hooks.callback(writer_of(blocks[span.carrier], family).register_forward_hook(transform).remove)
        for index in span.blocks:
            hooks.callback(blocks[index].register_forward_hook(skip, with_kwargs=True).remove)
        yield


def _first(output: Any) -> Tensor:
    """The hidden states of a block's output, which is a tensor or a tuple that starts with it."""
    tensor = output[0] if isinstance(output, tuple) else output
    assert isinstance(tensor, Tensor)
    return tensor
