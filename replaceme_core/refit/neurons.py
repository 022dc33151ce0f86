"""Which rows of an MLP's matrices are one neuron: read out of a block, put into another.

A neuron is a row of every layer that the MLP reads with and one of the layer that writes. Nothing is looked up by family: whether a
neuron is what it is taken for is seen when it runs (refit/exchange.py).
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from replaceme_core.models.architecture.families import writers_in
from replaceme_core.models.architecture.family import Family
from replaceme_core.refit.layers import is_linear


class NotExchanged(Exception):
    """Why a block keeps its own neurons: a clause for the report."""


@dataclass(frozen=True, eq=False)
class Neurons:
    """Rows of an MLP's matrices; a layer that reads may hold several rows of one neuron (gate and up in one matrix)."""

    reading: tuple[Float[Tensor, "fused neurons width"], ...]
    biases: tuple[Float[Tensor, "fused neurons"] | None, ...]
    writing: Float[Tensor, "neurons width"]

    def __len__(self) -> int:
        return len(self.writing)

    def only(self, chosen: Int64[Tensor, " chosen"]) -> "Neurons":
        at = chosen.to(self.writing.device)
        biases = tuple(None if bias is None else bias[:, at] for bias in self.biases)
        return Neurons(tuple(rows[:, at] for rows in self.reading), biases, self.writing[at])

    def beside(self, other: "Neurons") -> "Neurons":
        """These, then the others."""
        biases = tuple(None if a is None or b is None else torch.cat([a, b], 1) for a, b in zip(self.biases, other.biases, strict=True))
        reading = tuple(torch.cat(pair, 1) for pair in zip(self.reading, other.reading, strict=True))
        return Neurons(reading, biases, torch.cat([self.writing, other.writing]))

    def behind(self, slope: Float[Tensor, " width"], offset: Float[Tensor, " width"]) -> "Neurons":
        """The same neurons for a stream x, where they are used to slope * x + offset; `NotExchanged` where an offset has no bias to go to."""
        biases: list[Tensor | None] = []
        for rows, bias in zip(self.reading, self.biases, strict=True):
            if bias is None and offset.any():
                raise NotExchanged("the removed blocks' norms add an offset, and the layers behind them have no bias for it")
            biases.append(None if bias is None else bias + rows @ offset)
        return Neurons(tuple(rows * slope for rows in self.reading), tuple(biases), self.writing)


@dataclass(frozen=True)
class Mlp:
    """Where the neurons of a block are: one linear layer that writes, and those beside it that read the normed stream."""

    writer: str
    readers: tuple[str, ...]

    @classmethod
    def of(cls, block: nn.Module, family: Family) -> "Mlp":
        """Raises `NotExchanged` for a mixture of experts, or an MLP of another make."""
        writers, modules = writers_in(block, family), dict(block.named_modules())
        if len(writers) != 1 or writers[0] not in modules or not is_linear(modules[writers[0]]):
            raise NotExchanged("its MLP is no single layer that writes")
        parent, (width, inner) = writers[0].rpartition(".")[0], _rows(modules[writers[0]]).shape

        def reads(path: str) -> bool:
            if path == writers[0] or path.rpartition(".")[0] != parent or not is_linear(modules[path]):
                return False
            out, into = _rows(modules[path]).shape
            return into == width and out % inner == 0

        readers = tuple(filter(reads, modules))
        if not readers:
            raise NotExchanged("no layer beside the one that writes reads the stream")
        return cls(writers[0], readers)

    def neurons(self, block: nn.Module) -> Neurons:
        """Those of a block as they are, in float32."""
        writing = _rows(block.get_submodule(self.writer)).T.detach().float()
        reading, biases = [], []
        for path in self.readers:
            module: Any = block.get_submodule(path)
            reading.append(_rows(module).detach().float().reshape(-1, *writing.shape))
            biases.append(None if module.bias is None else module.bias.detach().float().reshape(-1, len(writing)))
        return Neurons(tuple(reading), tuple(biases), writing)

    def put(self, block: nn.Module, neurons: Neurons) -> None:
        """Into the MLP of a block, however many they are, in its dtype. The bias of the layer that writes stays."""
        for path, rows, bias in zip(self.readers, neurons.reading, neurons.biases, strict=True):
            _set(block.get_submodule(path), rows.flatten(0, 1), bias)
        _set(block.get_submodule(self.writer), neurons.writing.T, None)


def _rows(module: Any) -> Float[Tensor, "out into"]:
    """A linear layer's weight, one row for each output; Conv1D keeps it the other way round."""
    weight: Tensor = module.weight
    return weight if isinstance(module, nn.Linear) else weight.T


def _set(module: Any, rows: Float[Tensor, "out into"], bias: Float[Tensor, "fused neurons"] | None) -> None:
    old = module.weight
    weight = rows if isinstance(module, nn.Linear) else rows.T
    module.weight = nn.Parameter(weight.to(old).contiguous(), requires_grad=old.requires_grad)
    if bias is not None:
        module.bias = nn.Parameter(bias.flatten().to(module.bias), requires_grad=module.bias.requires_grad)
    sizes = ("out_features", "in_features") if isinstance(module, nn.Linear) else ("nf", "nx")
    for size, n in zip(sizes, rows.shape, strict=True):
        setattr(module, size, n)
