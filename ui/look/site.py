"""The pages: what each is called, the question it answers, and what comes after it."""

from dataclasses import dataclass

NAME = "ReplaceMe Studio"
TAGLINE = (
    "Take whole blocks (layers) out of a language model, let one fitted matrix stand in for them, and see what it costs. "
    "No training: the matrix is merged into the block before the gap."
)


@dataclass(frozen=True)
class PageWords:
    """What a page is called, the question it answers, and what comes after it."""

    file: str
    title: str
    question: str
    next_file: str | None
    next_label: str
    terms: tuple[str, ...]
    icon: str = ""
    """in the sidebar, for a page beside the steps"""
    next_beside: bool = False
    """whether the page itself draws the button that goes on"""


PAGES = {
    "overview": PageWords("app.py", "Overview", "", None, "", ("block", "residual stream", "span", "carrier", "transform", "pruned model")),
    "model": PageWords(
        "pages/1_Model.py",
        "Model",
        "Which model, and which text is it measured on?",
        "pages/2_Blocks.py",
        "Choose the blocks",
        ("block", "residual stream", "calibration set", "held-out", "test", "output projection"),
    ),
    "blocks": PageWords(
        "pages/2_Blocks.py",
        "Blocks",
        "Which blocks change the least, so that they can go?",
        "pages/3_Fit.py",
        "Fit",
        ("distance", "span", "carrier", "boundary", "relative error", "standard error"),
        next_beside=True,
    ),
    "fit": PageWords(
        "pages/3_Fit.py",
        "Fit",
        "How well can one matrix stand in for the removed blocks?",
        "pages/4_Compare.py",
        "Compare the outputs",
        ("transform", "relative error", "ridge", "held-out", "condition", "variant", "check", "removed, no transform"),
    ),
    "compare": PageWords(
        "pages/4_Compare.py",
        "Compare",
        "What does the pruned model say, beside the original?",
        "pages/5_Benchmarks.py",
        "Run the benchmarks",
        ("removed, no transform", "KL", "perplexity", "test", "top-1 agreement", "temperature", "prefill"),
    ),
    "benchmarks": PageWords(
        "pages/5_Benchmarks.py",
        "Benchmarks",
        "How much of the model's ability is left?",
        "pages/6_Export.py",
        "Export the model",
        ("relative accuracy", "standard error", "flip", "few-shot", "chance level", "removed, no transform", "variant"),
    ),
    "export": PageWords(
        "pages/6_Export.py",
        "Export",
        "Does it pass its checks, and how do you take it with you?",
        "pages/8_Sweep.py",
        "Many cuts side by side",
        ("check", "run config", "variant"),
    ),
    "lesson": PageWords(
        "pages/7_Lesson.py",
        "Lesson",
        "",
        None,
        "",
        ("block", "residual stream", "boundary", "span", "carrier", "transform", "distance", "KL", "test", "removed, no transform"),
        ":material/school:",
    ),
    "sweep": PageWords(
        "pages/8_Sweep.py",
        "Sweep",
        "Many cuts side by side: what does each cost, and what does it gain?",
        None,
        "",
        ("span", "transform", "KL", "test", "relative accuracy", "Pareto front", "prefill", "variant"),
        ":material/scatter_plot:",
    ),
    "methods": PageWords(
        "pages/9_Methods.py",
        "Methods",
        "Which way of pruning costs this model least, ours or the field's?",
        None,
        "",
        ("block", "KL", "perplexity", "relative accuracy", "test", "removed, no transform"),
        ":material/leaderboard:",
    ),
}
STEPS = ("model", "blocks", "fit", "compare", "benchmarks", "export")
"""the way from a model to an export, in order"""
EXTRAS: tuple[str, ...] = ("lesson", "sweep", "methods")
"""pages beside that way, listed under it"""
