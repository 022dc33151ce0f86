"""Surgery: cut, merge, mend, in memory and on disk."""
