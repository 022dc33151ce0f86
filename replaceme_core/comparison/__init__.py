"""Original and pruned side by side: what they expect, write, and how fast they are."""
