"""Opsets as parameters of a test: those that the installed onnxruntime does not run are skipped."""

from __future__ import annotations

import onnx
import onnx.parser
import onnxruntime
import pytest

# onnxruntime 1.23 knows opset 23, but not these operators there.
PAIR = "q = QuantizeLinear (x, one) y = DequantizeLinear (q, one)"


def known(opset: int, nodes: str = "y = Identity (x)") -> bool:
    """Whether onnxruntime runs these nodes, from `x` to `y` and with a constant `one`, in models of that opset."""
    head = f'<ir_version: 8, opset_import: ["" : {opset}]> known (float[1] x) => (float[1] y) <float one = {{1}}>'
    model = onnx.parser.parse_model(f"{head} {{ {nodes} }}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), options)
    except Exception as error:  # onnxruntime raises its own types, without a common base
        assert "opset" in str(error) or "NOT_IMPLEMENTED" in str(error), error
        return False
    return True


def opsets(*versions: int, nodes: str = "y = Identity (x)") -> list:
    reason = f"onnxruntime {onnxruntime.__version__} does not run '{nodes}' in opset"
    return [
        pytest.param(version, marks=pytest.mark.skipif(not known(version, nodes), reason=f"{reason} {version}"))
        for version in versions
    ]
