"""What one session knows, and the long work it starts.

Read state (with its slots), hub (the models), jobs and work (how long work runs); then live (results without a job), methods, variants and
results (what was kept and measured); link (an address as data), calibration_choice, access, warm.
"""
