"""The Methods page: the field's methods and ours on one table."""
