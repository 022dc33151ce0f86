"""The other systems of the field, one per file, each from its paper's algorithm, behind one interface.

Read table (who they are, with their papers), interface (what goes in and comes out), then any of them. depth and width: what those
that drop blocks, or narrow them, share.
"""

from replaceme_core.baselines.interface import Baseline, Clock, Pruned, Request
from replaceme_core.baselines.table import BASELINES, find, prune

__all__ = ["BASELINES", "Baseline", "Clock", "Pruned", "Request", "find", "prune"]
