"""The app: one folder per page over parts, session and look; frame draws what all pages have in common.

Arrows go down only: frame and pages -> parts -> session -> look -> replaceme_core. No page folder reads another, and none reads frame.
Read session/state first, then one page (pages/2_Blocks.py, and the functions it calls).
"""
