"""The layouts that results files of lm-eval had, brought to that of 0.4 today.

0.3 writes `acc` for `acc,none` and the number of examples once. 0.4.0 and 0.4.1 do not say which tasks a group is made of, but print
them indented below it. Some programs write only the mapping of tasks, with or without the key `results`.
"""

from typing import Any

_NO_FIGURES = ("alias", "name", "sample_len", "sample_count")


def brought_up(data: dict[str, Any]) -> dict[str, Any] | None:
    """The file as lm-eval 0.4 writes it today; None where there are no figures of tasks."""
    results = data["results"] if "results" in data else {name: value for name, value in data.items() if _is_task(value)}
    if not isinstance(results, dict) or not any(_is_task(value) for value in results.values()):
        return None
    results = {task: _named(figures) if isinstance(figures, dict) else figures for task, figures in results.items()}
    groups = _mapping(data.get("groups"))
    children = _mapping(data.get("group_subtasks")) or _below(results, groups)
    configs = data.get("configs")
    if not isinstance(configs, dict):
        configs = {task: {} for task in results if task not in groups and not children.get(task)}
    shots = data.get("n-shot")
    if not isinstance(shots, dict):
        shots = dict.fromkeys(results, _mapping(data.get("config")).get("num_fewshot") or 0)
    return data | {"results": results, "configs": configs, "n-shot": shots, "group_subtasks": children}


def _is_task(value: Any) -> bool:
    return isinstance(value, dict) and any(_is_figure(key, each) for key, each in value.items())


def _is_figure(key: Any, value: Any) -> bool:
    return isinstance(key, str) and key not in _NO_FIGURES and isinstance(value, int | float) and not isinstance(value, bool)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _named(figures: dict[str, Any]) -> dict[str, Any]:
    """Figures without a filter get the filter 'none', unless the file names filters itself."""
    if any("," in str(key) for key in figures):
        return figures
    return {f"{key},none" if _is_figure(key, value) or str(key).endswith("_stderr") else key: value for key, value in figures.items()}


def _below(results: dict[str, Any], groups: dict[str, Any]) -> dict[str, list[str]]:
    """Group -> what is printed indented below it: ' - humanities' of a group, '  - history' of that in turn; else what begins with its name."""
    children: dict[str, list[str]] = {name: [] for name in groups}
    above: list[tuple[int, str]] = []
    for task, figures in results.items():
        alias = str(_mapping(figures).get("alias") or task)
        depth = len(alias) - len(alias.lstrip(" -")) if alias.lstrip().startswith("-") else 0
        above = [(level, name) for level, name in above if level < depth]
        if above:
            children.setdefault(above[-1][1], []).append(task)
        above.append((depth, task))
    for group in groups:
        if not children[group]:
            children[group] = [task for task in results if task.startswith(f"{group}_")]
    return {name: tasks for name, tasks in children.items() if tasks}
