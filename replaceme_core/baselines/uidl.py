"""UIDL, "The Unreasonable Ineffectiveness of the Deeper Layers" (arXiv 2403.17887): one run of n blocks goes, nothing takes its place.

Section 3.2: of every length-n run, the mean over texts of the angle between the stream before and behind it, at the last token;
the run of the least angle is cut. Section 3.4, the simple variant, measures nothing: the deepest n blocks before the last one.
(The paper then heals by QLoRA, which is training and not part of the choice.)
"""

import torch
from jaxtyping import Float64
from torch import Tensor

from replaceme_core.baselines.interface import Choice, Request
from replaceme_core.baselines.passes import passes
from replaceme_core.models.architecture import modality


def choose(request: Request) -> Choice:
    """The run of n blocks of least angular distance. Block 0 stays, as everywhere here; a note says if the rule had taken it."""
    n, found = request.check(1).n_blocks, angles(request)
    first = int(found[1:].argmin()) + 1
    notes = () if float(found[0]) >= float(found[first]) else ("The least angle is that of a run from block 0, which stays here.",)
    return Choice(tuple(range(first, first + n)), figures={"angular_distance": found.tolist()}, notes=notes)


def choose_simple(request: Request) -> Choice:
    """The deepest n blocks but the last one."""
    n, last = request.check(2).n_blocks, request.handle.n_blocks - 1
    return Choice(tuple(range(last - n, last)))


def angles(request: Request) -> Float64[Tensor, " starts"]:
    """Mean over sequences of arccos(cos(H_l, H_l+n)) / pi at the last token (of an image: the CLS token), for l = 0 ... L-n.

    The mean of the angles, as the paper has it; `DistanceMatrix.angular` is the angle of the mean cosine.
    """
    n, count = request.n_blocks, 0
    total = torch.zeros(request.handle.n_blocks - n + 1, dtype=torch.float64)
    sum_up = modality.of(request.handle.family).summary
    for batch in passes(request.handle, request.calibration, "angles at the last token", request.progress):
        at = torch.zeros(len(batch.real), dtype=torch.long) if sum_up == "first" else batch.real.sum(1) - 1
        tokens = torch.stack([state[torch.arange(len(at)), at].double() for state in batch.boundaries])
        cosines = torch.nn.functional.cosine_similarity(tokens[:-n], tokens[n:], dim=-1)
        total += torch.arccos(cosines.clamp(-1, 1)).sum(1) / torch.pi
        count += len(at)
    return total / count
