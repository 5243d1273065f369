"""Decisions about a network, made here and nowhere else."""
