"""What onnxruntime and onnx say becomes one sentence, without what only their authors can read."""

from __future__ import annotations

import onnx
import onnx.parser
import onnxruntime
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
        (
            "[ONNXRuntimeError] : 1 : FAIL : Node () Op (MatMul) [ShapeInferenceError] Incompatible dimensions for "
            "matrix multiplication",
            "MatMul: the inner sizes of its matrices differ: correct the weights, or the shape of the input",
        ),
        (
            "[ONNXRuntimeError] : 1 : FAIL : Node (join) Op (Concat) [ShapeInferenceError] Can't merge shape info. "
            "Both inferred and declared dimension have values but they differ. Inferred=5 Declared=4 Dimension=1",
            "Concat 'join': axis 1 has two sizes, 5 and 4, by its inputs or by what is declared: correct the shapes",
        ),
        (
            "[ONNXRuntimeError] : 1 : FAIL : Fatal error: my.dom:Foo(-1) is not a registered function/op",
            "no operator Foo of the domain my.dom is registered: register the library that has it, or export it as "
            "standard operators",
        ),
        (
            "[ONNXRuntimeError] : 1 : FAIL : Fatal error: com.microsoft:Foo(-1) is not a registered function/op",
            "this onnxruntime has no operator Foo: install the one that it was written for, or export it as standard "
            "operators",
        ),
        (
            "[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Could not find an implementation for HardSigmoid(6) node with "
            "name 'gate'",
            "HardSigmoid 'gate': onnxruntime does not compute it (version 6) in the types that it has here: compute "
            "it in float32",
        ),
        (
            "[ONNXRuntimeError] : 1 : FAIL : Type Error: Type parameter (T) of Optype (Add) bound to different types "
            "(tensor(int64) and tensor(float) in node ().",
            "Add: its inputs are of different types, int64 and float: cast one of them",
        ),
        (
            "[ONNXRuntimeError] : 1 : FAIL : Type Error: Type (tensor(int8)) of output arg (y) of node () does not "
            "match expected type (tensor(float)).",
            "'y' is declared as int8 and is float: correct what is declared (value_info, outputs), or leave it out",
        ),
        (
            "[ShapeInferenceError] Inferred shape and existing shape differ in rank: (0) vs (1)",
            "a tensor of rank 0 is declared with rank 1: correct what is declared (value_info, outputs), or leave it "
            "out",
        ),
        (
            "[ShapeInferenceError] Inferred shape and existing shape differ in dimension 2: (3) vs (4)",
            "a tensor whose axis 2 has the size 3 is declared with 4: correct what is declared (value_info, outputs), "
            "or leave it out",
        ),
        (
            "[TypeInferenceError] Inferred elem type differs from existing elem type: (1) vs (3)",
            "a tensor of float is declared as int8: correct what is declared (value_info, outputs), or leave it out",
        ),
    ],
)  # fmt: skip
def test_the_sentence_that_matters_is_left(said, reason):
    assert reason_of(RuntimeError(said)) == reason


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ("y = MatMul (x, x)", "MatMul: the inner sizes of its matrices differ"),
        ("y = my.dom.Foo (x)", "no operator Foo of the domain my.dom is registered"),
        ("i = Cast <to = 7> (x) y = Add (i, x)", "Add: its inputs are of different types, int64 and float"),
        ("d = Cast <to = 11> (x) y = HardSwish (d)", "HardSigmoid: onnxruntime does not compute it"),
        ("y = Concat <axis = 0> (x, w)", "Concat: axis 1 has two sizes, "),
    ],
)
def test_what_onnxruntime_says_is_known(nodes, reason):
    """As the installed one says it."""
    header = '<ir_version: 8, opset_import: ["" : 17, "my.dom" : 1]> g (float[2, 3] x) => (y) <float[1, 2] w = {1, 2}>'
    model = onnx.parser.parse_model(f"{header} {{ {nodes} }}")
    with pytest.raises(Exception) as raised:  # noqa: PT011 -- onnxruntime raises its own types, without a common base
        onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert reason_of(raised.value).startswith(reason)
