"""The Methods page: this project's methods and the field's on one table.

Read view, then jobs (the file of finished rows), chart.
"""
