"""Small networks as onnxruntime's tools write them: quantised in every way, in float16, and optimised offline.

Any two options of the quantiser meet in some file. What it refuses to write is left out.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.transformers.float16 import convert_float_to_float16
from pairwise import covering_array

BATCH, CHANNELS, SIZE = 4, 3, 8
# Format, type of activations and type of weights, as far as the quantiser takes them together.
_TYPES = [
    *((QuantFormat.QDQ, activations, weights)
      for activations in (QuantType.QUInt8, QuantType.QInt8, QuantType.QUInt16, QuantType.QInt16)
      for weights in (QuantType.QInt8, QuantType.QUInt8, QuantType.QInt16)
      if (activations, weights) != (QuantType.QInt8, QuantType.QUInt8)),
    *((QuantFormat.QOperator, activations, weights)
      for activations, weights in ((QuantType.QUInt8, QuantType.QInt8), (QuantType.QUInt8, QuantType.QUInt8),
                                   (QuantType.QInt8, QuantType.QInt8))),
]  # fmt: skip
_OPTIONS: dict[str, list[Any]] = {
    "types": _TYPES,
    "calibrate_method": [CalibrationMethod.MinMax, CalibrationMethod.Entropy, CalibrationMethod.Percentile],
    "per_channel": [False, True],
    "reduce_range": [False, True],
    "ActivationSymmetric": [False, True],
    "AddQDQPairToWeight": [False, True],
    "DedicatedQDQPair": [False, True],
    "QuantizeBias": [True, False],
    "UseQDQContribOps": [False, True],
    "QDQKeepRemovableActivations": [False, True],
    "opset": [11, 13, 17, 21],
}
_ARGUMENTS = ("calibrate_method", "per_channel", "reduce_range")


class Net:
    """A network that grows node by node, with seeded weights."""

    def __init__(self, opset: int) -> None:
        self.opset, self.nodes, self.weights = opset, [], []
        self._random = np.random.default_rng(0)

    def weight(self, *shape: int) -> str:
        """The name of a new one."""
        fan_in = int(np.prod(shape[1:])) or 1
        return self.constant(self._random.normal(0, fan_in**-0.5, shape).astype(np.float32))

    def constant(self, value: Any) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def __call__(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """The output of a new node."""
        output = f"{op_type}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, list(inputs), [output], f"node_{output}", **attributes))
        return output

    def conv(self, x: str, channels: int, inputs: int, **attributes: Any) -> str:
        group = attributes.get("group", 1)
        weight, bias = self.weight(channels, inputs // group, 3, 3), self.weight(channels)
        return self("Conv", x, weight, bias, pads=[1, 1, 1, 1], **attributes)

    def classified(self, x: str, channels: int) -> str:
        """Ten numbers of each sample."""
        x = self("Flatten", self("GlobalAveragePool", x))
        return self("Gemm", x, self.weight(channels, 10), self.weight(10))

    def model(self, output: str, shape: tuple[Any, ...]) -> onnx.ModelProto:
        x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)
        y = helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "net", [x], [y], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        model = onnx.shape_inference.infer_shapes(model)
        onnx.checker.check_model(model)
        return model


IMAGES = ("N", CHANNELS, SIZE, SIZE)


def _relu(net: Net) -> onnx.ModelProto:
    x = net("MaxPool", net("Relu", net.conv("x", 8, CHANNELS)), kernel_shape=[2, 2], strides=[2, 2])
    return net.model(net.classified(net("Relu", net.conv(x, 8, 8)), 8), IMAGES)


def _residual(net: Net) -> onnx.ModelProto:
    x = net("Relu", net.conv("x", 8, CHANNELS))
    y = net("Relu", net.conv(x, 8, 8))
    return net.model(net.classified(net("Relu", net("Add", net.conv(y, 8, 8), x)), 8), IMAGES)


def _mobile(net: Net) -> onnx.ModelProto:
    def clipped(x: str) -> str:
        return net("Clip", x, net.constant(np.float32(0)), net.constant(np.float32(6)))

    x = clipped(net.conv("x", 8, CHANNELS))
    return net.model(net.classified(clipped(net.conv(x, 8, 8, group=8)), 8), IMAGES)


def _concatenated(net: Net) -> onnx.ModelProto:
    one, other = (net("Relu", net.conv("x", 4, CHANNELS)) for _ in range(2))
    x = net("Concat", one, other, axis=1)
    x = net("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    return net.model(net.classified(net("Relu", net.conv(x, 8, 8)), 8), IMAGES)


def _leaky(net: Net) -> onnx.ModelProto:
    x = net("LeakyRelu", net.conv("x", 8, CHANNELS), alpha=0.1)
    return net.model(net.classified(net("LeakyRelu", net.conv(x, 8, 8), alpha=0.1), 8), IMAGES)


def _swish(net: Net) -> onnx.ModelProto:
    """HardSwish as its parts, which every opset has."""

    def swish(x: str) -> str:
        return net("Mul", x, net("HardSigmoid", x, alpha=1 / 6, beta=0.5))

    x = swish(net.conv("x", 8, CHANNELS))
    return net.model(net.classified(net("Relu", net.conv(x, 8, 8)), 8), IMAGES)


def _sigmoid(net: Net) -> onnx.ModelProto:
    """Squeeze-and-excite."""
    x = net("Relu", net.conv("x", 8, CHANNELS))
    scale = net("Conv", net("GlobalAveragePool", x), net.weight(8, 8, 1, 1))
    return net.model(net.classified(net("Mul", x, net("Sigmoid", scale)), 8), IMAGES)


def _transformer(net: Net) -> onnx.ModelProto:
    """The two dense layers of a transformer's block, with GELU as exporters write it."""
    x = net("Add", net("MatMul", "x", net.weight(16, 32)), net.weight(32))
    half = net("Mul", x, net.constant(np.float32(0.5)))
    erf = net("Erf", net("Div", x, net.constant(np.float32(2**0.5))))
    x = net("Mul", half, net("Add", erf, net.constant(np.float32(1))))
    x = net("Add", net("MatMul", x, net.weight(32, 16)), net.weight(16))
    return net.model(net("Relu", net("Add", x, "x")), ("N", 5, 16))


