"""The Export page: checks, folder, recipe."""
