"""Integer weights: rounding them, the network in integers, and the proof that its sums are exact."""
