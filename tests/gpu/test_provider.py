"""The operators and rewritten networks on onnxruntime's CUDA provider: the values of the CPU provider.

Networks whose convolutions are exact in any order are compared bit by bit. TF32 is off.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import onnxruntime
import pytest
from networks import network, qcfs
from operator_cases import DTYPES, SHAPES, TYPES, WRONG, case, in_kernel, model, run
from serial_operator_cases import assert_same_bits
from serial_operator_cases import case as serial_case
from serial_operator_cases import in_kernel as in_serial_kernel
from serial_operator_cases import model as serial_model
from serial_operator_cases import run as run_serial

from pconv_onnx import rewrite, session, verify
from pconv_onnx.operators.library import register

pytestmark = [
    pytest.mark.usefixtures("cuda_provider"),
    pytest.mark.filterwarnings("ignore:(invalid value|overflow):RuntimeWarning"),
]


def provider(**options) -> list[tuple[str, dict[str, str]]]:
    return [("CUDAExecutionProvider", {"use_tf32": "0", **options})]


def gpu_only() -> onnxruntime.SessionOptions:
    """Options of sessions that rather fail than run anything on the CPU."""
    options = register(onnxruntime.SessionOptions())
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.log_severity_level = 4
    return options


def on_gpu(arrays, attributes, **options) -> np.ndarray:
    """Without a function body, so that nothing but the CUDA kernel can answer."""
    return run(model(arrays, attributes, with_body=False), arrays, gpu_only(), provider(**options))


@pytest.fixture(scope="module")
def exact_network() -> onnx.ModelProto:
    """Weights and inputs of few bits: sums are exact, and so the same on every provider."""
    generator = np.random.default_rng(0)

    def weight(*shape: int) -> np.ndarray:
        return generator.integers(-2, 3, shape).astype(np.float32) / 4

    nodes = f"""
        c = Conv <pads = [1, 1, 1, 1]> (x, w) {qcfs("c", "a")}
        d = Conv <pads = [1, 1, 1, 1]> (a, v) {qcfs("d", "b")}
        s = Add (a, b)
        p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (b)
        e = Conv (p, u) {qcfs("e", "g")}
        f = Flatten (g)
        z = MatMul (f, t)
        q = GlobalAveragePool (s)
        r = Flatten (q)
        y = Concat <axis = 1> (z, r)
    """
    weights = {"w": weight(8, 3, 3, 3), "v": weight(8, 8, 3, 3), "u": weight(4, 8, 1, 1), "t": weight(64, 5)}
    return network(nodes, outputs="float[N, 13] y", weights=weights)


def inputs(batch: int) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).integers(-8, 9, (batch, 3, 8, 8)).astype(np.float32) / 4}


@pytest.mark.every_pair(
    {
        "shape, rows, axis": SHAPES,
        "steps, input_steps, spikes": [(8, 8, 1), (8, 1, 0), (5, 3, 0), (100, 1, 1), (255, 2, 0)],
        "dtype": DTYPES,
    }
)
def test_operator_gives_the_value_of_the_cpu(shape, rows, axis, steps, input_steps, spikes, dtype):
    arrays, attributes = case(
        shape, steps=steps, rows=rows, axis=axis, input_steps=input_steps, spikes=spikes, dtype=dtype
    )
    np.testing.assert_array_equal(on_gpu(arrays, attributes), in_kernel(arrays, attributes))


@pytest.mark.parametrize("shape, rows, axis", SHAPES)
@TYPES
def test_serial_operator_gives_the_bits_of_the_cpu(shape, rows, axis, dtype):
    arrays, attributes = serial_case(shape, rows=rows, axis=axis, dtype=dtype)
    one = serial_model(arrays, attributes, with_body=False)
    assert_same_bits(run_serial(one, arrays, gpu_only(), provider()), in_serial_kernel(arrays, attributes))


@pytest.mark.parametrize("spikes", [0, 1])
def test_an_empty_batch_gives_an_empty_output(spikes):
    arrays, attributes = case((2, 3, 4), steps=5, spikes=spikes)
    arrays["current"] = arrays["current"][:0]
    assert on_gpu(arrays, attributes).shape == (0, 3, 4)


@pytest.mark.parametrize("name, spoil", WRONG)
def test_faults_are_statuses_that_name_the_input(name, spoil):
    arrays, attributes = case((4, 3, 5), steps=4, rows=3, input_steps=1)
    spoil(arrays, attributes)
    with pytest.raises(Exception, match=f"ParallelSpike.*{name}"):
        on_gpu(arrays, attributes)


def test_several_sessions_in_several_threads_do_not_disturb_each_other():
    cases = [case((4, 8, 31), steps=8, rows=8, input_steps=1 + i % 3, seed=i) for i in range(12)]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda pair: on_gpu(*pair), cases))
    for pair, output in zip(cases, found, strict=True):
        np.testing.assert_array_equal(output, in_kernel(*pair))


def test_a_stream_of_the_user_is_used(device):
    arrays, attributes = case((16, 64, 32, 32), steps=8, rows=64, input_steps=8)
    stream = device.make_stream()
    found = on_gpu(arrays, attributes, has_user_compute_stream="1", user_compute_stream=str(stream))
    np.testing.assert_array_equal(found, in_kernel(arrays, attributes))


@pytest.mark.parametrize("place", ["cpu", "cuda"])
@pytest.mark.parametrize("providers", [["CPUExecutionProvider"], provider()], ids=["on-cpu", "on-cuda"])
def test_tensors_of_the_other_device_are_copied_or_refused(place, providers):
    arrays, attributes = case((4, 3, 5), steps=4)
    options = register(onnxruntime.SessionOptions())
    content = model(arrays, attributes, with_body=False).SerializeToString()
    runner = onnxruntime.InferenceSession(content, options, providers=providers)
    values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array, place, 0) for name, array in arrays.items()}
    binding = runner.io_binding()
    binding.bind_output("output", "cpu")
    try:
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
        runner.run_with_iobinding(binding)
    except Exception as error:  # onnxruntime raises its own types, without a common base
        assert str(error)
    else:
        np.testing.assert_array_equal(binding.copy_outputs_to_cpu()[0], in_kernel(arrays, attributes))
    np.testing.assert_array_equal(runner.run(None, arrays)[0], in_kernel(arrays, attributes))


def test_no_free_memory_is_told_and_the_next_run_works(exact_network):
    runner = session(rewrite(exact_network, mode="parallel").model, providers=provider(gpu_mem_limit=str(256 << 20)))
    expected = runner.run(None, inputs(4))[0]
    with pytest.raises(Exception, match="(?i)memory|alloc"):
        runner.run(None, inputs(1 << 16))
    np.testing.assert_array_equal(runner.run(None, inputs(4))[0], expected)


@pytest.mark.parametrize("mode", ["parallel", "folded"])
@pytest.mark.parametrize("layout", ["0", "1"], ids=["NCHW", "NHWC"])
@pytest.mark.parametrize("precision", [None, "float16"])
def test_a_network_gives_the_value_of_the_cpu_in_either_layout(exact_network, mode, layout, precision):
    spiking = rewrite(exact_network, mode=mode, precision=precision).model
    expected = session(spiking).run(None, inputs(5))[0]
    found = session(spiking, providers=provider(prefer_nhwc=layout)).run(None, inputs(5))[0]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("mode", ["parallel", "folded"])
@pytest.mark.parametrize("precision", [None, "float16"])
def test_every_layer_of_a_network_counts_as_its_source_does(mode, precision, qcfs_resnet, resnet_samples, tmp_path):
    rewrite(qcfs_resnet, tmp_path / "snn.onnx", mode=mode, precision=precision)
    feed = {"image": resnet_samples["image"][:20]}
    verified = verify(qcfs_resnet, tmp_path / "snn.onnx", feed, providers=provider())
    assert verified.load_errors == {}
    assert [layer.mismatches for layer in verified.layers] == [0] * 19


@pytest.mark.parametrize("mode", ["parallel", "folded"])
def test_a_cuda_graph_gives_what_runs_without_it_give(mode, qcfs_resnet, resnet_samples):
    spiking = rewrite(qcfs_resnet, mode=mode).model
    images = resnet_samples["image"]
    options = onnxruntime.SessionOptions()
    name = spiking.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    options.add_free_dimension_override_by_name(name, 10)
    captured = session(spiking, providers=provider(), options=options, cuda_graph=True)
    plain = session(spiking, providers=provider())
    for first in (0, 10, 20, 30):
        feed = {"image": images[first : first + 10]}
        np.testing.assert_array_equal(captured.run(None, feed)[0], plain.run(None, feed)[0])
