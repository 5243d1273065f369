"""Tuning by gradients, with PyTorch: what `refit` found is the start."""
