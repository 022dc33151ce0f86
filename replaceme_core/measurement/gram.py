"""Gram matrices, summed a few rows at a time."""

from jaxtyping import Float, Float64
from torch import Tensor

_SPLIT = 4
"""column blocks of a Gram matrix, of which only the upper ones are summed"""


def add_gram(gram: Float64[Tensor, "width width"], left: Float[Tensor, "tokens width"], right: Float[Tensor, "tokens width"]) -> None:
    """gram += left^T right for a symmetric product: only the column blocks from the diagonal on; `mirror` fills in the others."""
    size = -(-len(gram) // _SPLIT)
    for low in range(0, len(gram), size):
        gram[low : low + size, low:].addmm_(left[:, low : low + size].T, right[:, low:])


def mirror(gram: Float64[Tensor, "width width"]) -> None:
    """Writes the upper half into the lower one, in place; a matrix that was mirrored may be added to and mirrored again."""
    size = -(-len(gram) // _SPLIT)
    for low in range(0, len(gram), size):
        high = low + size
        gram[high:, low:high] = gram[low:high, high:].T
        own = gram[low:high, low:high]
        own.copy_(own.triu() + own.triu(1).T)
