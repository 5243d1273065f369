"""Opsets as parameters of a test: those that the installed onnxruntime does not know are skipped."""

from __future__ import annotations

import onnxruntime
import pytest
from onnx import TensorProto, helper


def known(opset: int) -> bool:
    """Whether onnxruntime runs models of that opset."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "identity", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), options)
    except Exception as error:  # onnxruntime raises its own types, without a common base
        assert "opset" in str(error), error
        return False
    return True


def opsets(*versions: int) -> list:
    reason = f"onnxruntime {onnxruntime.__version__} does not know opset"
    return [
        pytest.param(version, marks=pytest.mark.skipif(not known(version), reason=f"{reason} {version}"))
        for version in versions
    ]
