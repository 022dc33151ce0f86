"""The demo model's workshop: a small world, a tokenizer, a training script, benchmark tasks and the lesson.

Everything in `assets/demo` is made by this package: `python -m demo.train`, `python -m demo.tasks`,
`python -m demo.lesson`. `replaceme_core` and the app never import it.
"""
