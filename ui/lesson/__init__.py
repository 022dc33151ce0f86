"""The Lesson page: ten cards beside measured figures; it needs no model and no torch.

Read data (the bundled figures), frame (which card), cards with repair, game and gallery (what they show), charts and parts.
"""
