"""Turns a network whose floats hold integers into layers with uint8 counts, int8 weights and neurons inside."""
