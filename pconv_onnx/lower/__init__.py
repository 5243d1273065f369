"""Writes the graph that a plan describes."""
