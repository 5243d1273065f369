"""The target `nir`, and the translation to it."""
