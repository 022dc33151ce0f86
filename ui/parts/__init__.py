"""Controls and pictures that several pages share and that know the session.

Read span (the slider and the strip of blocks) and job_panel (the running job) first; chart and heatmap, intervals (pictures); measure,
folder, quantised, links, start (small controls).
"""
