"""The Fit page: methods, the report, pictures of T, variants."""
