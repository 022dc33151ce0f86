"""What one session knows, and the long work it starts."""
