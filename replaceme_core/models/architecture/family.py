"""What is known of a model family: where its blocks are, what writes to the residual stream, and how a transform merges."""

from dataclasses import dataclass
from typing import Literal

Merge = Literal["exact", "diagonal", "refused", "unknown"]
"""unknown: no row knows the architecture, and no weight has been read yet"""


@dataclass(frozen=True)
class Family:
    """One row. A *writer* (an output projection, to people) ends a block's MLP: a linear, a stack of experts, or the gain of a norm that follows.

    `layer_lists` names the configuration entries that hold one value per block and are cut together with the blocks.
    """

    name: str
    model_types: tuple[str, ...]
    blocks: str
    writers: tuple[str, ...]
    reason: str
    merge: Merge = "exact"
    written: str = ""
    """the module whose output is M; empty: the only writer"""
    scale: str = ""
    """configuration entry by which M is multiplied before it is added; empty: 1"""
    experts: Literal["outer_first", "inner_first"] = "outer_first"
    """layout of fused experts: [experts, width, inner] or [experts, inner, width]"""
    gain_offset: float = 0.0
    """what a norm adds to its stored weight to get its gain (Gemma stores gain - 1)"""
    layer_lists: tuple[str, ...] = ()
    inputs: Literal["text", "images"] = "text"
    """what the model reads; decides how it is run, calibrated and proved (see modality.py)"""
    tower: str = ""
    """image families: the module that turns pixel values into the stream and holds the blocks; empty: the model itself"""

    @property
    def writer(self) -> str:
        """The writers in one line, for people."""
        return ", ".join(self.writers)
