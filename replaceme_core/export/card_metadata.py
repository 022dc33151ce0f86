"""What the hub reads at the head of a model card: base model, licence, tags, and the scores as its model index."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from replaceme_core.models.checkpoints import smollm2
from replaceme_core.storage import shipped

_HEAD = re.compile(r"\A---\n(.*?)\n---\n", re.S)
_HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")
_TAGS = ["replaceme", "depth-pruning", "arxiv:2505.02819"]


def base_of(recipe: dict[str, Any]) -> str | None:
    """The hub id of the original, if it has one: a folder of that name on this machine is not what others would find there."""
    path = str(recipe.get("model", {}).get("path", ""))
    if path == smollm2.NAME:
        return smollm2.HUB
    return path if _HUB_ID.match(path) and not Path(path).exists() else None


def metadata(folder: Path, name: str, licence: str | None) -> dict[str, Any]:
    """The head of the card of an exported folder; `licence` is that of the original, None where it is not known."""
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8")) if (folder / "recipe.yaml").is_file() else {}
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    base, data_sets, results = base_of(recipe), _data_sets(recipe), _results(report)
    images = (folder / "preprocessor_config.json").is_file() and not (folder / "tokenizer_config.json").is_file()
    return {
        **({"license": licence} if licence else {}),
        "library_name": "transformers",
        "pipeline_tag": "image-classification" if images else "text-generation",
        **({"base_model": base} if base else {}),
        **({"datasets": data_sets} if data_sets else {}),
        "tags": _TAGS,
        **({"model-index": [{"name": name.split("/")[-1], "results": results}]} if results else {}),
    }


def with_head(card: str, head: dict[str, Any]) -> str:
    """A card with another head; what its own says beside stays."""
    found = _HEAD.match(card)
    own = yaml.safe_load(found[1]) if found else {}
    kept = {key: value for key, value in (own or {}).items() if key not in head}
    return f"---\n{yaml.safe_dump(head | kept, sort_keys=False, allow_unicode=True)}---\n{card[found.end() :] if found else card}"


def licence_beside(folder: str) -> str | None:
    """What the card in the folder of the original says."""
    path = Path(folder).expanduser() / "README.md"
    found = _HEAD.match(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else None
    try:
        said = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError:
        return None
    return str(said["license"]) if isinstance(said, dict) and said.get("license") else None


def _data_sets(recipe: dict[str, Any]) -> list[str]:
    """The hub data sets of the calibration."""
    section = recipe.get("calibration", {})
    found = []
    for source in filter(None, (section.get("source"), section.get("second"))):
        kind, _, rest = str(source).partition(":")
        found += (
            [rest]
            if kind == "hub"
            else [shipped.presets("calibration")[rest]["id"]]
            if kind == "preset" and rest in shipped.presets("calibration")
            else []
        )
    return found


def _results(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The scores of the pruned model, in the form of the hub's model index."""
    found = []
    for scores in (report.get("scores") or {}).values():
        if scores.get("model") != report["name"]:
            continue
        for task, metrics in scores["results"].items():
            listed = [
                {"type": metric, "value": round(score["value"], 6), "name": f"{metric}, n = {score['n']}"}
                for metric, score in metrics.items()
            ]
            found.append({"task": {"type": "text-generation"}, "dataset": {"name": task, "type": task}, "metrics": listed})
    return found
