"""What is written for NIR, run by the interpreter of NIR's own project, gives the spikes of the serial network."""

from __future__ import annotations

import json
import re
import sys

import nir
import nirtorch
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from networks import network, qcfs
from onnxruntime.quantization import CalibrationDataReader, QuantType, quant_utils, quantize_static
from opsets import PAIR, opsets
from refusals import refusal_of

from pconv_onnx import SerialSession, deploy, rewrite
from pconv_onnx.cli.main import main


def sixteenths(*shape: int, seed: int = 0) -> np.ndarray:
    """Weights whose sums with spikes of a power of two are exact in float32, in whatever order."""
    return np.random.default_rng(seed).integers(-16, 17, shape).astype(np.float32) / 16


def images(count: int = 4, *shape: int) -> np.ndarray:
    return sixteenths(count, *(shape or (3, 8, 8)), seed=9) * 4


class Neurons(torch.nn.Module):
    """Integrate-and-fire with what the metadata tell."""

    def __init__(self, node: nir.IF) -> None:
        super().__init__()
        assert node.metadata["reset"] == "subtract"
        self.threshold, self.initial = map(torch.from_numpy, (node.v_threshold, node.metadata["v_initial"]))

    def forward(self, x, state=None):
        potential, count = (self.initial, 0) if state is None else state
        potential = potential + x
        spikes = (potential >= self.threshold).to(x.dtype)
        return spikes, (potential - self.threshold * spikes, count + spikes)


def affine(node: nir.Affine) -> torch.nn.Module:
    """As nirtorch maps it, with the bias that nirtorch 2.6 leaves random."""
    layer = torch.nn.Linear(*node.weight.shape[::-1])
    layer.weight.data, layer.bias.data = torch.from_numpy(node.weight), torch.from_numpy(node.bias)
    return layer


def written(model, tmp_path):
    """The network in mode `serial`, and what is read of it as NIR."""
    snn = tmp_path / "snn.onnx"
    rewrite(model, snn, mode="serial")
    deploy(snn, tmp_path / "out", target="nir", allow_lossy=True)
    return snn, nir.read(tmp_path / "out" / "snn.nir")


def assert_same(model, tmp_path, x: np.ndarray | None = None) -> nir.NIRGraph:
    """Equal outputs and spike counts, bit by bit, where all sums are exact."""
    x = images() if x is None else x
    snn, graph = written(model, tmp_path)
    runner = nirtorch.nir_to_torch(graph, {nir.IF: Neurons, nir.Affine: affine})
    with_spikes = onnx.load(snn)
    neurons = [node for node in with_spikes.graph.node if node.op_type == "SerialSpike"]
    with_spikes.graph.output.extend(onnx.ValueInfoProto(name=node.output[0]) for node in neurons)
    session = SerialSession(onnx.shape_inference.infer_shapes(with_spikes))
    expected, *spikes = session.run_per_step(None, {"x": x})
    state, outputs = None, []
    with torch.no_grad():
        for _ in range(session.steps):
            output, state = runner(torch.from_numpy(x), state)
            outputs.append(output.numpy())
    np.testing.assert_array_equal(np.stack(outputs), expected)
    assert neurons
    counts = {name: value[1].numpy() for name, value in state.items() if value is not None}
    for node, train in zip(neurons, spikes, strict=True):
        assert train.any()
        np.testing.assert_array_equal(counts[node.name.replace(".", "_")], (train != 0).sum(axis=0))
    return graph


def kinds(graph: nir.NIRGraph) -> dict[str, int]:
    names = [type(node).__name__ for node in graph.nodes.values()]
    return {name: names.count(name) for name in sorted(set(names))}


def convolutions(last: str = "y = Gemm (f, u, z)", output: str = "float[N, 5] y") -> onnx.ModelProto:
    nodes = f"""
        c = Conv <pads = [1, 1, 1, 1]> (x, w, k) {qcfs("c", "a")}
        d = Conv <strides = [2, 2], dilations = [2, 2], group = 2> (a, v) {qcfs("d", "b")}
        f = Flatten (b)
        {last}
    """
    weights = {
        **{"w": sixteenths(4, 3, 3, 3), "k": sixteenths(4), "v": sixteenths(6, 2, 3, 3, seed=1)},
        **{"u": sixteenths(24, 5, seed=2), "z": sixteenths(5, seed=3)},
    }
    return network(nodes, outputs=output, weights=weights)


