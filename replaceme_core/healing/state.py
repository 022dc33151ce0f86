"""What the next step of a healing depends on, as tensors and numbers: it is written to a checkpoint and restored from one."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from replaceme_core.healing_report import HealingPoint


@dataclass(eq=False)
class State:
    """Everything that the next step depends on, and the best so far."""

    parameters: list[nn.Parameter]
    optimiser: torch.optim.AdamW
    step: int = 0
    n_tokens: int = 0
    points: list[HealingPoint] = field(default_factory=list)
    best: int = 0
    kept: list[Tensor] = field(default_factory=list)
    seconds: float = 0.0

    def tensors(self) -> dict[str, Tensor]:
        """All of it that is a tensor, by number of the parameter and name."""
        found: dict[str, Tensor] = {}
        for number, parameter in enumerate(self.parameters):
            found |= {f"{number}.value": parameter.detach(), f"{number}.kept": self.kept[number]}
            found |= {f"{number}.{name}": value for name, value in self.optimiser.state[parameter].items()}
        return found

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `tensors`."""
        self.kept = []
        for number, parameter in enumerate(self.parameters):
            own = {name.partition(".")[2]: value for name, value in tensors.items() if name.partition(".")[0] == str(number)}
            with torch.no_grad():
                parameter.copy_(own.pop("value"))
            self.kept.append(own.pop("kept").to(parameter.device))
            self.optimiser.state[parameter] = {k: v if k == "step" else v.to(parameter.device) for k, v in own.items()}
