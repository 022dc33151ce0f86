"""A model at work: the hooks that read it, passes that go on from a stream, what its logits say, and what it can read at all."""
