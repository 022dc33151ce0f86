"""The pages: what each is called, the question it answers, and what comes after it."""

from dataclasses import dataclass


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


PAGES = {
    "overview": PageWords("app.py", "Overview", "", None, "", ("block", "span", "carrier", "transform")),
    "model": PageWords(
        "pages/1_Model.py",
        "Model",
        "Which model, and which text is it measured on?",
        "pages/2_Blocks.py",
        "Choose the blocks",
        ("block", "calibration set", "held-out"),
    ),
    "blocks": PageWords(
        "pages/2_Blocks.py",
        "Blocks",
        "Which blocks change the least, so that they can go?",
        "pages/3_Fit.py",
        "Fit what replaces them",
        ("distance", "span", "carrier", "boundary", "standard error"),
    ),
    "fit": PageWords(
        "pages/3_Fit.py",
        "Fit",
        "How well can one matrix stand in for the removed blocks?",
        "pages/4_Compare.py",
        "Compare the outputs",
        ("transform", "ridge", "held-out", "condition", "variant", "proof"),
    ),
    "compare": PageWords(
        "pages/4_Compare.py",
        "Compare",
        "What does the pruned model say, beside the original?",
        "pages/5_Benchmarks.py",
        "Run the benchmarks",
        ("cut", "KL", "perplexity", "agreement"),
    ),
    "benchmarks": PageWords(
        "pages/5_Benchmarks.py",
        "Benchmarks",
        "How much of the model's ability is left?",
        "pages/6_Export.py",
        "Export the model",
        ("standard error", "flip", "cut", "variant"),
    ),
    "export": PageWords(
        "pages/6_Export.py",
        "Export",
        "Is it proven, and how do you take it with you?",
        None,
        "",
        ("proof", "recipe", "variant"),
    ),
    "lesson": PageWords(
        "pages/7_Lesson.py",
        "Lesson",
        "",
        None,
        "",
        ("block", "boundary", "span", "carrier", "transform", "distance", "KL", "held-out"),
        ":material/school:",
    ),
    "sweep": PageWords(
        "pages/8_Sweep.py",
        "Sweep",
        "Many cuts side by side: what does each cost, and what does it gain?",
        None,
        "",
        ("span", "transform", "KL", "share kept", "Pareto front", "variant"),
        ":material/scatter_plot:",
    ),
    "methods": PageWords(
        "pages/9_Methods.py",
        "Methods",
        "Which way of pruning costs this model least, ours or the field's?",
        None,
        "",
        ("block", "KL", "perplexity", "share kept", "held-out"),
        ":material/leaderboard:",
    ),
}
STEPS = ("model", "blocks", "fit", "compare", "benchmarks", "export")
"""the way from a model to an export, in order"""
EXTRAS: tuple[str, ...] = ("lesson", "sweep", "methods")
"""pages beside that way, listed under it"""
