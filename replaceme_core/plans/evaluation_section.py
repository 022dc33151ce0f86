"""The plan's section of benchmarks."""

from typing import Any, Literal

from pydantic import Field

from replaceme_core.plans.section import Section


class EvaluationSection(Section):
    """Which benchmarks are run on the original and the pruned model."""

    tasks: str = Field(
        "demo",
        description="entries separated by commas: 'plain' or 'plain:NAME,NAME' (English, offline), 'demo', a suite (replaceme, replaceme-table, streamline, quick), "
        "'probe', lm-eval names (NAME@5: 5-shot), a folder of lm-eval YAML tasks, a JSONL file of own questions. Left out of a plan: 'demo' for the demo model, 'plain' for any other",
    )
    num_fewshot: int | None = Field(
        None, ge=0, description="few-shot examples before each question, for every task; empty: each task's own"
    )
    limit: int | None = Field(None, ge=1, description="items per task, the first ones; empty: all")
    batch_size: int | Literal["auto"] = Field("auto", description="requests per forward pass; 'auto': what the memory allows")
    exact: bool = Field(
        False,
        description="true: log-likelihoods in lm-eval's own batches, to the last digit; false: what questions, few-shot examples and models share is run "
        "once, to rounding the same (0.001 nats in float32) and several times faster",
    )
    seed: int = 1234
    apply_chat_template: bool = Field(
        False, description="ask in the chat template of the tokenizer, as a user would; off as in lm-eval; needs a tokenizer that has one"
    )
    fewshot_as_multiturn: bool = Field(
        True, description="with the chat template: every few-shot example is a question and an answer of its own; false: all in one message"
    )
    system_instruction: str | None = Field(
        None,
        min_length=1,
        description="stands before every question: as the system message of a chat, or as plain text without the template",
    )

    @property
    def key(self) -> str:
        """All that changes a score: not the batch size."""
        return self.model_dump_json(exclude={"batch_size"})

    @property
    def told(self) -> dict[str, Any]:
        """How a question is put, as the options of lm-eval's `simple_evaluate`."""
        turns = self.apply_chat_template and self.fewshot_as_multiturn
        return {
            "apply_chat_template": self.apply_chat_template,
            "fewshot_as_multiturn": turns,
            "system_instruction": self.system_instruction,
        }
