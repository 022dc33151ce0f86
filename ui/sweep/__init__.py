"""The Sweep page: many methods at many places."""
