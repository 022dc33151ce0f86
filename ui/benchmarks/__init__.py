"""The Benchmarks page: scores side by side, tests, flips."""
