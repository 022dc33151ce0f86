"""The Lesson page: twelve cards beside measured figures; it needs no model and no torch.

Read data (the bundled figures), frame (which card, whose figures), cards with block, repair, game and gallery (what they show), charts and parts.
"""
