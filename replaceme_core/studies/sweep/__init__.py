"""A sweep: many methods at many places, written point by point."""
