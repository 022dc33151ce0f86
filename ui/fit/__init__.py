"""The Fit page: what stands in for the removed blocks.

Read view (the fit and its report), method_form with refit (the settings), keep (a fit becomes a variant), charts; then tokens with
token_strip (where it misses), variants (what was kept), heal (training).
"""
