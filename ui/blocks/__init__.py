"""The Blocks page: the matrix, the places of one length, and the choice of a span.

Read state and layers (one record per layer of the matrix), then view (heatmap, savings, time), table and clicks (a cell chooses the span);
ranking, places and profile (which place for this length); pin (two choices side by side), several (more spans than one), search (quality
against depth, measured), linearity (another method's score).
"""
