"""The rule for what each operator makes of integers and floats.

Any other operator that computes floats makes an island. Rows are assumed to stay rows: a file that `rewrite` wrote has
no operator in time that would mix them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.domain import DOMAIN
from pconv_onnx.graph.constants import element_type, is_standard
from pconv_onnx.integer.proof import sums
from pconv_onnx.integer.proof.site import Finding, Island, Rule, Site
from pconv_onnx.integer.proof.values import UNBOUNDED, Float, Span, Whole, common
from pconv_onnx.neuron.parallel import ParallelNeuron
from pconv_onnx.operators.domain import MEAN_OP_TYPE, OP_TYPE, RUNNING_MEAN_OP_TYPE
from pconv_onnx.operators.parallel_spike import neuron_of


def transfer(site: Site) -> tuple[Finding, int]:
    """What is known of a node's output, and its number of time-steps."""
    try:
        return _found(site), _steps(site)
    except (ArithmeticError, LookupError, TypeError, ValueError):  # operands that a runtime would refuse too
        return Island("its operands do not fit it"), site.steps


def _found(site: Site) -> Finding:
    node = site.node
    if site.network.bodies(node):
        return Island("its bodies are not examined")
    rules = RULES if is_standard(node) else OWN_RULES if node.domain == DOMAIN else {}
    if node.op in rules:
        return rules[node.op](site)
    types = [site.network.dtype(tensor) for tensor in (*node.inputs, *node.outputs) if tensor.name]
    if all(dtype is not None and dtype.kind in "biu" for dtype in types):
        return Float.FIXED  # whatever it computes, of integer types
    return Island(f"{node.op} computes floats whose bits are not settled")


def _steps(site: Site) -> int:
    if site.node.domain != DOMAIN:
        return site.steps
    return _neuron(site).steps if site.node.op == OP_TYPE and site.attribute("spikes") else 1


def _neuron(site: Site) -> ParallelNeuron:
    return neuron_of(site.proto, site.tables)


def _parallel_spike(site: Site) -> Finding:
    """Trains or levels, whatever it reads; integers if its levels are."""
    neuron, rank, input_steps = _neuron(site), site.rank(0), site.attribute("input_steps")
    emitted = _trains(neuron) if site.attribute("spikes") else _levels(neuron)
    if emitted is not None and neuron.channel_axis is not None:
        behind = None if rank is None else rank - 1 - neuron.channel_axis % rank
        emitted = emitted.mapped(lambda span: span.as_one() if behind is None else span.reshaped(-1, *[1] * behind))
    value = emitted or Float.FIXED
    return value if input_steps == 1 else sums.over_time(site, input_steps, value)


def _levels(neuron: ParallelNeuron) -> Whole | None:
    """The span of each row of levels; None if they are not integers."""
    span = Span.of(neuron.levels)
    return None if span is None else Whole.of(_ends(span.low.T[np.newaxis], span))


def _trains(neuron: ParallelNeuron) -> Whole | None:
    """The spans of the steps of trains for each row, and of their means: the levels, if trains carry them exactly."""
    levels = _levels(neuron)
    if levels is None:
        return None
    # Few differ.
    tables, row = np.unique(neuron.levels, axis=0, return_inverse=True)
    each = ParallelNeuron(neuron.thresholds[: len(tables)], tables, 1, neuron.coding)
    trains = Span.of(each.emitted(np.repeat(np.arange(neuron.highest + 1)[:, np.newaxis], len(tables), axis=1)))
    if trains is None:
        return None
    ends = _ends(trains.low, trains)
    rows = Whole.of(Span(ends.low[row.reshape(-1)], ends.high[row.reshape(-1)], ends.grain), neuron.steps)
    carried = (trains.low.sum(axis=0) == neuron.steps * tables.T.astype(np.float64)).all()
    return Whole(rows.rows, levels.mean if carried else rows.mean, rows.reach)


def _ends(values: Array, span: Span) -> Span:
    """The lowest and highest of values `[T, S+1, R]` for each row, `[R]`."""
    return Span(values.min(axis=(0, 1)), values.max(axis=(0, 1)), span.grain)


