"""The Export page: checks, folder or zip, run config.

Read view, then checks (the checklist), jobs (who writes).
"""
