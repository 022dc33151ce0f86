"""What the Model page knows of a session: the calibration set that it previews."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from ui.session.state import Lifetime, Slot

if TYPE_CHECKING:
    from replaceme_core.calibration.calibration import CalibrationSet
    from ui.session.calibration_choice import GivenText


@dataclass(eq=False)
class ModelPageState(Slot):
    """Of the loaded model."""

    lifetime: ClassVar[Lifetime] = "model"
    prepared: "dict[Any, CalibrationSet]" = field(default_factory=dict)
    """the set that is previewed, by its description"""
    uploaded: "dict[Any, GivenText]" = field(default_factory=dict)
    """the file that was given last, read, by what it was read from"""
