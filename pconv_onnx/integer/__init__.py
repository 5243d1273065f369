"""Networks of integers: what proves that their sums are exact."""
