"""What the data make of the tensors to calibrate: told by running the network once, before anything is cut.

Along which axis of each samples lie, and which of them are of no use.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.calibration.streams import MIXED, Axis
from pconv_onnx.data.samples import Samples
from pconv_onnx.graph import Network
from pconv_onnx.graph.nesting import unused
from pconv_onnx.runtime.axes import axes_told_by_runs
from pconv_onnx.runtime.opening import import_onnxruntime
from pconv_onnx.runtime.side_by_side import open_session, run_session


class Faults(dict[str, str]):
    """A reason for each tensor with a fault, the first that was found."""

    def __add__(self, other: Faults) -> Faults:
        """Those of both parts of the data."""
        return Faults({**other, **self})


def axes_of(network: Network, names: Sequence[str], samples: Samples) -> dict[str, Axis]:
    """Along which axis of float32 tensors samples lie; None where the whole of one is of one sample, or none is known.

    `MIXED` where they lie along none and yet there is as much for each: heads and samples may be one axis.

    Args:
        network: the source.
        names: of the tensors.
        samples: one or more of the data.

    Raises:
        PconvError: onnxruntime cannot run the network.
    """
    if samples.one_by_one:
        return dict.fromkeys(names, None)
    told = _told_by_names(network) if samples.first_everywhere else set()
    along_first = [name for name in names if (network.shapes.get(name) or (None,))[0] in told]
    others = [name for name in names if name not in set(along_first)]
    return dict.fromkeys(along_first, 0) | (_axes_by_runs(network, others, samples) if others else {})


def _told_by_names(network: Network) -> set[str]:
    """What the first dimension of inputs is called, where it has no number."""
    shapes = (network.shapes.get(info.name) for info in network.proto.graph.input)
    return {shape[0] for shape in shapes if shape and isinstance(shape[0], str)}


def _axes_by_runs(network: Network, names: Sequence[str], samples: Samples) -> dict[str, Axis]:
    runner, shapes = _summing(network, names), []

    def run(feed: dict[str, Array]) -> list[tuple[int, ...]]:
        shapes.append([tuple(sizes.tolist()) for sizes in run_session(runner, feed)[::2]])
        return shapes[-1]

    try:
        counting = axes_told_by_runs(run, samples)
    except PconvError:
        # One of two samples may be more than the network takes, and is more than there is.
        if not samples.first_everywhere:
            raise
        return dict.fromkeys(names, 0)
    batches = (samples.model_batch,) if samples.model_batch else (1, 2)
    return {
        name: _axis(axes, sizes, batches, first=samples.first_everywhere)
        for name, axes, sizes in zip(names, counting, zip(*shapes, strict=True), strict=True)
    }


def _axis(axes: set[int], shapes: Sequence[tuple[int, ...]], batches: Sequence[int], *, first: bool) -> Axis:
    """Where samples lie in a tensor of these shapes in runs of so many samples, which may be along these axes."""
    # Where samples lie along the first axis of every input, they do so wherever they may.
    if first and 0 in axes:
        return 0
    if len(axes) == 1 and (len(batches) > 1 or not first):
        return next(iter(axes))
    values = [math.prod(shape) for shape in shapes]
    if len(batches) == 1:
        return MIXED if batches[0] > 1 and values[0] and values[0] % batches[0] == 0 else None
    return MIXED if 0 < 2 * values[0] == values[1] else None


def sizes_of(network: Network, names: Sequence[str], samples: Samples) -> dict[str, int]:
    """How many elements of tensors there are for each sample.

    Raises:
        PconvError: onnxruntime cannot run the network.
    """
    batch = samples.fixed_batch or 1
    shapes = run_session(_summing(network, names), samples.feed(np.zeros(batch, int)))[::2]
    return {name: math.prod(shape.tolist()) // batch for name, shape in zip(names, shapes, strict=True)}


def faults_of(network: Network, axes: Mapping[str, Axis], shards: Iterable[Samples], size: int) -> Iterator[Faults]:
    """What is wrong with float32 tensors: samples do not lie along their axis, or values are missing or infinite.

    Args:
        network: the source.
        axes: what `axes_of` says of the tensors.
        shards: of the data.
        size: of a batch of them.

    Yields:
        The faults on each shard.

    Raises:
        PconvError: onnxruntime cannot run the network.
    """
    runner = _summing(network, list(axes))
    for samples in shards:
        faults = Faults()
        first = samples.first_everywhere or samples.one_by_one
        where = "its first axis; `batch_axis=` tells of others" if first else "one of its axes"
        for part, feed in samples.batches(size):
            count = part.stop - part.start
            outputs = run_session(runner, feed)
            for (name, axis), sizes, value in zip(axes.items(), outputs[::2], outputs[1::2], strict=True):
                if not _fits(sizes.tolist(), axis, count):
                    told = f"'{name}' has shape {sizes.tolist()} for {count} samples, which do not run along {where}"
                    faults.setdefault(name, told)
                elif not sizes.all():
                    faults.setdefault(name, f"'{name}' has shape {sizes.tolist()} for {count} samples: no values")
                elif not np.isfinite(value):
                    faults.setdefault(name, f"'{name}' has a NaN or an infinity on these data")
        yield faults


def _fits(sizes: Sequence[int], axis: Axis, count: int) -> bool:
    """Whether a tensor has so many samples where they are said to lie."""
    if axis is None:
        return count == 1
    return math.prod(sizes) % count == 0 if axis == MIXED else list(sizes[axis : axis + 1]) == [count]


def _summing(network: Network, names: Sequence[str]) -> Any:
    """A session that gives the shape of each tensor, and a NaN where any of its values is a NaN or an infinity.

    The network itself sums them up, so that no more of it is in memory than where it just runs.
    """
    model = onnx.ModelProto()
    model.CopyFrom(network.proto)
    graph = model.graph
    del graph.output[:]
    used = set(network.names)
    zero = unused("zero", used)
    graph.initializer.append(numpy_helper.from_array(np.zeros((), np.float32), zero))
    for name in names:
        shape, product, total = (unused(f"{name}/{part}", used) for part in ("shape", "product", "total"))
        graph.node.append(helper.make_node("Shape", [name], [shape]))
        graph.node.append(helper.make_node("Mul", [name, zero], [product]))
        graph.node.append(helper.make_node("ReduceSum", [product], [total], keepdims=0))
        graph.output.append(helper.make_tensor_value_info(shape, onnx.TensorProto.INT64, None))
        graph.output.append(helper.make_tensor_value_info(total, onnx.TensorProto.FLOAT, None))
    # Optimised, a product with zero could become part of what computes the tensor.
    disabled = import_onnxruntime().GraphOptimizationLevel.ORT_DISABLE_ALL
    return open_session(model, network.name, disabled)
