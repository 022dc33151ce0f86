"""The Compare page: what every system writes, expects and costs."""
