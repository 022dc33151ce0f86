"""The Model page: which model, and which text it is measured on.

Read form (the model and its memory), calibration_form with sources (the text), keep_form (what the pass keeps), preview, unload.
"""
