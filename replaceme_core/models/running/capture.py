"""Hooks: with `resume`, the only file that registers any. Reads the residual stream and the writers; runs a transform without surgery.

Every hook lives inside one call and is removed when the call ends, however it ends. Callers borrow the model first
(`ModelHandle.borrow`): two threads that hook one model would read each other's captures.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from replaceme_core.artifacts import Cut, Span
from replaceme_core.errors import FamilyError, ModelError
from replaceme_core.models.architecture import modality
from replaceme_core.models.architecture.families import blocks_of, scale_of, written_of
from replaceme_core.models.architecture.family import Family
from replaceme_core.models.running.precision import exact, exact_device

_REGISTRIES = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
"""where torch keeps the hooks of a module that see its passes"""
_INERT = "transformers.utils.output_capturing"
"""whose hooks fill a collector of the calling thread, which only a pass that asks for hidden states has"""
Side = Literal["input", "output"]
"""of a module"""


@dataclass(frozen=True, eq=False)
class States:
    """What one forward pass left at the points of measurement, in the model's dtype, on its device."""

    boundaries: tuple[Float[Tensor, "batch length width"], ...]
    """the residual stream at boundary 0 ... stop"""
    writers: dict[int, Float[Tensor, "batch length width"]]
    """M of the blocks asked for as it is added to the stream, by block"""


class Enough(Exception):
    """Raised inside the last block needed, to skip what follows it."""


