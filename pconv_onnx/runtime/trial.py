"""Runs a network on random inputs, to observe shapes and values; each open dimension gets a size of its own."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import helper

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.graph import Network
from pconv_onnx.graph.tensors import initializer_names
from pconv_onnx.runtime.opening import import_onnxruntime
from pconv_onnx.runtime.side_by_side import run_session

# Sizes of open dimensions in each run. None is 1, which broadcasts; none is another multiplied and moved by constants,
# so that what a network computes of one is no other's.
_SIZES = (2, 5, 11, 17, 23, 31), (3, 11, 7, 29, 13, 19), (5, 7, 19, 13, 37, 11)
RUNS = len(_SIZES)
# What those that are not the first of an input are multiplied by, until the network runs: many halve images.
FACTORS = (1, 32)
# Elements of an input up to which it is drawn, and of a tensor up to which a network is run to see what it does.
_MOST, _MOST_COMPUTED = 1 << 26, 1 << 28
# What a run may take: a Loop of few bytes may have any number of iterations.
SECONDS = 30.0


class TooMuch(PconvError):
    """A run that does not end within `SECONDS`, or makes tensors too large for a trial: others are not worth a try."""


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
        TooMuch: the network computes a tensor that is too large.
        PconvError: an input has a type or a size that is not drawn.
    """
    _require_room(network)
    generator = np.random.default_rng(seed)
    return {info.name: _values(info, found, generator) for info in _inputs(network)}


def run_briefly(session: Any, inputs: dict[str, Array]) -> list[Array]:
    """The outputs of an onnxruntime session.

    Raises:
        TooMuch: it has not ended after `SECONDS`; onnxruntime then ends it where its next operator begins.
        PconvError: onnxruntime fails while it runs.
    """
    options, ended = import_onnxruntime().RunOptions(), threading.Event()

    def end() -> None:
        ended.set()
        options.terminate = True

    options.log_severity_level = 4
    timer = threading.Timer(SECONDS, end)
    timer.start()
    try:
        return run_session(session, inputs, options=options)
    except PconvError as error:
        if ended.is_set():
            raise TooMuch(f"a run on random inputs does not end within {SECONDS:g} s") from error
        raise
    finally:
        timer.cancel()


def _require_room(network: Network) -> None:
    """Raise where a tensor that the network computes is larger than what is worth a trial.

    Raises:
        TooMuch: one is.
    """
    for name in (name for node in network.proto.graph.node for name in node.output):
        size = math.prod(size for size in network.shapes.get(name, ()) if isinstance(size, int))
        if size > _MOST_COMPUTED:
            raise TooMuch(f"'{name}' has {size:,} elements, too many for a run on random inputs")


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
