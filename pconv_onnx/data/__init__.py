"""Samples: where they lie, how they are read and checked, and how they are handed to a model."""
