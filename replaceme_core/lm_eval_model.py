"""lm-eval made to fit: a model borrowed for each forward pass, progress, cancellation, and templates that cannot run code."""

from typing import Any

import lm_eval.evaluator
import lm_eval.utils
from accelerate import Accelerator
from jinja2.sandbox import SandboxedEnvironment
from lm_eval.models.huggingface import HFLM
from torch import Tensor

from replaceme_core.artifacts import ModelHandle
from replaceme_core.distribution import Group
from replaceme_core.progress import Progress


def tame() -> None:
    """Takes from lm-eval what a library must not do: `pip list` at every run, and templates with access to Python."""
    lm_eval.evaluator.add_env_info = lambda _results: None
    if not isinstance(lm_eval.utils.env, SandboxedEnvironment):
        known = lm_eval.utils.env
        sandboxed = SandboxedEnvironment(loader=known.loader, undefined=known.undefined, keep_trailing_newline=known.keep_trailing_newline)
        sandboxed.filters.update(known.filters)
        lm_eval.utils.env = sandboxed


class BorrowedLM(HFLM):  # type: ignore[misc]
    """lm-eval's own Hugging Face model over a `ModelHandle`."""

    def __init__(self, handle: ModelHandle, batch_size: int, progress: Progress, group: Group) -> None:
        with handle.borrow() as model:
            super().__init__(pretrained=model, tokenizer=handle.tokenizer, batch_size=batch_size, device=str(model.device))
        self._handle, self._progress = handle, progress
        self._done, self._total = 0, 1
        if group.size > 1:  # lm-eval then gives each process its share of the requests
            self.accelerator = Accelerator(cpu=self.device.type == "cpu")
            self._rank, self._world_size = group.rank, group.size

    def _loglikelihood_tokens(self, requests: list[Any], **options: Any) -> Any:
        self._done, self._total = 0, max(1, len(requests))
        return super()._loglikelihood_tokens(requests, **(options | {"disable_tqdm": True}))

    def _model_call(self, inps: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        self._done = min(self._total, self._done + inps.shape[0])
        self._progress.update(self._done, self._total, "requests", f"benchmarks on {self._handle.name}")
        with self._handle.borrow():
            return super()._model_call(inps, *args, **kwargs)  # type: ignore[no-any-return]
