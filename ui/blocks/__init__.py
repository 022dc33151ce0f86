"""The Blocks page: the matrix, the profile, the choice of a span."""