def read_states(
    model: Any,
    family: Family,
    inputs: Tensor,
    mask: Tensor | None,
    stop: int | None = None,
    writers: Collection[int] | None = None,
) -> States:
    """One forward pass without a head, ended after block stop-1; `stop` None reads every boundary.

    `inputs` are token ids [batch, length] with their mask of the same shape (None: no padding), or pixel values
    [batch, channels, height, width]; a position of an image is its CLS token or one of its patches. `writers` are the blocks
    whose M is read (None: all of them).
    """
    blocks = blocks_of(model, family)
    stop = len(blocks) if stop is None else stop
    boundaries: list[Tensor] = []
    whole: dict[int, Tensor] = {}
    scale = scale_of(model, family)

    def on_enter(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        boundaries.append(_stream(args, kwargs).clone())

    def on_write(_module: nn.Module, _args: Any, output: Any) -> None:
        written, block = first(output).view_as(boundaries[-1]), len(boundaries) - 1
        if writers is None or block in writers:
            whole[block] = written.clone() if scale == 1 else written * scale

    def on_leave(_module: nn.Module, _args: Any, output: Any) -> None:
        boundaries.append(first(output).clone())
        raise Enough

    with ExitStack() as hooks, torch.no_grad():
        for block in blocks[:stop]:
            hooks.callback(block.register_forward_pre_hook(on_enter, with_kwargs=True).remove)
            hooks.callback(written_of(block, family).register_forward_hook(on_write).remove)
        hooks.callback(blocks[stop - 1].register_forward_hook(on_leave).remove)
        with suppress(Enough):
            modality.of(family).run(model, family, inputs, mask)
    return States(tuple(boundaries), whole)


@dataclass(frozen=True, eq=False)
class Call:
    """What a block is called with beside the stream: masks, positions, whatever its family hands down."""

    args: tuple[Any, ...]
    options: dict[str, Any]
    named: bool
    """whether the stream is handed over by name"""

    def run(
        self, block: nn.Module, stream: Float[Tensor, "batch length width"], weights: dict[str, Tensor] | None = None
    ) -> Float[Tensor, "batch length width"]:
        """The block's output on another stream, with other weights if given; the stream stays as it is, also where a block adds in place."""
        stream = stream.clone()
        args = self.args if self.named else (stream, *self.args)
        options = {"hidden_states": stream, **self.options} if self.named else self.options
        return first(functional_call(block, weights, args, options) if weights else block(*args, **options))


def read_calls(
    model: Any, family: Family, inputs: Tensor, mask: Tensor | None, boundaries: Collection[int], stop: int | None = None
) -> tuple[list[Call], dict[int, Float[Tensor, "batch length width"]]]:
    """How one forward pass calls every block before boundary `stop` (None: all), and the stream at some boundaries up to it.

    Inputs as in `read_states`.
    """
    blocks = blocks_of(model, family)[:stop]
    calls: list[Call] = []
    streams: dict[int, Tensor] = {}

    def on_enter(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if len(calls) in boundaries:
            streams[len(calls)] = (args[0] if args else kwargs["hidden_states"]).clone()
        calls.append(Call(args[1:], {name: value for name, value in kwargs.items() if name != "hidden_states"}, not args))

    def on_leave(_module: nn.Module, _args: Any, output: Any) -> None:
        if len(blocks) in boundaries:
            streams[len(blocks)] = first(output).clone()
        raise Enough

    with ExitStack() as hooks, torch.no_grad():
        for block in blocks:
            hooks.callback(block.register_forward_pre_hook(on_enter, with_kwargs=True).remove)
        hooks.callback(blocks[-1].register_forward_hook(on_leave).remove)
        with suppress(Enough):
            modality.of(family).run(model, family, inputs, mask)
    return calls, streams


@contextmanager
def seen(module: nn.Module, side: Side) -> Iterator[list[Tensor]]:
    """Within this block, what goes into a module, or what comes out of it, once for every call.

    Copies: Falcon adds its attention to the MLP's output in place, so that the tensor itself would soon hold something else.
    """
    found: list[Tensor] = []
    handle = module.register_forward_hook(
        lambda _module, args, output: found.append((args[0] if side == "input" else first(output)).detach().clone())
    )
    try:
        yield found
    finally:
        handle.remove()


def source_of(block: nn.Module, reader: nn.Module, run: Callable[[], Any]) -> tuple[str, Tensor] | None:
    """Which module of a block makes what `reader` reads, when `run` runs the block once: its path, and what it reads itself.

    None where no module makes it. Of several that hand on the same numbers (a norm, then dropout) it is the first.
    """
    made: list[tuple[str, Tensor, Tensor]] = []
    read: list[Tensor] = []

    def note(path: str, _module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if args and isinstance(args[0], Tensor) and isinstance(output, Tensor):
            made.append((path, args[0], output))

    with ExitStack() as hooks, torch.no_grad():
        for path, module in block.named_modules():
            hooks.callback(module.register_forward_hook(partial(note, path)).remove)
        hooks.callback(reader.register_forward_pre_hook(lambda _module, args: read.append(args[0])).remove)
        run()
    of = (read[0].data_ptr(), read[0].numel())
    return next(((path, stream) for path, stream, output in made if (output.data_ptr(), output.numel()) == of), None)


@contextmanager
def called(module: nn.Module) -> Iterator[list[tuple[tuple[Any, ...], dict[str, Any], Tensor]]]:
    """Within this block, how a module is called and what comes out of it: (arguments, arguments by name, hidden states) of every call.

    The hidden states are copies, as in `seen`.
    """
    calls: list[tuple[tuple[Any, ...], dict[str, Any], Tensor]] = []

    def note(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        calls.append((args, kwargs, first(output).clone()))

    handle = module.register_forward_hook(note, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


@contextmanager
def simulated(
    model: Any,
    family: Family,
    removed: Span | Cut,
    matrix: Float[Tensor, "width width"] | None,
    weights: Mapping[str, Tensor] | None = None,
    stand_ins: Mapping[int, tuple[Tensor, Tensor]] | None = None,
) -> Iterator[None]:
    """Within this block the *unchanged* model computes what the pruned one should: the second route of the merge proof.

    The writer of the first carrier has its output multiplied by `matrix`, and every removed block hands on its input,
    or x A + b of it where it has a stand-in. A block with new `weights` (named as in `LinearTransform`) is computed once more with them.
    """
    blocks = blocks_of(model, family)
    changed: dict[int, dict[str, Tensor]] = {}
    for name, value in (weights or {}).items():
        block, _, path = name.partition(".")
        changed.setdefault(int(block), {})[path] = value
    inside = False

    def again(values: dict[str, Tensor]) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            nonlocal inside
            if inside:
                return None
            inside = True
            try:
                return _with_first(output, first(functional_call(module, values, args, kwargs)))
            finally:
                inside = False

        return hook

    def transform(_module: nn.Module, _args: Any, output: Any) -> Any:
        written = first(output)
        return None if matrix is None else _with_first(output, (exact(written) @ matrix.to(exact_device(written.device))).to(written))

    def skip(index: int, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        stream = args[0] if args else kwargs["hidden_states"]
        if stand_ins and index in stand_ins:
            slope, offset = (tensor.to(exact_device(stream.device)) for tensor in stand_ins[index])
            stream = (exact(stream) @ slope + offset).to(stream)
        return _with_first(output, stream)

    with ExitStack() as hooks:
        hooks.callback(written_of(blocks[removed.blocks[0] - 1], family).register_forward_hook(transform).remove)
        for index in removed.blocks:
            hooks.callback(blocks[index].register_forward_hook(partial(skip, index), with_kwargs=True).remove)
        for index, values in changed.items():
            hooks.callback(blocks[index].register_forward_hook(again(values), with_kwargs=True).remove)
        yield


@contextmanager
def transformed(model: Any, family: Family, block: int, through: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Within this block, the output of one block's written module goes through a function; gradients flow through it too."""

    def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
        return _with_first(output, through(first(output)))

    handle = written_of(blocks_of(model, family)[block], family).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def handed_on(model: Any, family: Family, streams: Float[Tensor, "rows width"]) -> Iterator[None]:
    """Within this block the last block hands on `streams`, one for every position it is called with, whatever it computes itself.

    The model's own end (final norm, head, and what else its family does there) then reads them: the logit lens.
    """

    def replace(_module: nn.Module, _args: Any, output: Any) -> Any:
        own = first(output)
        return _with_first(output, streams.view_as(own).to(own))

    handle = blocks_of(model, family)[-1].register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def nudged(model: Any, family: Family, block: int, delta: Float[Tensor, "batch length width"]) -> Iterator[None]:
    """Within this block, `delta` is added to the output of one block's written module: the linearity probe."""
    with transformed(model, family, block, lambda written: written + delta.view_as(written)):
        yield


def require_unhooked(model: nn.Module) -> None:
    """A `ModelError` for a model that carries hooks: a copy of its modules would go on calling them.

    Those that transformers leaves on every model that was asked for hidden states write nothing of their own, and may stay.
    """
    for name, hook in _hooks_on(model):
        raise ModelError(
            f"The module '{name}' carries a hook ({hook}), which a copy of the model would go on calling. Borrow the model "
            "(handle.borrow) before it is copied, so that no other thread has hooks on it; if the hook is your own, remove it first."
        )


def is_hooked(model: nn.Module) -> bool:
    """Whether it may compute something else than its weights say."""
    return any(True for _ in _hooks_on(model))


def _hooks_on(model: nn.Module) -> Iterator[tuple[str, str]]:
    """The module and the name of every hook but those of transformers' own that write nothing."""
    for name, module in model.named_modules():
        for registry in _REGISTRIES:
            for hook in getattr(module, registry).values():
                if getattr(hook, "__module__", "") != _INERT:
                    yield name, getattr(hook, "__qualname__", type(hook).__name__)


def first(output: Any) -> Tensor:
    """The hidden states of a module's output, which is a tensor or a tuple that starts with it."""
    tensor = output[0] if isinstance(output, tuple) else output
    assert isinstance(tensor, Tensor)
    return tensor


def _stream(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """What a block reads. Raises `FamilyError` for a family whose blocks hand on something else than one stream."""
    stream = args[0] if args else kwargs.get("hidden_states")
    if not isinstance(stream, Tensor) or stream.ndim != 3:
        held = "x".join(map(str, stream.shape)) if isinstance(stream, Tensor) else type(stream).__name__
        raise FamilyError(f"its blocks hand on {held} and not one residual stream [batch, length, width], which is what is cut here")
    return stream


def _with_first(output: Any, tensor: Tensor) -> Any:
    """The same output with its hidden states replaced."""
    return (tensor, *output[1:]) if isinstance(output, tuple) else tensor
