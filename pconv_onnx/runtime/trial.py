"""Runs of a network on random inputs, to see what it does: open dimensions get sizes that tell them apart."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.graph import Network
from pconv_onnx.graph.tensors import initializer_names

# Sizes of open dimensions in each run. None is 1, which broadcasts; none is another multiplied and moved by constants,
# so that what a network computes of one is no other's.
_SIZES = (2, 5, 11, 17, 23, 31), (3, 11, 7, 29, 13, 19), (5, 7, 19, 13, 37, 11)
RUNS = len(_SIZES)
# What those that are not the first of an input are multiplied by, until the network runs: many halve images.
FACTORS = (1, 32)
# Elements of an input up to which it is drawn.
_MOST = 1 << 26

# The name of an open dimension, or the axis of one without a name.
Open = str | int


def sizes(network: Network, run: int, factor: int) -> dict[Open, int]:
    """Sizes for the open dimensions of a network's inputs.

    Args:
        network: the network.
        run: below `RUNS`; each dimension has another size in each.
        factor: one of `FACTORS`.
    """
    first: dict[Open, int] = {}
    for info in _inputs(network):
        for axis, dim in enumerate(info.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value"):
                first.setdefault(dim.dim_param or axis, axis)
    chosen = itertools.cycle(_SIZES[run])
    return {name: next(chosen) * (factor if axis else 1) for name, axis in first.items()}


def feed(network: Network, found: dict[Open, int], seed: int = 0) -> dict[str, Array]:
    """Inputs of these sizes: floats standard normal, integers 0 or 1.

    Raises:
        PconvError: an input has a type or a size that is not drawn.
    """
    generator = np.random.default_rng(seed)
    return {info.name: _values(info, found, generator) for info in _inputs(network)}


def _inputs(network: Network) -> Iterator[onnx.ValueInfoProto]:
    constants = initializer_names(network.proto.graph)
    return (info for info in network.proto.graph.input if info.name not in constants)


def _values(info: onnx.ValueInfoProto, found: dict[Open, int], generator: np.random.Generator) -> Array:
    kind = info.type.tensor_type
    known = kind.elem_type and kind.HasField("shape")
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type) if known else object)
    shape = [
        dim.dim_value if dim.HasField("dim_value") else found[dim.dim_param or axis]
        for axis, dim in enumerate(kind.shape.dim)
    ]
    if dtype.kind not in "fiub" or not 0 < np.prod(shape, dtype=object) <= _MOST:
        raise PconvError(f"no random values can be drawn for input '{info.name}'", "")
    values = generator.standard_normal(shape) if dtype.kind == "f" else generator.integers(0, 2, shape)
    return values.astype(dtype)
