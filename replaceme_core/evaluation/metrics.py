"""lm-eval's figures, 'acc,none' and 'acc_stderr,none', as ours and back."""

from typing import Any

from replaceme_core.evaluation.scores import Score


def metrics_of(figures: dict[str, Any], n: int) -> dict[str, Score]:
    """One `Score` per metric; the filter 'none' is left out of its name; a standard error of 'N/A' becomes None."""
    scores = {}
    for key, value in figures.items():
        name, _, rest = key.partition(",")
        if not rest or name.endswith("_stderr") or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        stderr = figures.get(f"{name}_stderr,{rest}")
        scores[name if rest == "none" else key] = Score(float(value), float(stderr) if isinstance(stderr, int | float) else None, n)
    return scores


def metrics_to(scores: dict[str, Score]) -> dict[str, Any]:
    """The figures as lm-eval's groups and files hold them."""
    found: dict[str, Any] = {}
    for key, score in scores.items():
        name, _, rest = key.partition(",")
        found[f"{name},{rest or 'none'}"] = score.value
        found[f"{name}_stderr,{rest or 'none'}"] = "N/A" if score.stderr is None else score.stderr
    return found
