"""Samples: where they lie, how they are read and checked, and how a model gets them."""
