"""Kinds of tensors in time, and for each ONNX operator the rule for what it does to them."""
