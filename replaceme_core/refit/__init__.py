"""Refits: the weights that stay are solved anew, so that the pruned model's stream meets the intact one's. Same shapes, nothing added.

Read refit (`fit`), then walk (block after block), streams (pruned and intact side by side), layers, sums, ridge_path and update (one layer in closed
form), gradient_steps (which is training), report (what the report says).
"""

from replaceme_core.refit.refit import METHODS, fit, n_solved, needed_bytes, require_in_memory

__all__ = ["METHODS", "fit", "n_solved", "needed_bytes", "require_in_memory"]
