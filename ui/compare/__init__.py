"""The Compare page: what every system writes, expects and costs.

Read systems (which stand side by side), generation (one prompt and all that was made of it) and jobs (who makes it); then asking
with prompts, writing, reading with reading_pictures, lens with lens_picture; figures (one record per measured figure) and heldout (charts and table of them).
"""
