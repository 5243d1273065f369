"""The proof that a network's sums are exact, by a rule for each operator."""
