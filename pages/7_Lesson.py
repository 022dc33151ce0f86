"""Lesson: a guided walk of twelve cards beside measured figures; it needs no model."""

from ui.frame.page import page
from ui.lesson import frame as lesson_frame

with page("lesson") as state:
    lesson_frame.lesson(state)
