"""Models in onnxruntime: opening them, stepping them through time, running several side by side."""
