"""A device that is not there: tensors that say they are on it, and are refused what it cannot do.

    with FakeDevice("mps") as device:
        handle = load(ModelSection(path=folder))     # `auto` finds the device, and the weights are moved to it

Their values are on the CPU, inside a wrapper that every operation goes through. Refused are fp64 on MPS, also as one step of a move to
the CPU (`tensor.to("cpu", torch.float64)`: what a copy between devices does with a change of dtype on the way is not promised), and
operations on tensors of two devices. As on a real device, a number of the CPU without dimensions is taken, and so are CPU indices
into a tensor of the device. Not simulated: what has no kernel there, how fast it is, and how it rounds.
"""

from contextlib import ExitStack
from typing import Any
from unittest.mock import Mock, patch

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

_aten = torch.ops.aten
_DOUBLE = (torch.float64, torch.complex128)
_COPIES = (_aten.copy_.default, _aten._to_copy.default)
_BY_INDEX = (_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default, _aten._index_put_impl_.default)
_CPU = torch.device("cpu")
_PLAIN = frozenset({int, float, bool, str, type(None), slice, torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size})
"""what holds no tensor; most arguments are these"""


class OnDevice(torch.Tensor):
    """A tensor of the fake device; `values` are its values, on the CPU. To torch's own code it is a tensor of the CPU."""

    values: torch.Tensor

    @staticmethod
    def __new__(cls, values: torch.Tensor, device: torch.device) -> "OnDevice":
        if device.type == "mps" and values.dtype in _DOUBLE:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64. (fake device)")
        made = torch.Tensor._make_wrapper_subclass(
            cls, values.shape, strides=values.stride(), storage_offset=values.storage_offset(), dtype=values.dtype
        )
        made.values, made.place = values, device
        return made

    @property
    def device(self) -> torch.device:
        return self.place

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"OnDevice({self.place}, {self.values})"

    def tolist(self) -> Any:
        return self.values.tolist()

    def numpy(self, **_options: Any) -> Any:
        raise TypeError(f"can't convert {self.place} device type tensor to numpy. Use Tensor.cpu() first. (fake device)")

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, _mine(args, kwargs)[0].place)


class FakeDevice(TorchDispatchMode):
    """Within this block the machine has one device of this kind, 'mps' or 'cuda'. `synchronised` counts the waits for it."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.device, self.synchronised = torch.device(kind, 0), 0
        self.inside = False
        self._entered = ExitStack()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and a guard around every operation takes as long as the operation

    def __enter__(self) -> "FakeDevice":
        kind = self.device.type
        for name, value in (
            (f"torch.{'backends.mps' if kind == 'mps' else 'cuda'}.is_available", lambda: True),
            (f"torch.{kind}.synchronize", self._wait),
            ("torch.cuda._lazy_init", lambda: None),
            ("torch.cuda.get_device_name", lambda *_: "a device that is not there"),
            ("torch.Event", Mock),  # every operation is done when it returns
            ("torch.__future__._overwrite_module_params_on_conversion", True),  # a parameter does not become a wrapper by itself
        ):
            self._entered.enter_context(patch(name, value))
        super().__enter__()
        self._entered.enter_context(_Calls(self))
        return self

    def __exit__(self, *error: Any) -> None:
        self._entered.close()
        super().__exit__(*error)

    def _wait(self, *_: Any) -> None:
        self.synchronised += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        asked = kwargs.get("device")
        made_there = asked is not None and (asked.type == self.device.type or (self.inside and func not in _COPIES))
        return _run(func, args, kwargs, self.device, made_there)


class _Calls(TorchFunctionMode):
    """Calls as they are written: moves to and from the device, and whether an operation has the device's tensors.

    What torch makes for itself within such an operation (a causal mask) it makes where it thinks the operation is, on the CPU.
    """

    def __init__(self, machine: FakeDevice) -> None:
        super().__init__()
        self._machine = machine

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") == "__get__":  # a property makes nothing; most calls are these
            return func(*args, **kwargs)
        if func is torch.Tensor.cpu:
            func, args = torch.Tensor.to, (args[0], _CPU)
        if func is torch.Tensor.to:
            return self._moved(*args, **kwargs)
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:  # made where no mode sees it
            return self._moved(func(*args, **{name: value for name, value in kwargs.items() if name != "device"}), kwargs["device"])
        if self._machine.inside or "device" in kwargs or not _any_mine((args, kwargs)):
            return func(*args, **kwargs)
        self._machine.inside = True
        try:
            return func(*args, **kwargs)
        finally:
            self._machine.inside = False

    def _moved(self, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Tensor.to in all of its forms."""
        given = [*args, *kwargs.values()]
        like = next((each for each in given if isinstance(each, torch.Tensor)), None)
        dtype = next((each for each in given if isinstance(each, torch.dtype)), like.dtype if like is not None else tensor.dtype)
        named = next((torch.device(each) for each in given if isinstance(each, str | torch.device)), None)
        device = named or (like.device if like is not None else tensor.device)
        device = self._machine.device if device.type == self._machine.device.type else device
        if (tensor.device, tensor.dtype) == (device, dtype):
            return tensor
        return _aten._to_copy.default(tensor, dtype=dtype, device=device)


