"""What the lesson measures on each of its models: how much text, which lengths of span, which prompts."""

from dataclasses import dataclass, field

from replaceme_core.artifacts import Span
from replaceme_core.plans.plan import CalibrationSection


@dataclass(frozen=True)
class Course:
    """One model's lesson. `closest` None: the place of least distance among the spans of the first round's length."""

    path: str
    calibration: CalibrationSection
    test_tokens: int
    lengths: tuple[int, ...]
    """of the spans that are removed at every place"""
    rounds: tuple[int, ...]
    """lengths to guess, the first one is that of the spans shown throughout"""
    prompts: tuple[str, ...]
    new_tokens: int
    sizes: tuple[int, ...]
    """calibration tokens of the fits that are starved, a tenth of them held out"""
    sources: dict[str, str] = field(default_factory=dict)
    """other calibration texts by name; the first is that of the course"""
    closest: Span | None = None
    by_tails: bool = False
    """whether places are measured by the blocks behind them alone (see `comparison.tails`), which a larger model needs"""

    def ends(self, n_blocks: int) -> tuple[Span, Span]:
        """The first and the last blocks, as many as are shown throughout."""
        length = self.rounds[0]
        return Span(1, 1 + length), Span(n_blocks - length, n_blocks)


DEMO = Course(
    path="demo",
    calibration=CalibrationSection(max_tokens=8192),  # what *Start with the demo model* measures, so that the app shows the same matrix
    test_tokens=4096,
    lengths=(1, 2, 3, 4, 6),
    rounds=(3, 1, 4, 6),
    prompts=(
        "Finn has the bottle. Dora is in the barn. Nora is in the office. Finn is in the school. Nora is poor and goes to the shop.\n"
        "Where is the bottle?",
        "Anna is in the barn. Anna has the map. Ben is in the shop. Anna goes to the shop. Anna gives the map to Ben.\nWho has the map?",
        "6 + 7 = 13. 4 + 4 = 8. 19 - 9 =",
    ),
    new_tokens=24,
    sizes=(192, 256, 512, 1024, 2048, 4096, 8192),
    sources={name: f"demo:{name}" for name in ("mixture", "stories", "questions", "facts", "random")},
    closest=Span(5, 8),
)
SMOLLM2 = Course(
    path="smollm2",
    calibration=CalibrationSection(source="smollm2:prose", max_tokens=6656, test_tokens=2048),
    test_tokens=512,
    lengths=(1, 4, 8),
    rounds=(4, 1, 8),
    prompts=(
        "The capital of France is",
        "On a cold winter morning, the old fisherman walked down to the beach. There he found",
        "Every morning the baker gets up at four o'clock, because",
    ),
    new_tokens=32,
    sizes=(1024, 1536, 3072),
    sources={"prose": "smollm2:prose", "random words": "demo:random"},
    by_tails=True,
)
COURSES = {"demo": DEMO, "smollm2": SMOLLM2}