def test_convolutions_with_pads_strides_dilations_and_groups(tmp_path):
    graph = assert_same(convolutions(), tmp_path)
    assert kinds(graph) == {"Affine": 1, "Conv2d": 2, "Flatten": 1, "IF": 2, "Input": 1, "Output": 1}
    assert graph.metadata["steps"] == 4


def test_a_matrix_and_its_sum_are_one_layer(tmp_path):
    graph = assert_same(convolutions("m = MatMul (f, u) y = Add (m, z)"), tmp_path)
    assert kinds(graph)["Affine"] == 1


def test_spikes_as_the_output_have_their_amplitude(tmp_path):
    last = f"m = Gemm (f, u, z) {qcfs('m', 'y')}"
    graph = assert_same(convolutions(last), tmp_path)
    assert kinds(graph)["Affine"] == 2


def test_channels_that_calibration_found_silent_stay_silent(tmp_path):
    """Calibration shifts them by −∞, which becomes the bias of the layer before."""
    silent = np.float32([0, 0, -np.inf, 0]).reshape(4, 1, 1)
    nodes = f"c = Conv (x, w) s = Add (c, silent) {qcfs('s', 'a')} f = Flatten (a) y = Gemm (f, u)"
    weights = {"w": sixteenths(4, 3, 1, 1), "silent": silent, "u": sixteenths(256, 5, seed=2)}
    graph = assert_same(network(nodes, outputs="float[N, 5] y", weights=weights), tmp_path)
    (convolution,) = (node for node in graph.nodes.values() if isinstance(node, nir.Conv2d))
    np.testing.assert_array_equal(convolution.bias, silent[:, 0, 0])


def test_convolutions_along_one_axis(tmp_path):
    nodes = f"c = Conv <strides = [2], pads = [1, 1]> (x, w) {qcfs('c', 'a')} y = Conv (a, v)"
    weights = {"w": sixteenths(4, 3, 3), "v": sixteenths(2, 4, 2, seed=1)}
    model = network(nodes, inputs="float[N, 3, 8] x", outputs="float[N, 2, 3] y", weights=weights)
    assert kinds(assert_same(model, tmp_path, images(4, 3, 8)))["Conv1d"] == 2


def residual(shortcut: str) -> onnx.ModelProto:
    """A sum with spikes themselves, and one with what `shortcut` makes of spikes, in 8 channels of 4 × 4."""
    nodes = f"""
        c = Conv <pads = [1, 1, 1, 1]> (x, w) {qcfs("c", "a")}
        d = Conv <pads = [1, 1, 1, 1]> (a, v)
        e = Add (d, a) {qcfs("e", "b")}
        g = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (b, u)
        {shortcut}
        h = Add (g, s) {qcfs("h", "i")}
        y = GlobalAveragePool (i)
    """
    weights = {
        **{"w": sixteenths(4, 3, 3, 3), "v": sixteenths(4, 4, 3, 3, seed=1), "u": sixteenths(8, 4, 3, 3, seed=2)},
        **{"q": sixteenths(8, 4, 1, 1, seed=3), "start": np.array([0, 0]), "end": np.array([99, 99])},
        **{"axes": np.array([2, 3]), "step": np.array([2, 2]), "wider": np.array([0, 2, 0, 0, 0, 2, 0, 0])},
    }
    return network(nodes, outputs="float[N, 8, 1, 1] y", weights=weights)


@pytest.mark.parametrize(
    "shortcut",
    ["s = Conv <strides = [2, 2]> (b, q)", "j = Slice (b, start, end, axes, step) s = Pad (j, wider)"],
    ids=["convolution", "every second pixel and channels of zeros"],
)
def test_sums_are_edges_into_one_node(shortcut, tmp_path):
    graph = assert_same(residual(shortcut), tmp_path)
    # The spikes of the first shortcut get their amplitude, those of the second are mapped once; the last is the output.
    assert kinds(graph)["Conv2d"] == 6
    assert sorted(count for count in map([end for _, end in graph.edges].count, graph.nodes) if count > 1) == [2, 2]


