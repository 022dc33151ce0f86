"""A plan: one reproducible run as data, section by section."""
