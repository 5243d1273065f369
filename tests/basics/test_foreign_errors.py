"""What onnxruntime and onnx say becomes one sentence, without what only their authors can read."""

from __future__ import annotations

import pytest

from pconv_onnx.basics.foreign_errors import reason_of

SOURCES = "/onnxruntime_src/onnxruntime/core"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            "[ONNXRuntimeError] : 10 : INVALID_GRAPH : Load model from /a failed: b.onnx failed:This is an invalid "
            'model. In Node, ("", Foo, "", -1) : ("x": tensor(float),) -> ("y",) , Error No Op registered for Foo with '
            "domain_version of 16",
            "Foo 'y': No Op registered for Foo with domain_version of 16",
        ),
        (
            "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Add node. Name:'' Status "
            f"Message: {SOURCES}/providers/cpu/math/element_wise_ops.h:563 void onnxruntime::BroadcastIterator::Init("
            "ptrdiff_t, ptrdiff_t) axis == 1 || axis == largest was false. Attempting to broadcast an axis by a "
            "dimension other than 1. 2 by 3\n",
            "Add: Attempting to broadcast an axis by a dimension other than 1. 2 by 3",
        ),
        (
            "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running MaxPool node. Name:'p' Status "
            f"Message: {SOURCES}/nn/pool_attributes.h:236 int64_t onnxruntime::PoolAttributes::ComputeOutputSize("
            "int64_t) const out_size >= 0 was false. Calculated output dimension is negative.\n",
            "MaxPool 'p': Calculated output dimension is negative.",
        ),
        (
            "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running MatMul node. Name:'' Status "
            "Message: matmul_helper.h:59 Compute MatMul dimension mismatch",
            "MatMul: MatMul dimension mismatch",
        ),
        (
            f"[ONNXRuntimeError] : 1 : FAIL : Exception during initialization: {SOURCES}/graph/model.cc:245 onnxruntime"
            "::Model::Model(onnx::ModelProto&&, const onnxruntime::ModelOptions&) [with T = float] Missing opset.",
            "Missing opset.",
        ),
        (
            "[ONNXRuntimeError] : 10 : INVALID_GRAPH : Input 'w' of node: \nname:  OpType: Relu\n is not there.",
            "Input 'w' of node: name: OpType: Relu is not there.",
        ),
        ("inliner.cc:418: GetType: Assertion `false` failed: Type unknown for t\nin a file", "Type unknown for t"),
        ("CUDA failure 2: out of memory ; GPU=0 ; hostname=h ; file=/a/b.cc ; line=4", "CUDA failure 2: out of memory"),
        ("Required inputs (['x']) are missing from input feed ([]).", "Required inputs (['x']) are missing from input "
         "feed ([])."),
        ("", "RuntimeError"),
    ],
)  # fmt: skip
def test_the_sentence_that_matters_is_left(said, reason):
    assert reason_of(RuntimeError(said)) == reason
