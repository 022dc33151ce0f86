"""The Lesson page: ten cards beside live figures."""