def _dense(net: Net) -> onnx.ModelProto:
    x = net("Relu", net("Gemm", "x", net.weight(16, 24), net.weight(24)))
    x = net("Relu", net("Gemm", x, net.weight(24, 24), net.weight(24)))
    return net.model(net("Gemm", x, net.weight(24, 10), net.weight(10)), ("N", 16))


NETWORKS: dict[str, Callable[[Net], onnx.ModelProto]] = {
    "relu": _relu,
    "residual": _residual,
    "mobile": _mobile,
    "concatenated": _concatenated,
    "leaky": _leaky,
    "swish": _swish,
    "sigmoid": _sigmoid,
    "transformer": _transformer,
    "dense": _dense,
}


class _Samples(CalibrationDataReader):
    """Random inputs of a network."""

    def __init__(self, model: onnx.ModelProto) -> None:
        sizes = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim][1:]
        values = np.random.default_rng(1).standard_normal((4, BATCH, *sizes)).astype(np.float32)
        self._left = iter([{"x": batch} for batch in values])

    def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
        return next(self._left, None)


def files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Name and path of each."""
    logging.disable(logging.WARNING)
    # The calibrators print.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for name, make in NETWORKS.items():
            for kind, write in _writers(make):
                path = folder / f"{name}, {kind}.onnx"
                try:
                    write(path)
                except Exception:  # the tools raise what their passes do
                    path.unlink(missing_ok=True)
                    continue
                yield path.stem, path
    logging.disable(logging.NOTSET)


def _writers(make: Callable[[Net], onnx.ModelProto]) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """What writes a file of a network, by what is done to it."""
    for case in covering_array([len(values) for values in _OPTIONS.values()]):
        chosen = {name: values[index] for (name, values), index in zip(_OPTIONS.items(), case, strict=True)}
        yield _told(chosen), lambda path, chosen=chosen: _quantise(make(Net(chosen["opset"])), path, chosen)
    for weight_type in (QuantType.QInt8, QuantType.QUInt8):
        for per_channel in (False, True):
            yield (
                f"dynamic {weight_type}{' per_channel' if per_channel else ''}",
                lambda path, weight_type=weight_type, per_channel=per_channel: quantize_dynamic(
                    make(Net(17)), path, weight_type=weight_type, per_channel=per_channel
                ),
            )
    for keeps in (False, True):
        yield (
            f"float16{' inside' if keeps else ''}",
            lambda path, keeps=keeps: onnx.save(convert_float_to_float16(make(Net(17)), keep_io_types=keeps), path),
        )
    levels = onnxruntime.GraphOptimizationLevel
    for level in (levels.ORT_ENABLE_BASIC, levels.ORT_ENABLE_EXTENDED, levels.ORT_ENABLE_LAYOUT, levels.ORT_ENABLE_ALL):
        for quantised in (False, True):
            yield (
                f"optimised {level.name}{' QDQ' if quantised else ''}",
                lambda path, level=level, quantised=quantised: _optimise(make(Net(17)), path, level, quantised),
            )


def _told(chosen: dict[str, Any]) -> str:
    """The name of a file: values, and the options that are on."""
    named = [kind.name for kind in (*chosen["types"], chosen["calibrate_method"])]
    on = [name for name, value in chosen.items() if value is True]
    return f"{' '.join([*named, *on])} opset {chosen['opset']}"


def _quantise(model: onnx.ModelProto, path: Path, chosen: dict[str, Any]) -> None:
    """A file with options as `_OPTIONS` has them."""
    quant_format, activation_type, weight_type = chosen["types"]
    quantize_static(
        model,
        path,
        _Samples(model),
        quant_format,
        activation_type=activation_type,
        weight_type=weight_type,
        **{name: chosen[name] for name in _ARGUMENTS},
        extra_options={name: value for name, value in chosen.items() if name[0].isupper()},
    )


def _optimise(model: onnx.ModelProto, path: Path, level: Any, quantised: bool) -> None:
    """What a session writes that is opened with a file."""
    if quantised:
        quantize_static(model, path, _Samples(model))
        model = onnx.load(path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level, options.optimized_model_filepath = level, str(path)
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
