"""Proof that the sums of a network are exact: what is known of its tensors, one row an operator."""
