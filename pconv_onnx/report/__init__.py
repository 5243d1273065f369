"""The report of a benchmark: one page, its figures, and the raw document."""
