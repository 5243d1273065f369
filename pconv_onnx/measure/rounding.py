"""How far apart two evaluations of an operator may lie by rounding alone; a rule for each operator.

A float operation gives its exact result times 1 + δ, |δ| ≤ u, the unit roundoff of its type. A summand that goes
through n of them comes out multiplied by n such factors, in whatever order sums are added up; so a computed value is
off by at most γₙ = n·u/(1 − n·u) times its *magnitude*, the same expression with the absolute value of every operand
and sums for differences (Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd edition, sections 3.1 and 3.5).
What moves values, or takes the larger or what is above zero, brings none of its own and makes no difference larger.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import ml_dtypes
import numpy as np
import onnx
from onnx import helper

from pconv_onnx.basics.arrays import Array

FLOATS = tuple(np.dtype(dtype) for dtype in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64))


# How many summands there are: a number, or the name of a float scalar that tells at run time.
Count = int | str


@dataclass(frozen=True)
class Rounded:
    """A float tensor as far as rounding goes.

    Attributes:
        magnitude: name of the tensor of its magnitudes, of its shape.
        operations: the most float operations that a summand goes through, but for those in `counts`.
        stores: the most tensors and constants that it goes through, each of which may be of a narrower type than what
            is computed in.
        counts: names of float scalars, each a number of operations more.
        hollow: whether values may be larger than their magnitudes: a constant that is only picked is the same in both
            networks, whatever its size.
        means: the most means over time that a summand goes through in one of the networks, but for the last: of the
            factors of a product all but one are means there.
    """

    magnitude: str
    operations: int = 0
    stores: int = 0
    counts: tuple[str, ...] = ()
    hollow: bool = False
    means: int = 0

    def after(self, count: Count, magnitude: str = "", *, stores: int = 1) -> Rounded:
        """What an operator makes of it that takes so many operations."""
        return replace(
            self,
            magnitude=magnitude or self.magnitude,
            operations=self.operations + (count if isinstance(count, int) else 0),
            stores=self.stores + stores,
            counts=self.counts + ((count,) if isinstance(count, str) else ()),
        )

    @classmethod
    def joined(cls, operands: Sequence[Rounded], magnitude: str, *, products: bool) -> Rounded:
        """Products of tensors, a summand of each after a summand of another; or sums of them, of one or another."""
        count = sum if products else max
        names = [name for operand in operands for name in operand.counts]
        return cls(
            magnitude,
            count(operand.operations for operand in operands),
            count(operand.stores for operand in operands),
            # In a product each counts; what several summands have in common counts once.
            tuple(names if products else dict.fromkeys(names)),
            any(operand.hollow for operand in operands),
            count(operand.means for operand in operands),
        )


@dataclass(frozen=True)
class Units:
    """Unit roundoffs of two networks that are compared.

    Attributes:
        computed: of the type that is computed in; half types are computed with in float32.
        stored: of the narrowest type of a tensor.
        smallest: the smallest normal number of that: what is rounded below it is off by the unit times it.
    """

    computed: float
    stored: float
    smallest: float

    @classmethod
    def of(cls, dtypes: Iterable[np.dtype[Any]]) -> Units:
        """Those of networks whose tensors have these types."""
        floats = [ml_dtypes.finfo(dtype) for dtype in {np.dtype(np.float64), *dtypes} if dtype in FLOATS]
        narrow = max(floats, key=lambda info: float(info.eps))
        single = float(np.finfo(np.float32).eps)
        return cls(min(float(narrow.eps), single) / 2, float(narrow.eps) / 2, float(narrow.smallest_normal))

    def limit(self, rounded: Rounded, magnitudes: Array, counted: float, steps: int) -> Array | None:
        """How far the values of a tensor may lie apart in two networks.

        Args:
            rounded: how they come about in either.
            magnitudes: of the tensor, computed in one of them.
            counted: the sum of its `counts`.
            steps: time-steps, over which the other takes means besides.

        Returns:
            None where so much is rounded that nothing is left.
        """
        # Both round; one takes means as well, of spikes that were levels divided by T.
        means = 1 + rounded.means
        operations, stores = 2 * (rounded.operations + counted) + means * (steps + 4), 2 * (rounded.stores + means)
        share = _gamma(operations, self.computed)
        if self.stored > self.computed:
            share += _gamma(stores, self.stored)
        if not share < 1:
            return None
        # Magnitudes, too, were rounded.
        with np.errstate(over="ignore"):
            return np.asarray(share / (1 - share) * (magnitudes.astype(np.float64) + operations * self.smallest))


def _gamma(operations: float, unit: float) -> float:
    """γₙ; infinite where it is not defined."""
    return operations * unit / (1 - operations * unit) if operations * unit < 1 else math.inf


class SizeUnknownError(LookupError):
    """How many summands there are is not known."""


class Site(Protocol):
    """A node of the source, and where nodes for the magnitudes of its outputs are written."""

    node: onnx.NodeProto

    def operand(self, index: int) -> Rounded:
        """An input of floats that is computed with: its values are no larger than its magnitudes."""

    def picked(self, index: int) -> Rounded:
        """An input of floats of which values are only picked."""

    def given(self, index: int) -> bool:
        """Whether an optional input is given."""

    def constant(self, index: int) -> Array | None:
        """The value of an input that is an initializer or a Constant; None of any other."""

    def varies(self, index: int) -> bool:
        """Whether an input depends on the network's inputs."""

    def sizes(self, name: str) -> Sequence[int | str | None]:
        """The shape of a tensor.

        Raises:
            SizeUnknownError: it is not known.
        """

    def write(self, op_type: str, inputs: Sequence[str], attributes: Sequence[onnx.AttributeProto]) -> list[str]:
        """Write a node with as many outputs as this has; their names."""

    def ratio(self, large: str, small: str) -> str:
        """The float scalar that tells how many times more elements one tensor has than another."""

    def last_size(self, name: str) -> str:
        """The float scalar that tells the size of the last axis of a tensor.

        Raises:
            SizeUnknownError: the opset is too old for that.
        """


