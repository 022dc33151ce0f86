"""The plain suite: an offline benchmark in plain English that any language model can take.

Everything in `assets/tasks/plain` is made by this package from word lists and templates of our own: `python -m plain.tasks`.
`words/` holds the lists, `drafts` turns a question with its answer into an item, the other files are the families by subject.
`python -m plain.measure --model FOLDER` measures a model on it, beside two controls.
"""
