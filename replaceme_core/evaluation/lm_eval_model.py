"""lm-eval made to fit: a model borrowed for each forward pass, progress, cancellation, and templates that cannot run code."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import lm_eval.evaluator
import lm_eval.utils
import psutil
from accelerate import Accelerator
from jinja2.sandbox import SandboxedEnvironment
from lm_eval.models.huggingface import HFLM
from torch import Tensor

from replaceme_core.artifacts import ModelHandle
from replaceme_core.distribution import Group
from replaceme_core.evaluation.shared_requests import Answers, request_of
from replaceme_core.models.running.divergence import require_finite
from replaceme_core.progress import Progress

MOST = 64
"""requests per forward pass at most, where the size is chosen by the memory"""
_SHARE = 0.2
"""of the free memory that the logits of one pass may take"""
_COPIES = 3
"""of the logits that lm-eval holds at once, in 4 bytes each"""


def tame() -> None:
    """Takes from lm-eval what a library must not do: `pip list` at every run, processes of its own, templates with access to Python."""
    os.environ.setdefault("DISABLE_MULTIPROC", "1")
    lm_eval.evaluator.add_env_info = lambda _results: None
    lm_eval.evaluator.get_git_commit_hash = lambda: None
    if not isinstance(lm_eval.utils.env, SandboxedEnvironment):
        known = lm_eval.utils.env
        sandboxed = SandboxedEnvironment(loader=known.loader, undefined=known.undefined, keep_trailing_newline=known.keep_trailing_newline)
        sandboxed.filters.update(known.filters)
        lm_eval.utils.env = sandboxed


@contextmanager
def quiet() -> Iterator[None]:
    """What lm-eval prints goes nowhere: standard output belongs to the command line's JSON."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        yield


class BorrowedLM(HFLM):  # type: ignore[misc]
    """lm-eval's own Hugging Face model over a `ModelHandle`. It counts the prompts that it had to cut.

    Log-likelihoods are those of the model with this `number` among `answers` (None: of lm-eval's own batches).
    """

    def __init__(
        self,
        handle: ModelHandle,
        batch_size: int | str,
        progress: Progress,
        group: Group,
        answers: Answers | None = None,
        number: int = 0,
    ) -> None:
        with handle.borrow() as model:
            device = str(model.device)
            super().__init__(pretrained=model, tokenizer=handle.tokenizer, batch_size=batch_size, max_batch_size=MOST, device=device)
            self._vocabulary = int(model.get_output_embeddings().weight.shape[0]) if model.get_output_embeddings() else self.vocab_size
        self._handle, self._progress, self._answers, self._number = handle, progress, answers, number
        self._done, self._total, self._per_row = 0.0, 1, 1.0
        self.prompts: dict[Any, bool] = {}
        """each prompt of the present task, and whether it was cut"""
        if group.size > 1:  # lm-eval then gives each process its share of the requests
            self.accelerator = Accelerator(cpu=self.device.type == "cpu")
            self._rank, self._world_size = group.rank, group.size

    def begin(self, progress: Progress) -> None:
        """A new task: its progress goes here, and its prompts are counted from nothing."""
        self._progress, self.prompts = progress, {}

    def loglikelihood(self, requests: list[Any], **options: Any) -> Any:
        self._expect(len(requests))
        return super().loglikelihood(requests, **(options | {"disable_tqdm": True}))

    def loglikelihood_rolling(self, requests: list[Any], **options: Any) -> Any:
        self._expect(len(requests))
        return super().loglikelihood_rolling(requests, **(options | {"disable_tqdm": True}))

    def generate_until(self, requests: list[Any], **options: Any) -> Any:
        self._expect(len(requests))
        self._per_row = 1.0
        return super().generate_until(requests, **(options | {"disable_tqdm": True}))

    def _expect(self, total: int) -> None:
        self._done, self._total = 0.0, max(1, total)

    def _loglikelihood_tokens(self, requests: list[Any], **options: Any) -> Any:
        rows = set()
        for names, context, continuation in requests:
            rows.add((*context, *continuation[:-1]))
            prompt = names[0] if names else tuple(context + continuation)
            cut = len(context) + len(continuation) > self.max_length + 1
            self.prompts[prompt] = cut or self.prompts.get(prompt, False)
        if self._answers is not None and requests:
            asked = [request_of(context, continuation, self.max_length) for _, context, continuation in requests]
            found = self._answers.ask(self._number, asked, self._total)
            if found is not None:
                return found
        self._per_row = len(requests) / max(1, len(rows))  # requests that differ in their last token only share one pass
        return super()._loglikelihood_tokens(requests, **(options | {"disable_tqdm": True}))

    def tok_batch_encode(self, strings: Any, *args: Any, left_truncate_len: int | None = None, **options: Any) -> Any:
        for text in strings:
            self.prompts[text] = left_truncate_len is not None and len(self.tok_encode(text)) > left_truncate_len
        return super().tok_batch_encode(strings, *args, left_truncate_len=left_truncate_len, **options)

    def _detect_batch_size(self, requests: Any = None, pos: int = 0) -> int:
        """On a device lm-eval tries sizes until one fits; a CPU would be killed, so there the free memory decides."""
        if self.device.type == "cuda":
            return int(super()._detect_batch_size(requests, pos))
        length = self.max_length
        if requests:
            _, context, continuation = requests[pos]
            length = min(length, len(context) + len(continuation))
        needed = max(1, length) * self._vocabulary * 4 * _COPIES
        return int(max(1, min(MOST, _SHARE * psutil.virtual_memory().available // needed)))

    def _model_call(self, inps: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        self._advance(inps.shape[0])
        with self._handle.borrow():
            logits: Tensor = super()._model_call(inps, *args, **kwargs)
        require_finite(logits.flatten(0, -2), self._handle.name)
        return logits

    def _model_generate(self, context: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        self._advance(context.shape[0])
        with self._handle.borrow():
            return super()._model_generate(context, *args, **(kwargs | {"logits_processor": [self._finite]}))  # type: ignore[no-any-return]

    def _finite(self, _ids: Tensor, scores: Tensor) -> Tensor:
        """A model whose scores are NaN would write whatever token comes first, and be graded for it."""
        require_finite(scores, self._handle.name)
        return scores

    def _advance(self, rows: int) -> None:
        self._done = min(self._total, self._done + rows * self._per_row)
        self._progress.update(self._done, self._total, "requests", f"benchmarks on {self._handle.name}")