def _fixed(site: Site) -> Finding:
    """A single operation on floats, or one whose integers do not matter."""
    return Float.FIXED


def _truth(site: Site) -> Finding:
    """False or true."""
    return site.by_rows(Span(np.zeros(()), np.ones(())))


def _of_integers(rule: Callable[[Site, Whole], Finding]) -> Rule:
    """A rule for integers as first input; on floats the operator is a single operation."""

    def either(site: Site) -> Finding:
        whole = site.whole(0)
        return Float.FIXED if whole is None else rule(site, whole)

    return either


@_of_integers
def _same(site: Site, whole: Whole) -> Finding:
    return whole


@_of_integers
def _moved(site: Site, whole: Whole) -> Finding:
    """Operators that move values, pick some or repeat them."""
    return whole.mapped(Span.as_one, whole.product)


@_of_integers
def _transpose(site: Site, whole: Whole) -> Finding:
    axes = site.attribute("perm")
    return whole.mapped(lambda span: span.transposed(axes) if axes else span.as_one(), whole.product)


def _joined(site: Site) -> Finding:
    """Operators that take values from several inputs, perhaps from another one at each step."""
    chooses = site.node.op == "Where"
    wholes = [site.whole(index) for index in range(chooses, len(site.operands))]
    known = [whole.mapped(Span.as_one) for whole in wholes if whole is not None]
    if len(known) < len(wholes):
        return Float.FIXED
    rows = Span.joined([whole.rows for whole in known])
    return site.by_rows(rows) if chooses else Whole(rows, Span.joined([w.mean for w in known]), rows.with_zero)


@_of_integers
def _pad(site: Site, whole: Whole) -> Finding:
    """With zeros, another constant or its own values."""
    value = site.numbers(2, "value")
    filling = Span.of(np.zeros(()) if value is None else value)
    if filling is None or (value is None and site.given(2)):
        return Float.FIXED
    return whole.mapped(lambda span: Span.joined([span.as_one(), filling]))


def _resize(site: Site) -> Finding:
    nearest = site.attribute("mode", "nearest") == "nearest"
    return _moved(site) if nearest else Island("it interpolates")


def _dropout(site: Site) -> Finding:
    training = site.constant(2) if site.given(2) else np.zeros(1)
    return Island("it draws at random") if training is None or training.any() else _same(site)


def _cast(site: Site) -> Finding:
    """To a type that holds the integers, or rounded toward zero to one of integers."""
    dtype = element_type(site.attribute("to"))
    if dtype is None or dtype.kind == "b":
        return Float.FIXED if dtype is None else _truth(site)
    whole = _cut(site, np.trunc) if dtype.kind in "iu" else site.whole(0)
    if whole is None or not whole.rows.bounded:
        return whole or Float.FIXED
    fits = whole.rows.in_units < sums.limit_of(dtype) and (dtype.kind != "u" or whole.rows.low.min() >= 0)
    return whole if fits else Float.FIXED


def _rounded(cut: Callable[[Array], Array]) -> Rule:
    return lambda site: _cut(site, cut)


def _cut(site: Site, cut: Callable[[Array], Array]) -> Whole:
    """Integers as they are, whatever else cut to some; onnxruntime folds nothing over that."""
    whole = site.whole(0)
    if whole is None:
        return site.by_rows(UNBOUNDED)
    if whole.rows.grain.denominator == 1:
        return Whole(whole.rows, whole.mean, whole.rows.with_zero)
    return site.by_rows(Span(cut(whole.rows.low), cut(whole.rows.high)))


def _ascending(site: Site, whole: Whole, rows: Span) -> Whole:
    """Rows through an ascending function, which may leave them as they are."""
    same = (rows.low == whole.rows.low).all() and (rows.high == whole.rows.high).all()
    return Whole(whole.rows, whole.mean, rows.with_zero) if same else site.by_rows(rows)


@_of_integers
def _relu(site: Site, whole: Whole) -> Finding:
    return _ascending(site, whole, whole.rows.through(lambda bound: np.maximum(bound, 0)))


