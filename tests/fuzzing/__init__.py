"""Random networks against what they must compute, mutated files and archives, random calls of the operators."""
