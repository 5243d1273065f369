"""Checks that a network converted to a later opset still computes the same; converters are not trusted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np
from onnx.reference import ReferenceEvaluator

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.domain import MIN_OPSET
from pconv_onnx.basics.errors import PconvError, warn
from pconv_onnx.graph import Network
from pconv_onnx.graph.nesting import every_node
from pconv_onnx.operators.contents import contents_of
from pconv_onnx.runtime.opening import import_onnxruntime
from pconv_onnx.runtime.side_by_side import open_session
from pconv_onnx.runtime.trial import FACTORS, TooMuch, feed, run_briefly, sizes

# Share of the largest output that rounding explains in types of 32 bits and more, and steps of narrower types: an
# operator that is written out as several rounds at each. Of the others a conversion keeps every bit.
_ROUNDING, _STEPS = 1e-4, 8
# Bytes of a model up to which onnx's reference evaluator, which is slow, stands in for onnxruntime.
_SMALL = 1 << 20
# The first opset whose operators that evaluator has right: before, it counts the pads of an AveragePool.
_REFERENCE_OPSET = 7
_RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}

# Operators that run what is in them as often as their inputs say.
_REPEATING = {"Loop", "Scan", "SequenceMap"}

# Of types that are no tensors, sequences for example, something else than an array.
_Outputs = Sequence[Any]


# Networks that were compared already: one command may look at a network several times.
_COMPARED: set[tuple[str, str]] = set()


def require_same(given: Network, later: Network) -> None:
    """Compare a network of an old opset with what it became, on random inputs; warn where that cannot be.

    Raises:
        PconvError: they differ by more than rounding explains, or onnxruntime runs the first alone.
    """
    pair = given.sha256, hashlib.sha256(later.proto.SerializeToString(deterministic=True)).hexdigest()
    if pair not in _COMPARED:
        unchecked = _why_unchecked(given, later)
        if unchecked:
            warn(unchecked)
        _COMPARED.add(pair)


def _why_unchecked(given: Network, later: Network) -> str:
    """Why the two cannot be compared; empty where they were, and are the same.

    Raises:
        PconvError: as of `require_same`.
    """
    told = f"{given.name} uses opset {given.opset}, and its conversion to {later.opset}"
    remedy = f"export it with opset {MIN_OPSET} or later"
    if not _RANDOM.isdisjoint(node.op_type for node in every_node(given.proto.graph)):
        return f"{told} is not checked, since it draws random numbers"
    try:
        before, after = _side_by_side(given, later)
    except TooMuch as error:
        return f"{told} is not checked, since {error.message}"
    if before is None:
        return (
            f"{told} is not checked, since onnxruntime did not run the original on random inputs; fixed sizes of its "
            "inputs may help"
        )
    if after is None:
        raise PconvError(f"{told} does not run in onnxruntime, as the original does", remedy)
    compared = False
    for info, old, new in zip(given.proto.graph.output, before, after, strict=True):
        for one, other in zip(_arrays(old), _arrays(new), strict=False):
            if difference := _difference(one, other):
                raise PconvError(f"{told} changes what it computes (output '{info.name}' {difference})", remedy)
            compared = compared or one.dtype.kind not in "fV" or bool(np.isfinite(one.astype(np.float64)).any())
    return "" if compared else f"{told} is not checked, since it has no finite output on random inputs"


def _arrays(output: Any) -> list[Array]:
    """The tensors of an output, which may be a sequence of them."""
    if isinstance(output, np.ndarray):
        return [output]
    return [array for entry in output for array in _arrays(entry)] if isinstance(output, list) else []


def _side_by_side(given: Network, later: Network) -> tuple[_Outputs | None, _Outputs | None]:
    """Outputs of both for the same inputs, None of one that does not run.

    Raises:
        TooMuch: such runs are not worth a try.
    """
    runners = [_onnxruntime(network) for network in (given, later)]
    for factor in FACTORS:
        try:
            inputs = feed(given, sizes(given, 0, factor))
        except TooMuch:
            raise
        except PconvError:
            continue
        before, after = (runner(inputs) for runner in runners)
        if before is None:
            before, after = _by_definition(given, later, inputs, after)
        if before is not None:
            return before, after
    return None, None


def _onnxruntime(network: Network) -> Callable[[dict[str, Array]], _Outputs | None]:
    if contents_of(network.proto).neurons:
        return lambda inputs: None  # a spiking network, which no rewriting takes
    try:
        level = import_onnxruntime().GraphOptimizationLevel.ORT_DISABLE_ALL
        session = open_session(network.proto, network.name, level, folder=network.folder)
    except PconvError:
        return lambda inputs: None

    def outputs(inputs: dict[str, Array]) -> _Outputs | None:
        try:
            return run_briefly(session, inputs)
        except TooMuch:
            raise
        except PconvError:
            return None

    return outputs


def _by_definition(
    given: Network, later: Network, inputs: dict[str, Array], after: _Outputs | None
) -> tuple[_Outputs | None, _Outputs | None]:
    """Outputs by onnx's reference evaluator; not where onnxruntime disagrees with it on the later network."""
    if given.opset < _REFERENCE_OPSET or given.proto.ByteSize() > _SMALL:
        return None, None
    if not _REPEATING.isdisjoint(node.op_type for node in every_node(given.proto.graph)):
        return None, None  # it would not end before they do
    try:
        before, defined = (list(ReferenceEvaluator(network.proto).run(None, inputs)) for network in (given, later))
    except Exception:  # whatever its NumPy code raises on what it does not know
        return None, None
    if after is not None and any(
        _difference(one, other)
        for old, new in zip(defined, after, strict=True)
        for one, other in zip(_arrays(old), _arrays(new), strict=False)
    ):
        return None, None
    return before, defined


def _difference(before: Array, after: Array) -> str:
    """How an output has changed, for a message; empty where rounding explains it."""
    if before.dtype != after.dtype or before.shape != after.shape:
        return f"from {before.dtype} {list(before.shape)} to {after.dtype} {list(after.shape)}"
    if before.dtype.kind not in "fV":
        return "" if np.array_equal(before, after) else f"in {np.mean(before != after):.2%} of its elements"
    old, new = before.astype(np.float64), after.astype(np.float64)
    finite = np.isfinite(old)
    if not np.array_equal(old[~finite], new[~finite], equal_nan=True) or not np.isfinite(new[finite]).all():
        return "by a NaN or an infinity"
    largest = np.abs(old[finite]).max(initial=0)
    most = np.abs(old[finite] - new[finite]).max(initial=0)
    share = max(_ROUNDING, _STEPS * float(ml_dtypes.finfo(before.dtype).eps))
    return "" if most <= share * largest else f"by up to {most:.3g}"
