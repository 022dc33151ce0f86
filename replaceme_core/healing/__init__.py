"""Healing, which is training: a pruned variant is trained briefly so that its next-token probabilities meet the original's.

Read healing (`heal`), then training (the loop), healers (T alone, or LoRA), state (what the next step depends on), checkpoints (on disk).
"""

from replaceme_core.healing.healing import default_rate, heal, healed_name

__all__ = ["default_rate", "heal", "healed_name"]