def test_constants_of_channels_end_in_the_layer_before(tmp_path):
    norm = "n = BatchNormalization <epsilon = 0.0> (c, gamma, beta, mean, variance)"
    nodes = f"""
        t = Sub (x, offset) c = Conv (t, w) {norm} m = Mul (n, twice) {qcfs("m", "a")}
        p = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (a) o = Neg (half)
        r = Add (p, o) y = Flatten (r)
    """
    weights = {
        **{"w": sixteenths(4, 3, 3, 3), "offset": sixteenths(1, 3, 1, 1, seed=4), "twice": 2.0},
        **{"gamma": sixteenths(4, seed=5), "beta": sixteenths(4, seed=6), "mean": sixteenths(4, seed=7)},
        **{"variance": np.full(4, 0.25, np.float32)},
    }
    graph = assert_same(network(nodes, outputs="float[N, 36] y", weights=weights), tmp_path)
    # One layer takes the offset of the input, one is the convolution, and one brings means and their constant.
    assert kinds(graph)["Conv2d"] == 3


def test_thresholds_of_channels_and_biases_of_neurons_are_kept(tmp_path):
    nodes = """
        c = Conv (x, w) i = Add (c, psi) e = Div (i, theta) g = Mul (e, count) h = Add (g, half) j = Floor (h)
        k = Div (j, count) l = Clip (k, zero, one) a = Mul (l, theta) f = Flatten (a) y = MatMul (f, u)
    """
    weights = {"w": sixteenths(4, 3, 3, 3), "psi": sixteenths(4, 1, 1, seed=3), "u": sixteenths(144, 5, seed=1)}
    theta = np.array([1, 2, 4, 8], np.float32).reshape(4, 1, 1)
    model = network(nodes, outputs="float[N, 5] y", weights=weights | {"theta": theta})
    graph = assert_same(model, tmp_path)
    (neurons,) = (node for node in graph.nodes.values() if isinstance(node, nir.IF))
    np.testing.assert_array_equal(neurons.v_threshold, np.broadcast_to(theta, (4, 6, 6)))
    np.testing.assert_array_equal(neurons.metadata["v_initial"], np.broadcast_to(theta / 2, (4, 6, 6)))


def test_the_example_network_is_read_back(qcfs_resnet, tmp_path):
    snn, graph = written(qcfs_resnet, tmp_path)
    # Nine sums: two with mapped spikes, seven with spikes whose amplitude is no 1.
    assert kinds(graph) == {
        **{"Affine": 1, "Conv2d": 28, "Flatten": 1, "IF": 19, "Input": 1, "Output": 1, "SumPool2d": 1}
    }
    runner = nirtorch.nir_to_torch(graph, {nir.IF: Neurons, nir.Affine: affine})
    image = np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)
    with torch.no_grad():
        output, state = runner(torch.from_numpy(image))
    # Before sums of many layers have rounded otherwise, spikes are those of the network.
    (expected,) = SerialSession(snn).step(None, {"image": image})
    np.testing.assert_allclose(output.numpy(), expected, atol=1e-3)


def test_what_is_lost_must_be_allowed_and_is_told(tmp_path, capsys):
    rewrite(convolutions(), tmp_path / "snn.onnx", mode="serial")
    out = tmp_path / "out"
    told = refusal_of(deploy, tmp_path / "snn.onnx", out, target="nir")
    assert told.startswith("nir cannot express all of the network: the reset, ")
    assert told.endswith("`allow_lossy=True` writes the rest")
    assert not out.exists()
    command = ["deploy", str(tmp_path / "snn.onnx"), "-o", str(out), "--target", "nir", "--allow-lossy", "--json"]
    assert main(command) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["files"] == ["README.md", "snn.nir"]
    assert (len(document["losses"]), document["providers"]) == (3, [])
    readme = (out / "README.md").read_text()
    assert all(loss in readme and loss in told for loss in document["losses"])


def test_other_targets_lose_nothing_and_nir_takes_no_gpu(snn, tmp_path):
    assert "leave out `allow_lossy=True`" in refusal_of(deploy, snn, tmp_path / "out", allow_lossy=True)
    assert "leave out `gpu=True`" in refusal_of(deploy, snn, tmp_path / "out", target="nir", gpu=True)


def refused(model, tmp_path) -> str:
    serial = rewrite(model, mode="serial").model
    return refusal_of(deploy, serial, tmp_path / "out", target="nir", allow_lossy=True)


def test_a_parallel_network_is_to_be_rewritten(snn, tmp_path):
    told = refusal_of(deploy, snn, tmp_path / "out", target="nir", allow_lossy=True)
    assert told.startswith("the network is parallel")
    assert told.endswith("`mode='serial'`")
    integers = rewrite(convolutions(), weights="int8").model
    told = refusal_of(deploy, integers, tmp_path / "out", target="nir", allow_lossy=True)
    assert told.endswith("rewrite it with `mode='serial'`, without `weights=`")


CODES = np.random.default_rng(5)


