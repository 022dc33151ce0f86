"""Lesson: a guided walk of ten cards beside measured figures; it needs no model."""

from ui import lesson_frame
from ui.frame.boot import page

with page("lesson") as state:
    lesson_frame.lesson(state)