# None: the operator has no such form.
Row = Callable[[Site], list[Rounded] | None]


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """The value of an attribute of a node."""
    found = next((entry for entry in node.attribute if entry.name == name), None)
    return default if found is None else helper.get_attribute_value(found)


def _same(site: Site, magnitudes: dict[int, str], op_type: str = "", **attributes: Any) -> list[str]:
    """The node again, on magnitudes in the place of some inputs."""
    node = site.node
    inputs = [magnitudes.get(index, name) for index, name in enumerate(node.input)]
    kept = [entry for entry in node.attribute if entry.name not in attributes]
    changed = [helper.make_attribute(name, value) for name, value in attributes.items()]
    return site.write(op_type or node.op_type, inputs, [*kept, *changed])


def _numbers(sizes: Sequence[int | str | None]) -> int:
    if not all(isinstance(size, int) for size in sizes):
        raise SizeUnknownError
    return math.prod(size for size in sizes if isinstance(size, int))


def _reduction(site: Site) -> Count:
    """How many elements of the input one of the output comes from."""
    names = site.node.input[0], site.node.output[0]
    try:
        before, after = map(site.sizes, names)
        kept = len(before) - sum(isinstance(size, int) for size in before)
        if kept == len(after) - sum(isinstance(size, int) for size in after):
            # Axes without a number are in both.
            large, small = (_numbers([s for s in sizes if isinstance(s, int)]) for sizes in (before, after))
            return large // small if small else 0
    except SizeUnknownError:
        pass
    return site.ratio(*names)


def _moved(site: Site) -> list[Rounded]:
    """What only moves or picks values of its first input."""
    operand = site.picked(0)
    return [operand.after(0, name, stores=0) for name in _same(site, {0: operand.magnitude})]


def _as_it_is(site: Site) -> list[Rounded]:
    """What gives each value itself, its negative or what of it is above zero."""
    return [site.picked(0)]


def _cast(site: Site) -> list[Rounded] | None:
    """To another float type."""
    element, operand = attribute(site.node, "to"), site.operand(0)
    if element not in (onnx.helper.np_dtype_to_tensor_dtype(dtype) for dtype in FLOATS):
        return None
    wide = onnx.TensorProto.DOUBLE if element == onnx.TensorProto.DOUBLE else onnx.TensorProto.FLOAT
    (name,) = site.write("Cast", [operand.magnitude], [helper.make_attribute("to", wide)])
    return [operand.after(1, name)]


def _leaky_relu(site: Site) -> list[Rounded]:
    """What is below zero, times a slope that may be steeper than one."""
    operand, slope = site.operand(0), attribute(site.node, "alpha", 0.01)
    (below,) = site.write("Neg", [operand.magnitude], [])
    return [operand.after(1, name) for name in _same(site, {0: below}, alpha=-max(1.0, abs(slope)))]