def quantised(kind: type, *shape: int, scales: tuple[int, ...] = (), zero: bool = True) -> dict[str, np.ndarray]:
    """Codes, scales and zero-points, whose values float32 has to round."""
    low, high = np.iinfo(kind).min, np.iinfo(kind).max
    found = {
        "q": CODES.integers(max(low, -(2**30)), min(high, 2**30) + 1, shape).astype(kind),
        "s": CODES.uniform(0.001, 0.01, scales).astype(np.float32),
    }
    return found | ({"z": CODES.integers(low, high + 1, scales).astype(kind)} if zero else {})


def dequantised(codes: dict[str, np.ndarray], axis: int) -> np.ndarray:
    """(q − z)·s in float32."""

    def along(values):
        return values.reshape(-1, *[1] * (codes["q"].ndim - axis - 1)) if values.ndim else values

    difference = codes["q"].astype(np.int64) - along(codes.get("z", np.int64(0)).astype(np.int64))
    return difference.astype(np.float32) * along(codes["s"])


def with_quantised_weights(opset: int, axis: int, conv, gemm, bias) -> onnx.ModelProto:
    """A convolution and a matrix `[features, classes]` whose weights, and the bias of the former, are codes."""

    def node(name: str, codes: dict[str, np.ndarray], axis: int) -> str:
        attribute = f"<axis = {axis}>" if codes["s"].ndim else ""
        return f"{name} = DequantizeLinear {attribute} ({', '.join(f'{name}_{part}' for part in codes)})"

    nodes = f"""
        {node("w", conv, axis)} {node("k", bias, 0)} {node("u", gemm, 1)}
        c = Conv (x, w, k) {qcfs("c", "a")} f = Flatten (a) y = Gemm (f, u)
    """
    held = {"w": conv, "k": bias, "u": gemm}
    weights = {f"{name}_{part}": value for name, codes in held.items() for part, value in codes.items()}
    return network(nodes, outputs="float[N, 5] y", weights=weights, opset=opset)


@pytest.mark.parametrize("opset", range(13, 22))
@pytest.mark.parametrize(
    ("kind", "scales", "axis"), [(np.int8, (), 0), (np.uint8, (), 0), (np.int8, (4,), 0), (np.uint8, (4,), -4)]
)
@pytest.mark.parametrize("zero", [True, False])
def test_weights_behind_a_quantiser_are_its_values_in_every_bit(opset, kind, scales, axis, zero, tmp_path):
    conv = quantised(kind, 4, 3, 3, 3, scales=scales, zero=zero)
    bias = quantised(np.int32, 4, scales=scales, zero=False)
    gemm = quantised(kind, 4 * 36, 5, scales=(5,) if scales else (), zero=zero)
    _, graph = written(with_quantised_weights(opset, axis, conv, gemm, bias), tmp_path)
    (layer,) = (node for node in graph.nodes.values() if isinstance(node, nir.Conv2d))
    np.testing.assert_array_equal(layer.weight, dequantised(conv, 0))
    np.testing.assert_array_equal(layer.bias, dequantised(bias, 0))
    (matrix,) = (node for node in graph.nodes.values() if isinstance(node, nir.Affine))
    # Spikes have the amplitude θ = 2.
    np.testing.assert_array_equal(matrix.weight, 2 * dequantised(gemm, 1).T)


class Images(CalibrationDataReader):
    """Two batches."""

    def __init__(self) -> None:
        self.left = [{"x": images(2)}, {"x": images(2) + 1}]

    def get_next(self):
        return self.left.pop() if self.left else None


def of_quantize_static(tmp_path, opset: int, **options) -> onnx.ModelProto:
    """What onnxruntime makes of a CNN, without the quantisers of its input and output, which no neuron can replace."""
    nodes = "c = Conv (x, w, k) a = Relu (c) f = Flatten (a) y = Gemm (f, u, z)"
    weights = {"w": sixteenths(4, 3, 3, 3), "k": sixteenths(4), "u": sixteenths(144, 5), "z": sixteenths(5)}
    onnx.save(network(nodes, outputs="float[N, 5] y", weights=weights, opset=opset), tmp_path / "float.onnx")
    path = tmp_path / "quantised.onnx"
    quantize_static(tmp_path / "float.onnx", path, Images(), activation_type=QuantType.QUInt8, **options)
    model = onnx.load(path)
    nodes = model.graph.node
    ends = [node for node in nodes if node.name.startswith(("x_", "y_")) or node.input[0].startswith(("x_Q", "y_Q"))]
    for node in ends:
        nodes.remove(node)
    (conv, gemm) = (next(node for node in nodes if node.op_type == op_type) for op_type in ("Conv", "Gemm"))
    conv.input[0], gemm.output[0] = "x", "y"
    return model


