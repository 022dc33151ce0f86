"""Refits: the weights that stay are solved anew, so that the pruned model's stream meets the intact one's. Same shapes, nothing added.

Read requirements (what it asks of model, cut and settings) and refit (`fit`), then walk (block after block), streams (pruned and intact side by side), layers, sums, ridge_path and update (one layer in closed
form), exchange, neurons and elimination (neurons of removed blocks in a kept one), gradient_steps (which is training), report (what the report says).
"""

from replaceme_core.refit.refit import fit
from replaceme_core.refit.requirements import METHODS, n_solved, needed_bytes, require_fits

__all__ = ["METHODS", "fit", "n_solved", "needed_bytes", "require_fits"]