def _dropout(site: Site) -> list[Rounded] | None:
    training = site.constant(2) if site.given(2) else np.zeros(1)
    if training is None or training.any() or len([name for name in site.node.output if name]) > 1:
        return None
    return [site.picked(0)]


def _clip(site: Site) -> list[Rounded] | None:
    """Between bounds with zero between them."""
    low, high = (
        site.constant(index) if site.given(index) else np.asarray(attribute(site.node, name, 0.0))
        for index, name in ((1, "min"), (2, "max"))
    )
    if low is None or high is None or (low > 0).any() or (high < 0).any():
        return None
    return [site.picked(0)]


def _products(site: Site, summands: Count, extra: int = 1, **attributes: Any) -> list[Rounded]:
    """Sums of products of the first two inputs, and a third that is added."""
    operands = [site.operand(index) for index in range(3 if site.given(2) else 2)]
    (name,) = _same(site, {index: operand.magnitude for index, operand in enumerate(operands)}, **attributes)
    rounded = Rounded.joined(operands[:2], name, products=True).after(summands)
    if site.varies(0) and site.varies(1):
        rounded = replace(rounded, means=rounded.means + 1)
    if len(operands) > 2:
        rounded = Rounded.joined([rounded, operands[2]], name, products=False)
    return [rounded.after(extra, stores=0)]


def _conv(site: Site) -> list[Rounded]:
    return _products(site, _numbers(site.sizes(site.node.input[1])[1:]))


def _conv_transpose(site: Site) -> list[Rounded]:
    inputs, _, *kernel = site.sizes(site.node.input[1])
    return _products(site, _numbers([inputs, *kernel]))


def _gemm(site: Site) -> list[Rounded]:
    sizes = site.sizes(site.node.input[1])
    alpha, beta = (abs(attribute(site.node, name, 1.0)) for name in ("alpha", "beta"))
    summands = _numbers(sizes[1:] if attribute(site.node, "transB", 0) else sizes[:1])
    return _products(site, summands, 4, alpha=alpha, beta=beta)


def _matmul(site: Site) -> list[Rounded]:
    summands: Count | None = None
    for name, axis in zip(site.node.input, (-1, -2), strict=True):
        try:
            size = site.sizes(name)[axis]
        except LookupError:  # of a vector there is no other axis
            continue
        summands = size if isinstance(size, int) else summands
    return _products(site, site.last_size(site.node.input[0]) if summands is None else summands)


def _einsum(site: Site) -> list[Rounded]:
    terms, arrow, result = attribute(site.node, "equation", b"").decode().replace(" ", "").partition("->")
    if not arrow or "." in terms:
        raise SizeUnknownError
    operands = terms.split(",")
    sizes: dict[str, int] = {}
    for term, name in zip(operands, site.node.input, strict=True):
        for letter, size in zip(term, site.sizes(name), strict=True):
            if letter not in result:
                # Of a size of one another operand has more.
                sizes[letter] = max(sizes.get(letter, 1), _numbers([size]))
    rounded = [site.operand(index) for index in range(len(operands))]
    (name,) = _same(site, {index: operand.magnitude for index, operand in enumerate(rounded)})
    return [Rounded.joined(rounded, name, products=True).after(math.prod(sizes.values()) + len(operands))]


def _multiply(site: Site) -> list[Rounded]:
    return _products(site, 1, 0)


def _divide(site: Site) -> list[Rounded] | None:
    """By a constant: the error of a divisor is none of its magnitude."""
    return None if site.varies(1) else _products(site, 1, 0)


def _add(site: Site) -> list[Rounded]:
    operands = [site.operand(index) for index in range(len(site.node.input))]
    op_type = "Add" if site.node.op_type == "Sub" else site.node.op_type
    (name,) = _same(site, {index: operand.magnitude for index, operand in enumerate(operands)}, op_type)
    return [Rounded.joined(operands, name, products=False).after(len(operands))]


def _extremes(site: Site) -> list[Rounded]:
    """Any of several inputs."""
    indices = [index for index in range(len(site.node.input)) if site.node.op_type != "Where" or index]
    operands = {index: site.picked(index) for index in indices}
    op_type = "Max" if site.node.op_type == "Min" else site.node.op_type
    (name,) = _same(site, {index: operand.magnitude for index, operand in operands.items()}, op_type)
    return [Rounded.joined(list(operands.values()), name, products=False)]


