"""The Benchmarks page: scores side by side.

Read form (what is asked), jobs (what is scored already, and the rest), view (averages, bars, the table), flips (which answers changed),
files (scores there and back), columns (which variants).
"""
