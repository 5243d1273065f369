"""The project's operator domain, and what its operators ask of a model and of onnxruntime."""

from __future__ import annotations

DOMAIN = "pconv"
VERSION = 3

# GreaterOrEqual, Clip and Split with the signatures that the body and the lowerings use.
MIN_OPSET = 13

# The oldest that tests run with.
MIN_ONNXRUNTIME = "1.20"
