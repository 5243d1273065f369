"""Models in onnxruntime: opened, stepped through time, and run side by side."""
