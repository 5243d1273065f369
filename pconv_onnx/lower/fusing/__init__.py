"""A network of integers in floats becomes one of uint8 counts and int8 weights, neurons in the layers before them."""
