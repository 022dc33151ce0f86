"""Which blocks: spans and the criteria that rank them."""
