"""An operator of its own domain, whose tensors have different element types, made of the native library's parts."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from native_build import build
from onnx.parser import parse_model

from pconv_onnx import register

pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")]

INTEGERS = pytest.mark.parametrize("dtype", [np.int32, np.int8])


@pytest.fixture(scope="module")
def counting(tmp_path_factory) -> Path:
    """The library of `pconv.test::ThresholdCount`."""
    folder = tmp_path_factory.mktemp("types")
    done = build(folder, "test_types")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "libtest_types.so"


def model(dtype: object, *, count: str = "uint8") -> onnx.ModelProto:
    """The counts, and what a Cast makes of them."""
    return parse_model(f"""
        <ir_version: 8, opset_import: ["" : 13, "pconv.test" : 1]>
        counting ({np.dtype(dtype).name}[N, C] current, int32[S] thresholds) => ({count}[N, C] counts, int32[N, C] wide)
        {{
            counts = pconv.test.ThresholdCount (current, thresholds)
            wide = Cast <to = 6> (counts)
        }}
    """)


def session(library: Path, proto: onnx.ModelProto, *, besides: bool = False) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.register_custom_ops_library(str(library))
    if besides:
        register(options)
    return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def drawn(dtype: object, shape: tuple[int, ...], steps: int) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
    current = draw.integers(least, most, shape, dtype, endpoint=True)
    return {"current": current, "thresholds": draw.integers(least, most, steps, np.int32, endpoint=True)}


@INTEGERS
@pytest.mark.parametrize("shape, steps", [((3, 5), 7), ((3, 5), 0), ((0, 5), 7), ((129, 1000), 255)])
def test_integers_are_counted_in_another_type(counting, dtype, shape, steps):
    arrays = drawn(dtype, shape, steps)
    counts, wide = session(counting, model(dtype)).run(None, arrays)
    assert counts.dtype == np.uint8
    reached = (arrays["current"][..., None] >= arrays["thresholds"]).sum(axis=-1)
    np.testing.assert_array_equal(counts, reached)
    np.testing.assert_array_equal(wide, reached)


def test_a_type_that_the_operator_does_not_declare_is_refused(counting):
    with pytest.raises(Exception, match="ThresholdCount"):
        session(counting, model(np.int16))
    with pytest.raises(Exception, match="Type Error"):
        session(counting, model(np.int32, count="int8"))


def test_the_shape_of_the_counts_is_known_before_a_run(counting, tmp_path):
    proto = model(np.int32)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    counts, _ = session(counting, proto).get_outputs()
    assert (counts.type, counts.shape) == ("tensor(uint8)", ["N", "C"])


def test_what_a_kernel_refuses_begins_with_the_name_of_its_operator(counting):
    told = r"ThresholdCount: input 'thresholds' has shape \[256\]; expected \[S\] with S at most 255"
    with pytest.raises(Exception, match=told):
        session(counting, model(np.int32)).run(None, drawn(np.int32, (2, 3), 256))


@pytest.mark.usefixtures("library")
def test_libraries_of_two_domains_serve_one_session(counting):
    arrays = drawn(np.int32, (2, 3), 4)
    alone, beside = (session(counting, model(np.int32), besides=also).run(None, arrays) for also in (False, True))
    np.testing.assert_array_equal(alone[0], beside[0])
