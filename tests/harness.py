"""The one test of a converted activation: the source's value at every threshold, beside it and everywhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx.utils
import onnxruntime
from onnx.reference import ReferenceEvaluator

from pconv_onnx import ParallelNeuron, Rewriting, rewrite, session
from pconv_onnx.basics.choices import MAX_STEPS, CodingName, ModeName
from pconv_onnx.graph.passes.pipeline import prepared
from pconv_onnx.neuron.coding import CODINGS
from pconv_onnx.operators.domain import is_layer
from pconv_onnx.recognise import Activation, recognise

Array = np.ndarray
Oracle = Callable[[Array], Array]


def onnxruntime_of(source: onnx.ModelProto, output: str = "y") -> Oracle:
    """The source's value in onnxruntime, whose optimiser may not change it."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    runtime = session(source, options=options)
    return lambda x: runtime.run([output], {"x": x})[0]


def definition_of(source: onnx.ModelProto) -> Oracle:
    """The source's value as onnx defines its operators; of QuantizeLinear it wants codes that fit in 32 bits."""
    evaluator = ReferenceEvaluator(source)
    return lambda x: evaluator.run(["y"], {"x": x})[0]


def boundaries(neuron: ParallelNeuron, channels: int, dtype: Any = np.float32, limit: float = np.inf) -> Array:
    """`[n, C, 1, 1]`: thresholds, the floats on either side of them, and floats of every kind and size.

    Of types of 16 bits it is all of them. NaN is left out, and what is beyond the limit becomes the limit.
    """
    own = neuron.thresholds.dtype
    if own.itemsize == 2:
        every = np.arange(2**16, dtype=np.uint16).view(own)
        numbers = every[~np.isnan(every.astype(np.float32))]
        values = np.broadcast_to(numbers, (channels, len(numbers)))
    else:
        generator = np.random.default_rng(0)
        # A threshold that nothing reaches is NaN.
        at = np.nan_to_num(np.broadcast_to(neuron.thresholds, (channels, neuron.highest)), nan=0)
        finite = np.where(np.isfinite(at), at, 1).astype(np.float64)
        spread = np.minimum(1.5 * np.abs(finite).max(axis=1, keepdims=True) + 1, 3e38)
        values = np.concatenate(
            [
                at,
                np.nextafter(at, own.type(-np.inf)),
                np.nextafter(at, own.type(np.inf)),
                spread * generator.uniform(-1, 1, (channels, 4000)),
                generator.normal(0, 3, (channels, 4000)),
                np.nan_to_num(generator.integers(0, 2**32, (channels, 4000), dtype=np.uint32).view(np.float32), nan=0),
                np.tile([0.0, -0.0, 1e-45, -1e-45, 3.4e38, -3.4e38, np.inf, -np.inf], (channels, 1)),
            ],
            axis=1,
            dtype=own,
        )
    # NumPy's clip would make float32 of bfloat16.
    values = np.minimum(np.maximum(values.astype(dtype), dtype(-limit)), dtype(limit))
    return np.ascontiguousarray(values.T).reshape(-1, channels, 1, 1)


def assert_converted(
    source: onnx.ModelProto,
    oracle: Oracle,
    mode: ModeName,
    *,
    levels: int | None = None,
    signed: bool = False,
    limit: float = np.inf,
) -> ParallelNeuron:
    """Rewrite a source with one activation, and compare its value with the oracle's, as numbers, bit by bit.

    Where trains flow, in each coding that carries its levels, of signed values both silent at zero and with an offset.

    Args:
        source: a model from `x` `[N, C, 1, 1]` to `y` of the same shape.
        oracle: the source's value.
        mode: `parallel` or `folded`.
        levels: L, where that is to be as given too.
        signed: as `rewrite` has it.
        limit: the largest input that the oracle is defined for.

    Returns:
        The neuron that `rewrite` makes where no coding is named.
    """
    result = rewrite(source, mode=mode, signed=signed)
    (neuron,) = result.plan.neurons.values()
    assert levels is None or neuron.highest == levels
    tensor_type = source.graph.input[0].type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor_type.elem_type).type
    x = boundaries(neuron, tensor_type.shape.dim[1].dim_value, dtype, limit)
    expected = oracle(x)
    _assert_value(result, x, expected)
    # The comparison was not of a few values only: every level between whose thresholds there is an input is met.
    thresholds, table = (np.broadcast_to(t, (x.shape[1], t.shape[1])) for t in (neuron.thresholds, neuron.levels))
    for channel, (ends, row) in enumerate(zip(thresholds, table, strict=True)):
        starts, ends = np.append(-limit, ends), np.append(ends, np.inf)
        met = (starts <= limit) & ((starts < ends) | np.isnan(ends))
        assert set(row[met].tolist()) <= set(expected[:, channel].reshape(-1).astype(row.dtype).tolist())
    if mode == "parallel":
        for coding, dense in _others(neuron):
            other = rewrite(source, mode=mode, coding=coding, signed=signed or dense)
            # Without signs an offset may be the next layer's, and is rounded there.
            if np.array_equal(next(iter(other.plan.neurons.values())).levels, neuron.levels):
                _assert_value(other, x, expected)
    return neuron


def _others(neuron: ParallelNeuron) -> Iterator[tuple[CodingName, bool]]:
    """The codings of trains of a neuron's levels but its own, each with whether it has an offset for its signs."""
    for name, coding in CODINGS.items():
        for zero in {neuron.coding.zero, 0}:
            steps = coding.steps_for(max(zero, neuron.highest - zero))
            if steps <= MAX_STEPS and coding(steps, zero) != neuron.coding:
                other = replace(neuron, coding=coding(steps, zero))
                if not other.why_not_carried:
                    yield name, neuron.coding.signed and not zero


def _assert_value(result: Rewriting, x: Array, expected: Array) -> None:
    """The network gives these values, bit by bit, and the lowest of NaN; a train that stands for zero has no spike."""
    (neuron,) = result.plan.neurons.values()
    model = onnx.ModelProto()
    model.CopyFrom(result.model)
    trains = [node.output[0] for node in model.graph.node if is_layer(node, trains=True)]
    element = model.graph.output[0].type.tensor_type.elem_type
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, element, None) for name in trains)
    given = np.concatenate([x, np.full_like(x[:1], np.nan)])
    value, *emitted = session(model).run(["y", *trains], {"x": given})
    np.testing.assert_array_equal(value[:-1], expected, strict=True)
    assert (value[-1:] == neuron.value(np.zeros_like(x[:1], dtype=int))).all()
    for train in emitted:
        steps = train.reshape(neuron.steps, *value.shape)
        assert not steps[:, value == 0].any() or neuron.levels[:, neuron.coding.zero].any()


def found(model: onnx.ModelProto) -> list[Activation]:
    """The activations of a model."""
    return recognise(prepared(model))


def own_part(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model of its one activation alone, from `x` to `y`."""
    (activation,) = found(model)
    inferred = onnx.shape_inference.infer_shapes(model)
    names = {activation.input.name: "x", activation.output.name: "y"}
    part = onnx.utils.Extractor(inferred).extract_model(*([name] for name in names))
    for value in (*part.graph.input, *part.graph.output):
        value.name = names[value.name]
    for node in part.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    return part