@pytest.mark.parametrize("opset", opsets(*range(13, 25), nodes=PAIR))
@pytest.mark.parametrize("by_channel", [False, True])
@pytest.mark.parametrize(
    "kind",
    [
        QuantType.QInt8,
        pytest.param(
            QuantType.QInt4,
            marks=pytest.mark.skipif(
                quant_utils.int4 is None,
                reason=f"onnxruntime {onnxruntime.__version__} quantises to four bits with an older onnx only",
            ),
        ),
    ],
)
def test_weights_that_onnxruntime_quantised_are_those_that_it_computes(opset, by_channel, kind, tmp_path):
    model = of_quantize_static(tmp_path, opset, per_channel=by_channel, weight_type=kind)
    computing = onnx.ModelProto()
    computing.CopyFrom(model)
    del computing.graph.output[:]
    (conv,) = (node for node in model.graph.node if node.op_type == "Conv")
    computing.graph.output.extend(onnx.ValueInfoProto(name=name) for name in conv.input[1:])
    weight, bias = onnxruntime.InferenceSession(computing.SerializeToString()).run(None, {"x": images(1)})
    _, graph = written(model, tmp_path)
    (layer,) = (node for node in graph.nodes.values() if isinstance(node, nir.Conv2d))
    np.testing.assert_array_equal(layer.weight, weight)
    np.testing.assert_array_equal(layer.bias, bias)


@pytest.mark.parametrize("opset", opsets(13, 16, 18, 19, 21, 24))
@pytest.mark.parametrize(
    "spelled",
    [
        "t = DequantizeLinear (q, s, z) w = Transpose <perm = [1, 0]> (t)",
        "r = Reshape (q, shape) t = DequantizeLinear (r, s, z) w = Transpose <perm = [1, 0]> (t)",
        "t = DequantizeLinear (q, s, z) h = Cast <to = 10> (t) g = Cast <to = 1> (h) w = Transpose <perm = [1, 0]> (g)",
    ],
)
def test_what_is_behind_a_quantiser_of_weights_is_computed_as_well(opset, spelled, tmp_path):
    codes = np.arange(-10, 10).astype(np.int8).reshape(5, 4)
    weights = {"q": codes.reshape(4, 5) if "Reshape" in spelled else codes, "s": 0.5, "z": np.array(3, np.int8)}
    held = weights | {"shape": np.array([5, 4])} if "Reshape" in spelled else weights
    model = network(f"{spelled} m = MatMul (x, w) {qcfs('m', 'y')}", inputs="float[N, 4] x", outputs="float[N, 5] y",
                    weights=held, opset=opset)  # fmt: skip
    _, graph = written(model, tmp_path)
    (layer, _) = (node for node in graph.nodes.values() if isinstance(node, nir.Affine))
    np.testing.assert_array_equal(layer.weight, (codes.astype(np.float32) - 3) / 2)


@pytest.mark.parametrize("opset", opsets(19, 21, 24))
def test_scales_of_float16_are_cast_as_the_network_says(opset, tmp_path):
    scale = np.array(0.1, np.float16)
    codes = {"q": np.arange(-10, 10).astype(np.int8).reshape(4, 5), "s": scale}
    nodes = f"h = DequantizeLinear (q, s) w = Cast <to = 1> (h) m = MatMul (x, w) {qcfs('m', 'y')}"
    model = network(nodes, inputs="float[N, 4] x", outputs="float[N, 5] y", weights=codes, opset=opset)
    _, graph = written(model, tmp_path)
    (layer, _) = (node for node in graph.nodes.values() if isinstance(node, nir.Affine))
    np.testing.assert_array_equal(layer.weight.T, (codes["q"].astype(np.float16) * scale).astype(np.float32))


