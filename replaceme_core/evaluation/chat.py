"""Questions in a model's chat template: whether it can be used, and how lm-eval is given it.

Templates come with the tokenizer. transformers renders them in its own sandbox, which cannot reach Python; what they refuse is a sentence.
"""

import hashlib
from collections.abc import Callable
from typing import Any

from replaceme_core.artifacts import ModelHandle
from replaceme_core.errors import EvaluationError, quoted
from replaceme_core.models.chat_template import has_template
from replaceme_core.plans.evaluation_section import EvaluationSection

Turn = dict[str, str]


def require(handle: ModelHandle, section: EvaluationSection) -> None:
    """Raises `EvaluationError` where the section asks for a chat that this model's template cannot give.

    lm-eval drops a system message that the template refuses; one that was asked for must not vanish.
    """
    if not section.apply_chat_template:
        return
    if not has_template(handle.tokenizer):
        raise EvaluationError(f"The tokenizer of '{handle.name}' has no chat template; leave apply_chat_template out.")
    system = [{"role": "system", "content": section.system_instruction}] if section.system_instruction else []
    try:
        renderer(handle.tokenizer)([*system, {"role": "user", "content": "What is bread?"}])
    except Exception as error:  # templates raise what they like
        said = quoted(error)
        way_out = "leave system_instruction out, or apply_chat_template" if system else "leave apply_chat_template out"
        raise EvaluationError(
            f"The chat template of '{handle.name}' refuses a question ({type(error).__name__}: {said}); {way_out}."
        ) from error


def renderer(tokenizer: Any) -> Callable[..., str]:
    """Turns to text, as lm-eval's own Hugging Face model does it: an answer that has begun is gone on with."""

    def render(turns: list[Turn], add_generation_prompt: bool = True) -> str:
        text: str = tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=add_generation_prompt, continue_final_message=not add_generation_prompt
        )
        return text

    return render


def requests_in(tokenizer: Any, section: EvaluationSection) -> dict[str, Any]:
    """What lm-eval's tasks need beside `section.told` to write their questions without a model."""
    return {"chat_template": renderer(tokenizer), "tokenizer_name": ""} if section.apply_chat_template else {}


def template_hash(handle: ModelHandle, section: EvaluationSection) -> str | None:
    """Of the template that was used, as lm-eval writes it down."""
    return hashlib.sha256(str(handle.tokenizer.chat_template).encode()).hexdigest() if section.apply_chat_template else None
