"""Where exact sums are made: in fp64, where the numbers are, or on the CPU if their device has no fp64 (Apple's MPS).

Every fp64 number that comes from a model goes through `exact`; what it is multiplied with goes to `exact_device`.
"""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

_WITH_FP64 = ("cpu", "cuda", "meta")


def exact_device(device: torch.device) -> torch.device:
    """The device on which numbers of `device` can be fp64."""
    return device if device.type in _WITH_FP64 else torch.device("cpu")


def finest_dtype(device: torch.device) -> torch.dtype:
    """The finest precision that numbers have without leaving the device: for what is too large to be moved."""
    return torch.float64 if device.type in _WITH_FP64 else torch.float32


def exact(tensor: Float[Tensor, "..."]) -> Float64[Tensor, "..."]:
    """The same values in fp64, on the `exact_device` of where they are. Moved first, then converted: a device without fp64 can do neither at once."""
    return tensor.to(exact_device(tensor.device)).double()
