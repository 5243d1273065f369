"""The places where networks run, by the names that users have for them."""

from typing import Any

# As onnxruntime takes them; on CUDA without TF32, which would round inputs of convolutions to 10 bits.
PROVIDERS: dict[str, list[Any]] = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": [("CUDAExecutionProvider", {"use_tf32": "0"})],
}