@pytest.mark.parametrize("opset", opsets(21, 23, 24))
@pytest.mark.parametrize("kind", [onnx.TensorProto.INT4, onnx.TensorProto.UINT4])
def test_weights_of_four_bits_are_their_values(opset, kind, tmp_path):
    low = -8 if kind == onnx.TensorProto.INT4 else 0
    nodes = f"w = DequantizeLinear <axis = 1> (q, s, z) m = MatMul (x, w) {qcfs('m', 'y')}"
    scales = np.float32([0.5, 0.25, 1, 2, 0.125])
    model = network(nodes, inputs="float[N, 3] x", outputs="float[N, 5] y", weights={"s": scales, "q": 0.0, "z": 0.0},
                    opset=opset)  # fmt: skip
    codes, zeros = np.arange(low, low + 15).reshape(3, 5), np.arange(low, low + 5)
    for name, values in (("q", codes), ("z", zeros)):
        (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
        tensor.CopyFrom(onnx.helper.make_tensor(name, kind, values.shape, values.reshape(-1)))
    _, graph = written(model, tmp_path)
    (layer, _) = (node for node in graph.nodes.values() if isinstance(node, nir.Affine))
    np.testing.assert_array_equal(layer.weight.T, (codes - zeros) * scales)


def test_a_network_with_quantised_weights_is_what_its_serial_form_is(tmp_path):
    exact = {"q": np.arange(-54, 54).astype(np.int8).reshape(4, 3, 3, 3), "s": np.float32([2**-4, 2**-5, 2**-6, 2**-4])}
    gemm = {"q": (np.arange(4 * 36 * 5) % 31 - 15).astype(np.int8).reshape(-1, 5), "s": np.float32(2**-4)}
    bias = {"q": np.int32([3, -40, 500, 6]), "s": np.float32(2**-6), "z": np.array(0, np.int32)}
    assert_same(with_quantised_weights(17, 0, exact, gemm, bias), tmp_path)


def test_scales_of_another_number_than_the_axis_has_are_one_line(tmp_path):
    codes = {"q": np.zeros((4, 3, 3, 3), np.int8), "s": np.ones(4, np.float32)}
    bias, gemm = quantised(np.int32, 4, zero=False), quantised(np.int8, 144, 5)
    snn = rewrite(with_quantised_weights(17, 0, codes, gemm, bias), mode="serial").model
    (node,) = (node for node in snn.graph.node if node.op_type == "DequantizeLinear" and node.attribute)
    node.attribute[0].i = 1
    told = refusal_of(deploy, snn, tmp_path / "out", target="nir", allow_lossy=True)
    assert "DequantizeLinear" in told


def test_a_quantiser_that_stays_is_told_with_its_name(tmp_path):
    nodes = f"""
        q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) c = Conv (d, w) {qcfs("c", "a")}
        f = Flatten (a) y = Gemm (f, u)
    """
    constants = {"s": 0.1, "z": np.array(7, np.uint8), "w": sixteenths(4, 3, 3, 3)}
    model = network(nodes, outputs="float[N, 5] y", weights={**constants, "u": sixteenths(144, 5)})
    told = refused(model, tmp_path)
    assert told == (
        "QuantizeLinear 'q' has no counterpart in NIR, nor has 1 further node; leave this quantiser out of the ANN, "
        "and rewrite it again"
    )


def test_operators_without_a_counterpart_are_counted(tmp_path):
    turned = "m = Gemm (f, u, z) n = Transpose <perm = [0, 1]> (m) o = Neg (n) y = Neg (o)"
    told = refused(convolutions(turned), tmp_path)
    assert "Transpose 'n' has no counterpart in NIR, nor have 2 further nodes" in told


@pytest.mark.parametrize(
    ("last", "output", "reason"),
    [
        ("y = Transpose <perm = [0, 2, 3, 1]> (a)", "float[N, 6, 6, 4] y", "Transpose 'y' has no counterpart in NIR"),
        ("y = Conv (a, wide)", "float[N, 2, 6, 4] y", "has a kernel of [1, 3]"),
        (
            "y = Conv <auto_pad = \"SAME_UPPER\", strides = [2, 2]> (a, odd)", "float[N, 2, 3, 3] y",
            "pads 0 before and 1 behind",
        ),
        (
            "y = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (a)", "float[N, 4, 6, 6] y",
            "takes means without its padding",
        ),
        (
            "y = AveragePool <kernel_shape = [4, 4], strides = [4, 4], ceil_mode = 1> (a)", "float[N, 4, 2, 2] y",
            "rounds its size up",
        ),
        ("y = Add (a, x2)", "float[N, 4, 6, 6] y", "differs within a channel"),
        ("y = Reshape (a, columns)", "float[N, 36, 4] y", "makes [36, 4] of [4, 6, 6]"),
        ("y = Slice (a, inner, outer, spatial)", "float[N, 4, 5, 6] y", "cuts off a border"),
        ("y = Pad (a, frame)", "float[N, 4, 8, 8] y", "does more than add channels of zeros"),
    ],
)  # fmt: skip
def test_what_nir_has_otherwise_is_refused(last, output, reason, tmp_path):
    weights = {
        **{"w": sixteenths(4, 3, 3, 3), "wide": sixteenths(2, 4, 1, 3), "odd": sixteenths(2, 4, 3, 3)},
        **{"x2": sixteenths(1, 4, 6, 6), "columns": np.array([-1, 36, 4]), "inner": np.array([1])},
        **{"outer": np.array([6]), "spatial": np.array([2]), "frame": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
    }
    used = {name: value for name, value in weights.items() if name == "w" or name in last}
    model = network(f"c = Conv (x, w) {qcfs('c', 'a')} {last}", outputs=output, weights=used)
    assert reason in refused(model, tmp_path)


OTHERS = np.arange(25, dtype=np.float32).reshape(5, 5)


@pytest.mark.parametrize(
    ("nodes", "x", "y", "weights", "reason"),
    [
        ("MatMul (u, x)", "[5, 5]", "[5, 5]", {"u": OTHERS}, "takes a constant where NIR wants a signal"),
        ("Gemm (x, u, z)", "[5, 5]", "[5, 5]", {"u": OTHERS, "z": OTHERS[:, :1]}, "is no matrix times a vector"),
        ("Gemm (x, u, z)", "[5, 5]", "[5, 5]", {"u": OTHERS, "z": OTHERS}, "is no matrix times a vector"),
        ("Gemm <transA = 1> (x, u)", "[5, 5]", "[5, 5]", {"u": OTHERS}, "is no matrix times a vector"),
        ("Add (x, u)", "[N, 1, 4]", "[N, 5, 4]", {"u": OTHERS[:, :1]}, "repeats its signal"),
        ("Mul (x, u)", "[N, 1, 4]", "[N, 5, 4]", {"u": OTHERS[:, :1]}, "repeats its signal"),
        ("Div (x, u)", "[N, 5]", "[N, 5]", {"u": OTHERS[0]}, "no finite float32"),
        ("Conv (x, u)", "[N, 1, 4]", "[N, 5, 4]", {"u": np.full((5, 1, 1), np.nan, np.float32)}, "no finite float32"),
        ("Conv (x, u)", "[N, 1, 4]", "[N, 0, 4]", {"u": OTHERS[:0, :1, None]}, "has a size below 1"),
        ("MatMul (x, u)", "[N, 5]", "[N, 0]", {"u": OTHERS[:, :0]}, "has a size below 1"),
        ("Dropout (x, r, t)", "[N, 5]", "[N, 5]", {"r": 0.5, "t": np.array(True)}, "is in training mode"),
        ("Identity (x)", "[5]", "[5]", {}, "has no axis but that of the batch"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_what_would_be_another_network_is_refused(nodes, x, y, weights, reason, tmp_path):
    model = network(f"m = {nodes} {qcfs('m', 'y')}", inputs=f"float{x} x", outputs=f"float{y} y", weights=weights)
    assert reason in refused(model, tmp_path)


def initializer(model: onnx.ModelProto, end: str) -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name.endswith(end))


@pytest.mark.parametrize(
    ("table", "values", "reason"),
    [
        ("/reset", np.float32([np.inf]), "no finite float32"),
        ("/reset", np.float32([np.nan]), "no finite float32"),
        ("/bias", np.ones(2, np.float32), "tables of neither one row nor one for each of 4 channels"),
        ("/levels", np.ones((0, 2), np.float32), "neither one row"),
        ("/levels", np.ones((1, 0), np.float32), "neither one row"),
        ("w", sixteenths(4, 2, 3, 3), "has weights of shape [4, 2, 3, 3] in 1 groups for 3 channels"),
    ],
)
def test_a_table_of_other_sizes_is_refused(table, values, reason, tmp_path):
    model = rewrite(network(f"c = Conv (x, w) {qcfs('c', 'y')}", outputs="float[N, 4, 6, 6] y",
                            weights={"w": sixteenths(4, 3, 3, 3)}), mode="serial").model  # fmt: skip
    tensor = initializer(model, table)
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    assert reason in refusal_of(deploy, model, tmp_path / "out", target="nir", allow_lossy=True)
    assert list(tmp_path.iterdir()) == []


def test_a_declared_output_that_does_not_fit_is_refused(tmp_path):
    nodes = f"c = Conv (x, w) {qcfs('c', 'a')} y = Conv (a, u)"
    weights = {"w": sixteenths(4, 3, 3, 3), "u": sixteenths(2, 4, 1, 1)}
    model = rewrite(network(nodes, outputs="float[N, 2, 6, 6] y", weights=weights), mode="serial").model
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 3]))
    told = refusal_of(deploy, model, tmp_path / "out", target="nir", allow_lossy=True)
    assert told.startswith("the shapes of the network do not fit together: Type inference error")


@pytest.mark.parametrize(("name", "values"), [("strides", [1]), ("dilations", [0, 0]), ("pads", [-1] * 4)])
def test_a_convolution_with_attributes_of_other_axes_is_refused(name, values, tmp_path):
    model = rewrite(convolutions(), mode="serial").model
    node = next(node for node in model.graph.node if node.op_type == "Conv")
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute(name, values)])
    told = refusal_of(deploy, model, tmp_path / "out", target="nir", allow_lossy=True)
    assert f"{name} {values}" in told


