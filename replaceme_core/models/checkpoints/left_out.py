"""What a checkpoint holds and the loaded model has no place for: a tower for images, layers of multi-token prediction. It is said, never dropped in silence."""

from pathlib import Path
from typing import Any

from replaceme_core.models.checkpoints.tensor_names import Names
from replaceme_core.storage import tensor_files

_NAMED = 4
PREDICTION = ("num_nextn_predict_layers", "num_mtp_layers")
"""configuration entries that count layers of multi-token prediction"""


def by_name(model: Any, folder: Path) -> str:
    """A sentence on the tensors of a checkpoint that are left out, for people; empty where every one has its place."""
    held = tensor_files.entries(folder)
    names = Names(model).left_out(held)
    if not names:
        return ""
    parts = list(dict.fromkeys(".".join(name.split(".")[: 3 if ".layers." in f".{name}" else 2]) for name in names))
    named = ", ".join(parts[:_NAMED]) + (f" and {len(parts) - _NAMED} more" if len(parts) > _NAMED else "")
    return f"a checkpoint of which {len(names)} of {len(held)} tensors ({named}) have no place in {type(model).__name__}: they are left out here and in exports"


def by_configuration(model: Any, config: Any) -> str:
    """The same before weights are read, from the configuration of the checkpoint and that of the model that is built of it."""
    found = []
    if type(model.config) is not type(config):
        found += [key for key in getattr(config, "sub_configs", {}) if getattr(config, key, None) is not None and key != "text_config"]
    text = config.get_text_config(decoder=True)
    found += [f"{count} layer(s) of multi-token prediction" for count in {getattr(text, key, 0) or 0 for key in PREDICTION} if count]
    if not found:
        return ""
    return f"{type(model).__name__} has no place for {', '.join(found)}: if the checkpoint holds it, it is left out here and in exports"
