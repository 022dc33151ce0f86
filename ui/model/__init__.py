"""The Model page: which model, and which text it is measured on.

Read form (the model and its memory), calibration_form with sources (the text), stored (what the pass writes to the disk), preview, unload.
"""
