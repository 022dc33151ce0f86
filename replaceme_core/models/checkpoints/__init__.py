"""From a path or an id to weights: where a checkpoint is, how it lies there, and what it holds that a model has no place for."""
