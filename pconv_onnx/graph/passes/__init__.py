"""Passes over a loaded network, one a module. Each returns a network with the same values in other operators."""