def _tensors(*values: Any) -> list[torch.Tensor]:
    """Tensors in arguments: alone, in lists, in dictionaries. torch's own walk over them takes most of a small operation's time."""
    found: list[torch.Tensor] = []
    _collect(values, found)
    return found


def _collect(values: Any, found: list[torch.Tensor]) -> None:
    for value in values:
        kind = type(value)
        if kind in _PLAIN:
            continue
        if kind is OnDevice or isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            _collect(value, found)
        elif isinstance(value, dict):
            _collect(value.values(), found)


def _any_mine(values: Any) -> bool:
    """Whether there is a tensor of the device in arguments; the first one ends the search."""
    for value in values:
        kind = type(value)
        if kind is OnDevice:
            return True
        if kind not in _PLAIN and (
            (isinstance(value, list | tuple) and _any_mine(value)) or (isinstance(value, dict) and _any_mine(value.values()))
        ):
            return True
    return False


def _mine(*values: Any) -> list[OnDevice]:
    return [each for each in _tensors(*values) if isinstance(each, OnDevice)]


def _inside(value: Any) -> Any:
    """The same arguments with the values in place of the wrappers."""
    kind = type(value)
    if kind is OnDevice:
        return value.values
    if kind in _PLAIN:
        return value
    if isinstance(value, list | tuple):
        return kind(map(_inside, value))
    return {key: _inside(each) for key, each in value.items()} if isinstance(value, dict) else value


def _run(func: Any, args: Any, kwargs: dict[str, Any], device: torch.device, made_there: bool = False) -> Any:
    """The operation on the values, wrapped again where its result is on the device."""
    tensors = _tensors(args, kwargs)
    mine = [each for each in tensors if isinstance(each, OnDevice)]
    if not mine and not made_there:
        return func(*args, **kwargs)
    if len(mine) < len(tensors):
        _refuse_two_devices(func, args, kwargs, mine)
    stays = made_there if kwargs.get("device") is not None else bool(mine)
    if func is _aten.copy_.default:
        stays = isinstance(args[0], OnDevice)
    if mine and not stays and device.type == "mps" and (kwargs.get("dtype") or args[0].dtype) in _DOUBLE:
        raise TypeError("From MPS to float64 on the CPU in one step; move first, then convert. (fake device)")
    inner_args, inner_kwargs = _inside(args), _inside(kwargs)
    if kwargs.get("device") is not None:
        inner_kwargs["device"] = _CPU
    made = func(*inner_args, **inner_kwargs)
    if not stays:
        return made
    known = {id(leaf.values): leaf for leaf in mine}

    def wrapped(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        return known[id(leaf)] if id(leaf) in known else OnDevice(leaf, device)

    return wrapped(made) if isinstance(made, torch.Tensor) else tree_map(wrapped, made)


def _refuse_two_devices(func: Any, args: Any, kwargs: dict[str, Any], mine: list[OnDevice]) -> None:
    if not mine or func in _COPIES:
        return
    seen = [args[0], *args[2:]] if func in _BY_INDEX and isinstance(args[0], OnDevice) else [args, kwargs]
    if any(not isinstance(each, OnDevice) and each.dim() for each in _tensors(*seen)):
        raise RuntimeError(f"Expected all tensors to be on the same device, but found {mine[0].place} and cpu in {func}. (fake device)")