@_of_integers
def _clip(site: Site, whole: Whole) -> Finding:
    """Between integers; an end may be open."""
    rows = whole.rows
    for index, name, bounding in ((1, "min", np.maximum), (2, "max", np.minimum)):
        value = site.numbers(index, name)
        bound = None if value is None else Span.of(value)
        if bound is not None:
            rows = Span(bounding(rows.low, bound.low), bounding(rows.high, bound.high), common(rows.grain, bound.grain))
        elif value is not None or site.given(index):
            return Float.FIXED
    return _ascending(site, whole, rows)


def _extreme(pick: Callable[[Array, Array], Array]) -> Rule:
    """The largest or smallest of several inputs."""

    def rule(site: Site) -> Finding:
        if site.wholes is None:
            return Float.FIXED
        spans = [whole.rows for whole in site.wholes]
        low, high = reduce(pick, (span.low for span in spans)), reduce(pick, (span.high for span in spans))
        return site.by_rows(Span(low, high, common(*(span.grain for span in spans))))

    return rule


@_of_integers
def _pooled(site: Site, whole: Whole) -> Finding:
    """The largest of each channel, in windows or over all."""
    return site.by_rows(whole.rows.by_channel(site.rank(0)))


@_of_integers
def _reduced(site: Site, whole: Whole) -> Finding:
    return site.by_rows(whole.rows.as_one())


@_of_integers
def _absolute(site: Site, whole: Whole) -> Finding:
    both = Span.joined([whole.rows, whole.rows.negated()])
    return site.by_rows(both.through(lambda bound: np.maximum(bound, 0)))


@_of_integers
def _negated(site: Site, whole: Whole) -> Finding:
    return whole.mapped(Span.negated)


OWN_RULES: dict[str, Rule] = {
    OP_TYPE: _parallel_spike,
    MEAN_OP_TYPE: sums.temporal_mean,
    RUNNING_MEAN_OP_TYPE: _fixed,
}
# An operator that is not here makes an island where it computes floats.
RULES: dict[str, Rule] = {
    "Abs": _absolute,
    "Add": sums.add,
    "And": _truth,
    "ArgMax": _fixed,
    "ArgMin": _fixed,
    "AveragePool": sums.average_pool,
    "Cast": _cast,
    "Ceil": _rounded(np.ceil),
    "Clip": _clip,
    "Concat": _joined,
    "Constant": _fixed,
    "ConstantOfShape": _fixed,
    "Conv": sums.conv,
    "ConvTranspose": sums.conv_transpose,
    "DepthToSpace": _moved,
    "Div": sums.divide,
    "Dropout": _dropout,
    "Equal": _truth,
    "Expand": _same,
    "Flatten": _moved,
    "Floor": _rounded(np.floor),
    "Gather": _moved,
    "Gemm": sums.gemm,
    "GlobalAveragePool": sums.reduce_mean,
    "GlobalMaxPool": _pooled,
    "Greater": _truth,
    "GreaterOrEqual": _truth,
    "Identity": _same,
    "LeakyRelu": _fixed,
    "Less": _truth,
    "LessOrEqual": _truth,
    "MatMul": sums.matmul,
    "Max": _extreme(np.maximum),
    "MaxPool": _pooled,
    "Min": _extreme(np.minimum),
    "Mul": sums.multiply,
    "Neg": _negated,
    "Not": _truth,
    "Or": _truth,
    "Pad": _pad,
    "Range": _fixed,
    "ReduceMax": _reduced,
    "ReduceMean": sums.reduce_mean,
    "ReduceMin": _reduced,
    "ReduceSum": sums.reduce_sum,
    "Relu": _relu,
    "Reshape": _moved,
    "Resize": _resize,
    "Round": _rounded(np.round),
    "Shape": _fixed,
    "Sign": _fixed,
    "Size": _fixed,
    "Slice": _moved,
    "SpaceToDepth": _moved,
    "Split": _moved,
    "Squeeze": _moved,
    "Sub": sums.add,
    "Sum": sums.add,
    "Tile": _moved,
    "Transpose": _transpose,
    "Unsqueeze": _moved,
    "Where": _joined,
    "Xor": _truth,
}
