"""What each model of a comparison says at some positions of one batch: likelihood, KL and agreement, from hidden states.

Heads that are a matrix and nothing more are compared slice by slice of the vocabulary. A head with a scale or a soft cap, and a model that
is run whole, is asked for a few positions at a time, as is one whose figures are not finite, so that its error says where.
"""

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from replaceme_core.comparison.together import Ends
from replaceme_core.errors import NumericsError
from replaceme_core.models.running import slices
from replaceme_core.models.running.divergence import Table

_COLUMNS = 3


def figures(
    ends: Ends,
    n_models: int,
    positions: Int64[Tensor, " positions"],
    following: Int64[Tensor, " positions"],
    failed: dict[int, NumericsError],
) -> dict[int, Float64[Tensor, "positions 3"]]:
    """[negative log-likelihood, KL(reference || own), whether the most likely token is the reference's] by model at each position.

    A model whose logits are not finite is left out, with its error in `failed`; that of the reference, the first, is raised.
    """
    sides = ends.sides(positions)
    found = {} if sides is None else dict(enumerate(slices.compare(sides, following.to(sides[0].mass.device))))
    found = {number: own for number, own in found.items() if own.isfinite().all() and number not in failed}
    missing = [number for number in range(n_models) if number not in found and number not in failed]
    return found | (_in_parts(ends, missing, positions, following, failed) if missing else {})


def _in_parts(ends: Ends, numbers: list[int], positions: Tensor, following: Tensor, failed: dict[int, NumericsError]) -> dict[int, Tensor]:
    found = {number: torch.zeros(len(positions), _COLUMNS, dtype=torch.float64) for number in numbers}
    for places in ends.parts(torch.arange(len(positions))):
        base = Table(ends.logits(0, positions[places]))
        for number in list(found):
            try:
                own = base if number == 0 else Table(ends.logits(number, positions[places]))
                found[number][places] = _of_tables(base, own, following[places])
            except NumericsError as error:
                failed[number] = error
                del found[number]
    return found


def _of_tables(base: Table, own: Table, following: Tensor) -> Float64[Tensor, "positions 3"]:
    kl = torch.zeros(len(following)) if own is base else base.divergences(own)
    same = own.most_likely == base.most_likely.to(own.most_likely.device)
    return torch.stack([column.cpu().double() for column in (-own.log_likelihoods(following), kl, same)], -1)
