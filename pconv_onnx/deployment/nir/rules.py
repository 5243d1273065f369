"""What each operator of a serial network is in the Neuromorphic Intermediate Representation: one row an operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.deployment.nir.walk import ONE, Affine, Rule, Shape, Term, Walk
from pconv_onnx.graph import Network
from pconv_onnx.graph.view import Node, called, node_name
from pconv_onnx.graph.windows import Window, windows
from pconv_onnx.operators.domain import SERIAL_OP_TYPE


def _neuron(walk: Walk, node: Node) -> list[Term]:
    source = walk.variable(node, 0)
    shape = walk.shape(source)
    bias, threshold, reset, levels = _tables_of_neurons(walk, node, shape)

    def everywhere(table: Array) -> Array:
        return walk.single(node_name(node), np.broadcast_to(table.reshape(-1, *[1] * (len(shape) - 1)), shape))

    terms = walk.plain(
        source, walk.shifted(f"{node_name(node)}_bias", source, walk.tensors[source], bias.astype(np.float64))
    )
    neurons = walk.nir.IF(
        r=np.ones(shape, np.float32),
        v_threshold=everywhere(reset),
        v_reset=np.zeros(shape, np.float32),
        metadata={"v_initial": everywhere(reset - threshold), "reset": "subtract", "fires": "at threshold"},
    )
    name = walk.add(node_name(node), neurons)
    walk.connect(terms, name)
    return [Term(name, levels[:, 1].astype(np.float64))]


def _tables_of_neurons(walk: Walk, node: Node, shape: Shape) -> list[Array]:
    """Bias, threshold and reset, `[R]` each, and levels, `[R, 2]`."""
    tables = [walk.constant(node, index) for index in range(2, 6)]
    levels = tables[3]
    if levels.dtype != np.float32:
        raise PconvError(f"the network is in {levels.dtype}; NIR files are written in float32", "rewrite it in float32")
    rows = levels.shape[:1]
    if rows not in ((1,), shape[:1]) or [table.shape for table in tables] != [rows, rows, rows, (*rows, 2)]:
        raise PconvError(
            f"the neurons '{node_name(node)}' have tables of neither one row nor one for each of {shape[0]} channels",
            "rewrite the ANN again",
        )
    if levels[:, 0].any():
        raise PconvError(
            f"the neurons '{node_name(node)}' have a value where they are silent; a spike of NIR is 0 or 1",
            "values below zero (`signed=True`) have no counterpart there",
        )
    if len(levels) > 1 and node.attrs["channel_axis"] not in (1, 1 - len(shape) - 1):
        raise PconvError(
            f"the neurons '{node_name(node)}' differ along another axis than the channels; NIR's readers want axis 1"
        )
    return tables


def _conv(walk: Walk, node: Node) -> list[Term]:
    source, weight = walk.variable(node, 0), walk.constant(node, 1).astype(np.float64)
    shape, axes = walk.shape(source), weight.ndim - 2
    kernel = weight.shape[2:]
    if axes not in (1, 2):
        raise PconvError(f"{called(node)} has {axes} spatial axes; NIR has convolutions of one or two")
    if len(set(kernel)) > 1:
        raise PconvError(f"{called(node)} has a kernel of {list(kernel)}; the package nir takes kernels for square")
    groups = node.attrs.get("group", 1)
    if len(shape) != weight.ndim - 1 or groups * weight.shape[1] != shape[0] or len(weight) % groups:
        raise PconvError(
            f"{called(node)} has weights of shape {list(weight.shape)} in {groups} groups for {shape[0]} channels",
            "correct the weights of the ANN, and rewrite it again",
        )
    along = _windows(node, shape[1:], kernel)
    if axes == 2 and groups == len(weight) == shape[0] and (weight == 1).all() and len(node.inputs) == 2:
        return _sum_pool(walk, node, along)
    layer = Affine(
        _of_all_groups(weight, groups),
        walk.constant(node, 2, np.zeros(len(weight))).astype(np.float64),
        shape,
        [window.stride for window in along],
        _same_pads(node, shape[1:], along),
        [window.dilation for window in along],
    )
    return [Term(walk.affine(node_name(node), layer, walk.alike(source, walk.tensors[source])))]


def _sum_pool(walk: Walk, node: Node, along: Sequence[Window]) -> list[Term]:
    """A convolution of ones, one a channel: what `from_nir` makes of a `SumPool2d`."""
    source = walk.variable(node, 0)
    if max(window.dilation for window in along) > 1:
        raise PconvError(f"{called(node)} has dilations; NIR's pools have none")
    pads = _same_pads(node, walk.shape(source)[1:], along)
    terms = walk.alike(source, walk.tensors[source])
    sizes = ([window.taps for window in along], [window.stride for window in along], pads)
    name = walk.add(node_name(node), walk.nir.SumPool2d(*map(np.array, sizes)))
    walk.connect(terms, name)
    return [Term(name, terms[0].scale)]


def _windows(node: Node, sizes: Shape, kernel: Sequence[int]) -> list[Window]:
    lengths = {"kernel_shape": len(sizes), "strides": len(sizes), "dilations": len(sizes), "pads": 2 * len(sizes)}
    for name, length in lengths.items():
        values = node.attrs.get(name, ())
        if values and (len(values) != length or min(values) < (name != "pads")):
            raise PconvError(f"{called(node)} has {name} {list(values)} for {len(sizes)} axes", "correct the ANN")
    return windows(node.attrs, sizes, kernel)


def _of_all_groups(weight: Array, groups: int) -> Array:
    """Weights `[M, C/groups, …]` as `[M, C, …]`, since the package nir takes the second size for all channels."""
    if groups == 1:
        return weight
    whole = np.zeros((len(weight), groups * weight.shape[1], *weight.shape[2:]))
    for rows, columns in zip(
        np.split(np.arange(len(weight)), groups), np.split(np.arange(whole.shape[1]), groups), strict=True
    ):
        whole[np.ix_(rows, columns)] = weight[rows]
    return whole


def _same_pads(node: Node, sizes: Shape, along: Sequence[Window]) -> list[int]:
    found = []
    for size, window in zip(sizes, along, strict=True):
        start, end = window.start, window.end
        # What no window reaches may be left away.
        if (size + 2 * start - (window.taps - 1) * window.dilation - 1) // window.stride + 1 == window.count:
            end = start
        if start != end:
            raise PconvError(f"{called(node)} pads {start} before and {end} behind; NIR pads both ends alike")
        found.append(int(start))
    return found


def _gemm(walk: Walk, node: Node) -> list[Term]:
    source = walk.variable(node, 0)
    weight, bias = walk.constant(node, 1), walk.constant(node, 2, np.zeros(1))
    rows = bias.shape[:-1]
    if node.attrs.get("transA", 0) or weight.ndim != 2 or len(walk.shape(source)) != 1 or rows not in ((), (1,)):
        raise PconvError(f"{called(node)} is no matrix times a vector of each sample, as NIR has it")
    # MatMul has none of these attributes, and two operands.
    weight = node.attrs.get("alpha", 1.0) * (weight if node.attrs.get("transB", 0) else weight.T).astype(np.float64)
    bias = node.attrs.get("beta", 1.0) * bias.astype(np.float64)
    layer = Affine(weight, np.broadcast_to(bias.reshape(-1), len(weight)), walk.shape(source), [], [], [])
    return [Term(walk.affine(node_name(node), layer, walk.alike(source, walk.tensors[source])))]


def _pool(walk: Walk, node: Node) -> list[Term]:
    """Average pooling as sums, which more readers have; the mean goes into the scale."""
    source = walk.variable(node, 0)
    shape = walk.shape(source)
    if len(shape) != 3:
        raise PconvError(f"{called(node)} pools {len(shape) - 1} axes; NIR has pools of two")
    if node.op == "AveragePool":
        kernel = [int(size) for size in node.attrs["kernel_shape"]]
        along = _windows(node, shape[1:], kernel)
        if max(window.dilation for window in along) > 1:
            raise PconvError(f"{called(node)} has dilations; NIR's pools have none")
        strides, padding = [window.stride for window in along], _same_pads(node, shape[1:], along)
        if tuple(window.count for window in along) != walk.shape(node.outputs[0].name)[1:]:
            raise PconvError(f"{called(node)} rounds its size up (ceil_mode); NIR's pools round down")
        if any(padding) and not node.attrs.get("count_include_pad", 0):
            raise PconvError(f"{called(node)} takes means without its padding; NIR's pools have no such")
    else:
        kernel, padding = list(shape[1:]), [0, 0]
        strides = kernel
    terms = walk.alike(source, walk.tensors[source])
    sizes = (np.array(values) for values in (kernel, strides, padding))
    name = walk.add(node_name(node), walk.nir.SumPool2d(*sizes))
    walk.connect(terms, name)
    return [Term(name, terms[0].scale / prod(kernel))]


def _reduce_mean(walk: Walk, node: Node) -> list[Term]:
    source = walk.variable(node, 0)
    rank = len(walk.shape(source)) + 1
    axes = node.attrs.get("axes") or walk.constant(node, 1, np.arange(rank)).tolist()
    if sorted(axis % rank for axis in axes) != [2, 3]:
        raise PconvError(f"{called(node)} is over axes {list(axes)}; NIR has pools over height and width")
    terms = _pool(walk, node)
    if not node.attrs.get("keepdims", 1):
        return _flat(walk, node, (walk.shape(source)[0], 1, 1), terms)
    return terms


def _layout(walk: Walk, node: Node) -> list[Term]:
    source = walk.variable(node, 0)
    before, after = walk.shape(source), walk.shape(node.outputs[0].name)
    if before == after:
        return walk.tensors[source]
    if after != (prod(before),):
        raise PconvError(f"{called(node)} makes {list(after)} of {list(before)}; NIR has Flatten only")
    return _flat(walk, node, before, walk.alike(source, walk.tensors[source]))


def _flat(walk: Walk, node: Node, before: Shape, terms: Sequence[Term]) -> list[Term]:
    # Axes counted from the end are the same with a batch, which some readers count, and without.
    name = walk.add(node.outputs[0].name, walk.nir.Flatten({"input": np.array(before)}, -len(before), -1))
    walk.connect(terms, name)
    scale = terms[0].scale
    return [Term(name, scale if len(scale) == 1 else np.repeat(scale, prod(before[1:])))]


def _batch_normalization(walk: Walk, node: Node) -> list[Term]:
    if node.attrs.get("training_mode", 0):
        raise PconvError(f"{called(node)} is in training mode", "export the ANN in evaluation mode")
    gamma, beta, mean, variance = (walk.constant(node, index).astype(np.float64) for index in range(1, 5))
    scale = gamma / np.sqrt(variance + node.attrs.get("epsilon", 1e-5))
    return _affine_of_channels(walk, node, walk.variable(node, 0), scale, beta - scale * mean)


def _dropout(walk: Walk, node: Node) -> list[Term]:
    if walk.constant(node, 2, np.zeros(1)).any():
        raise PconvError(f"{called(node)} is in training mode", "export the ANN in evaluation mode")
    return walk.input(node)


def _affine_of_channels(walk: Walk, node: Node, source: str, scale: Array, shift: Array) -> list[Term]:
    terms = [replace(term, scale=term.scale * scale) for term in walk.tensors[source]]
    return walk.shifted(node_name(node), source, terms, shift)


def _arithmetic(walk: Walk, node: Node) -> list[Term]:
    constant = [tensor.name in walk.constants for tensor in node.inputs]
    if True in constant:
        index = constant.index(False)
        source = node.inputs[index].name
        value = _by_channel(walk, node, 1 - index, len(walk.shape(source)) + 1)
        if walk.shape(node.outputs[0].name) != walk.shape(source):
            raise PconvError(f"{called(node)} repeats its signal along an axis of its constant; NIR has no such node")
        if node.op == "Mul" or (node.op == "Div" and index == 0):
            scale, shift = value if node.op == "Mul" else 1 / value, np.zeros(1)
        elif node.op in ("Add", "Sub"):
            sign = -1.0 if node.op == "Sub" else 1.0
            scale, shift = (ONE, sign * value) if index == 0 else (sign * ONE, value)
        else:
            raise PconvError(f"{called(node)} divides by a signal; NIR has no such node")
        return _affine_of_channels(walk, node, source, scale, shift)
    left, right = (tensor.name for tensor in node.inputs)
    if node.op in ("Mul", "Div") or walk.shape(left) != walk.shape(right):
        raise PconvError(f"{called(node)} of two signals is no sum of equal shapes; NIR has only those")
    sign = -1.0 if node.op == "Sub" else 1.0
    terms: dict[str, Term] = {}
    for term in (*walk.tensors[left], *(replace(term, scale=sign * term.scale) for term in walk.tensors[right])):
        # NIR has one edge from node to node.
        again = terms.get(term.node)
        terms[term.node] = replace(again, scale=again.scale + term.scale) if again else term
    return list(terms.values())


def _by_channel(walk: Walk, node: Node, index: int, rank: int) -> Array:
    """A constant operand that varies along the channels at most, `[C]` or `[1]`."""
    value = walk.constant(node, index).astype(np.float64)
    wide = value.reshape([1] * max(rank - value.ndim, 0) + list(value.shape))
    if wide.ndim != rank or wide.size != wide.shape[1]:
        raise PconvError(f"{called(node)} has a constant that differs within a channel; NIR has no such node")
    return wide.reshape(-1)


def _slice(walk: Walk, node: Node) -> list[Term]:
    source = walk.variable(node, 0)
    shape = walk.shape(source)
    starts, ends = (walk.constant(node, index).tolist() for index in (1, 2))
    axes = walk.constant(node, 3, np.arange(len(starts))).tolist()
    steps = walk.constant(node, 4, np.ones(len(starts), np.int64)).tolist()
    matrix, strides = np.eye(shape[0]), [1] * (len(shape) - 1)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis %= len(shape) + 1
        taken = range(*slice(start, end, step).indices(shape[axis - 1])) if axis else None
        if axis == 1:
            matrix = matrix[list(taken or ())]
        elif taken and taken.start == 0 and step > 0 and taken[-1] + step >= shape[axis - 1]:
            strides[axis - 2] = step
        else:
            raise PconvError(f"{called(node)} cuts off a border; NIR has no such node")
    return walk.mapped(node_name(node), source, walk.tensors[source], matrix, strides)


def _pad(walk: Walk, node: Node) -> list[Term]:
    source = walk.variable(node, 0)
    shape = walk.shape(source)
    rank = len(shape) + 1
    axes = [int(axis) % rank for axis in walk.constant(node, 3, np.arange(rank))]
    sizes = walk.constant(node, 1).reshape(2, -1)
    before, after = (dict(zip(axes, row.tolist(), strict=True)) for row in sizes)
    channels = (before.get(1, 0), after.get(1, 0))
    others = [size for sides in (before, after) for axis, size in sides.items() if axis != 1]
    filled = node.attrs.get("mode", "constant") != "constant" or walk.constant(node, 2, np.zeros(1)).any()
    if any(others) or filled or min(channels) < 0:
        raise PconvError(f"{called(node)} does more than add channels of zeros; NIR has no such node")
    matrix = np.pad(np.eye(shape[0]), (channels, (0, 0)))
    return walk.mapped(node_name(node), source, walk.tensors[source], matrix, [1] * (len(shape) - 1))


RULES: dict[str, Rule] = {
    "Add": _arithmetic,
    "AveragePool": _pool,
    "BatchNormalization": _batch_normalization,
    "Conv": _conv,
    "Div": _arithmetic,
    "Dropout": _dropout,
    "Flatten": _layout,
    "Gemm": _gemm,
    "GlobalAveragePool": _pool,
    "Identity": lambda walk, node: walk.input(node),
    "MatMul": _gemm,
    "Mul": _arithmetic,
    "Pad": _pad,
    "ReduceMean": _reduce_mean,
    "Reshape": _layout,
    SERIAL_OP_TYPE: _neuron,
    "Slice": _slice,
    "Squeeze": _layout,
    "Sub": _arithmetic,
    "Unsqueeze": _layout,
}


def nir_graph(network: Network, potentials: Mapping[str, str], steps: int | None, nir: Any) -> Any:
    """The `nir.NIRGraph` of a serial network.

    Args:
        network: what `rewrite` wrote in mode `serial`.
        potentials: its membrane potentials, by input the output that the next step takes.
        steps: T.
        nir: the package of that name.

    Raises:
        PconvError: something of the network has no counterpart in NIR.
    """
    return Walk(network, potentials, nir, RULES).graph(steps)
