"""Export: a folder that plain transformers loads, its card, its recipe; and the runs that made it."""
