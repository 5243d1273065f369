"""Random networks against what they must compute."""