def test_an_output_that_is_constant_or_no_first_output_is_refused(tmp_path):
    model = rewrite(convolutions(), mode="serial").model
    model.graph.node.append(onnx.helper.make_node("Neg", ["z"], ["same"], "same"))
    for name in ("same", "a_code/new_potential"):
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        changed.graph.output[0].CopyFrom(onnx.ValueInfoProto(name="end"))
        changed.graph.node.append(onnx.helper.make_node("Identity", [name], ["end"], "end"))
        told = refusal_of(deploy, changed, tmp_path / "out", target="nir", allow_lossy=True)
        reason = "does not depend on the input" if name == "same" else "is not the first output of SerialSpike"
        assert reason in told


@pytest.mark.parametrize("name", ["a/b", "/", "..", "\x1b[31m", "a.b", "θ", "nodes", "output", "x" * 70_000, "c"])
def test_whatever_names_are_the_file_has_as_many_nodes(name, tmp_path):
    model = rewrite(convolutions(), mode="serial").model
    for node in model.graph.node[:2]:
        node.name = name
    deploy(model, tmp_path / "out", target="nir", allow_lossy=True)
    graph = nir.read(tmp_path / "out" / "model.nir")
    assert kinds(graph) == {"Affine": 1, "Conv2d": 2, "Flatten": 1, "IF": 2, "Input": 1, "Output": 1}
    assert all(re.fullmatch(r"\w+", key) for key in graph.nodes)


