"""How things look: palette, sizes, charts' style, the strip of blocks, words. Knows no session."""
