"""What stands behind the stage `replaceme_core.evaluation.evaluate`.

suites -> task_files, own_items, task_index (what is asked)    harness, probe (the asking)    store (results on disk)
shared_requests (log-likelihoods of several models: what they share once) over prefix_tree, packed_rows
scores (what comes out)    paired (tests between two models)    tables, harness_files (export and import)
"""
