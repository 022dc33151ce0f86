"""ShortGPT (arXiv 2403.03853, section 3): the n blocks of least influence go, wherever they stand, and nothing takes their place.

Block influence of block i is 1 - mean over tokens of cos(H_i, H_i+1). Block 0 stays, as everywhere here, where a cut is named by
the blocks that carry it; its influence is by far the highest in the models we have seen, and a note says if it is not.
"""

from replaceme_core.baselines.interface import Choice, Request


def choose(request: Request) -> Choice:
    """The n blocks of least influence; of equal ones the first."""
    request.check(1)
    influence = [float(value) for value in request.measured().distances["all"].values.diagonal(1)]
    order = sorted(range(1, len(influence)), key=lambda block: (influence[block], block))
    chosen = order[: request.n_blocks]
    notes = () if influence[0] >= influence[chosen[-1]] else ("By its influence block 0 would go too; it stays here.",)
    return Choice(tuple(sorted(chosen)), figures={"influence": influence}, notes=notes, spent=request.spent)
