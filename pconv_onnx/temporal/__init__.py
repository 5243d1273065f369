"""What becomes of time: kinds of tensors, and for each ONNX operator what it does to them."""
