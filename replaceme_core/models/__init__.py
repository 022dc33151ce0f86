"""Models: which families there are, where a checkpoint is, how it is loaded, and the hooks that read it."""
