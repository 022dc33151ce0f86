"""The Sweep page: many methods at many places, as a queue.

Read form (what to try), jobs (run it; make a point the current variant), view (what came out), charts.
"""
