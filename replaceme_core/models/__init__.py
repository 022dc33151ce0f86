"""Models: architectures, checkpoints and how they run; above these, how one is loaded, held quantised and told from another."""