def test_values_below_zero_are_refused(tmp_path):
    nodes = "c = Conv (x, w) q = QuantizeLinear (c, s, o) a = DequantizeLinear (q, s, o) y = Conv (a, v)"
    weights = {"w": sixteenths(4, 3, 3, 3), "v": sixteenths(2, 4, 2, 2), "s": 0.5, "o": np.array(100, np.uint8)}
    model = network(nodes, outputs="float[N, 2, 5, 5] y", weights=weights)
    serial = rewrite(model, mode="serial", signed=True).model
    told = refusal_of(deploy, serial, tmp_path / "out", target="nir", allow_lossy=True)
    assert "have a value where they are silent" in told


def test_sizes_must_be_known(tmp_path):
    nodes = f"c = Conv (x, w) {qcfs('c', 'a')} y = GlobalAveragePool (a)"
    model = network(
        nodes, inputs="float[N, 3, H, W] x", outputs="float[N, 4, 1, 1] y", weights={"w": sixteenths(4, 3, 3, 3)}
    )
    assert "is open beyond the batch" in refused(model, tmp_path)


def test_without_the_package_nir_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nir", None)
    assert refused(convolutions(), tmp_path).endswith("pip install 'pconv-onnx[nir]'")


def test_a_version_of_an_operator_set_that_onnx_cannot_look_up_is_one_line(tmp_path):
    model = rewrite(convolutions(), mode="serial").model
    model.functions[0].opset_import[0].version = 2**63 - 1
    assert "opset_import has version 9223372036854775807" in refusal_of(deploy, model, tmp_path / "out", target="nir")


@pytest.mark.parametrize("steps", ["0", "-4", str(2**70)])
def test_a_record_of_no_number_of_steps_is_refused(steps, tmp_path):
    model = rewrite(convolutions(), mode="serial").model
    (entry,) = (entry for entry in model.metadata_props if entry.key == "pconv_onnx.steps")
    entry.value = steps
    told = refusal_of(deploy, model, tmp_path / "out", target="nir", allow_lossy=True)
    assert told.startswith("the model is no spiking network")
