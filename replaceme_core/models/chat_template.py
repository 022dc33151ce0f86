"""Whether a model is one for chats: its tokenizer says so."""

from typing import Any


def has_template(tokenizer: Any) -> bool:
    """Whether the tokenizer knows how a chat is written for its model."""
    return getattr(tokenizer, "chat_template", None) is not None
