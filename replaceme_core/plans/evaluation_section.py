"""The plan's section of benchmarks."""

from typing import Literal

from pydantic import Field

from replaceme_core.plans.section import Section


class EvaluationSection(Section):
    """Which benchmarks are run on the original and the pruned model."""

    tasks: str = Field(
        "demo",
        description="entries separated by commas: 'plain' or 'plain:NAME,NAME' (English, offline), 'demo', a suite (replaceme, replaceme-table, streamline, quick), "
        "'probe', lm-eval names (NAME@5: 5-shot), a folder of lm-eval YAML tasks, a JSONL file of own questions",
    )
    num_fewshot: int | None = Field(
        None, ge=0, description="few-shot examples before each question, for every task; empty: each task's own"
    )
    limit: int | None = Field(None, ge=1, description="items per task, the first ones; empty: all")
    batch_size: int | Literal["auto"] = Field("auto", description="requests per forward pass; 'auto': what the memory allows")
    seed: int = 1234

    @property
    def key(self) -> str:
        """All that changes a score: not the batch size."""
        return self.model_dump_json(exclude={"batch_size"})
