"""The target `c`: a network of integers as plain C99."""
