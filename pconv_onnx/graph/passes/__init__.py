"""Passes over a loaded network, one a module: each gives a network of the same values in other operators."""