def _extremum(site: Site) -> list[Rounded] | None:
    """The largest or smallest along axes or in windows."""
    if len([name for name in site.node.output if name]) > 1:
        return None
    operand = site.picked(0)
    op_type = "ReduceMax" if site.node.op_type == "ReduceMin" else site.node.op_type
    return [operand.after(0, name, stores=0) for name in _same(site, {0: operand.magnitude}, op_type)]


def _mean(site: Site) -> list[Rounded]:
    """A sum or mean along axes or in windows."""
    pooled = attribute(site.node, "kernel_shape")
    summands = math.prod(pooled) if pooled else _reduction(site)
    operand = site.operand(0)
    return [operand.after(summands, name).after(1, stores=0) for name in _same(site, {0: operand.magnitude})]


def _normalise(site: Site) -> list[Rounded] | None:
    """BatchNormalization with given statistics: `(x − mean)·scale/√(var + ε) + bias`."""
    if attribute(site.node, "training_mode", 0) or len(site.node.output) > 1 or site.varies(4):
        return None
    variance = site.constant(4)
    if variance is None or (variance < 0).any():
        # Then ε takes from it, and the sum is off by more than either.
        raise SizeUnknownError
    operands = [site.operand(index) for index in range(5)]
    magnitudes = {index: operand.magnitude for index, operand in enumerate(operands)}
    (magnitudes[3],) = site.write("Neg", [magnitudes[3]], [])
    (name,) = _same(site, magnitudes)
    # A factor from the scale, ε, a root and a quotient; a product and a sum with the mean and with the bias.
    return [Rounded.joined(operands, name, products=True).after(8)]


def _pad(site: Site) -> list[Rounded]:
    operands = {0: site.picked(0)} | ({2: site.picked(2)} if site.given(2) else {})
    # One that is an attribute is as good as picked.
    changed: dict[str, Any] = {"value": 0.0} if attribute(site.node, "value") else {}
    (name,) = _same(site, {index: operand.magnitude for index, operand in operands.items()}, **changed)
    return [Rounded.joined(list(operands.values()), name, products=False)]


def _resize(site: Site) -> list[Rounded]:
    """Of nearest values, or of means of up to two along each axis; weights of others are negative in part, or more."""
    mode = attribute(site.node, "mode", b"nearest")
    crops = attribute(site.node, "coordinate_transformation_mode") == b"tf_crop_and_resize"
    if crops or attribute(site.node, "antialias", 0):
        raise SizeUnknownError
    if mode == b"nearest":
        return _moved(site)
    if mode != b"linear":
        raise SizeUnknownError
    operand = site.operand(0)
    axes = len(site.sizes(site.node.input[0]))
    return [operand.after(3 * axes, name) for name in _same(site, {0: operand.magnitude})]


# An operator that is not here has no magnitudes of its own.
ROWS: dict[str, Row] = {
    "Add": _add,
    "AveragePool": _mean,
    "BatchNormalization": _normalise,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _extremes,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "DepthToSpace": _moved,
    "Div": _divide,
    "Dropout": _dropout,
    "Einsum": _einsum,
    "Expand": _moved,
    "Flatten": _moved,
    "Gather": _moved,
    "Gemm": _gemm,
    "GlobalAveragePool": _mean,
    "GlobalMaxPool": _extremum,
    "Identity": _as_it_is,
    "LeakyRelu": _leaky_relu,
    "MatMul": _matmul,
    "Max": _extremes,
    "MaxPool": _extremum,
    "Mean": _add,
    "Min": _extremes,
    "Mul": _multiply,
    "Neg": _as_it_is,
    "Pad": _pad,
    "ReduceMax": _extremum,
    "ReduceMean": _mean,
    "ReduceMin": _extremum,
    "ReduceSum": _mean,
    "Relu": _as_it_is,
    "Reshape": _moved,
    "Resize": _resize,
    "Slice": _moved,
    "SpaceToDepth": _moved,
    "Split": _moved,
    "Squeeze": _moved,
    "Sub": _add,
    "Sum": _add,
    "Tile": _moved,
    "Transpose": _moved,
    "Unsqueeze": _moved,
    "Where": _extremes,
}
