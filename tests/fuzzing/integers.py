"""Random quantised networks with integer weights: is every bit what exact integers give, however they are run?

In two modes of four, one of them on floats, with the kernels or the function bodies, optimised or not, on one thread or
two, and one sample at a time or all at once.
What sums that could leave float32 forbid is refused, and where a part computes on floats, bits depend on how they are
summed; networks are grown so that both are rare.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from networks import MODES
from onnx import numpy_helper
from onnxruntime import GraphOptimizationLevel

from pconv_onnx import PconvError, Rewriting, rewrite, session
from pconv_onnx.integer.proof.values import Float, Whole

from .quantised import quantised
from .whole import whole

INTEGER_MODES = ("integer", "integer-parallel")
ALL_MODES = (*MODES, *INTEGER_MODES)
Array = np.ndarray[Any, np.dtype[Any]]
Run = tuple[str, list[Array]]
_CPU = ["CPUExecutionProvider"]
# Whether with the native library, and how optimised.
_WAYS = [
    (kernels, level)
    for kernels in (True, False)
    for level in (GraphOptimizationLevel.ORT_ENABLE_ALL, GraphOptimizationLevel.ORT_DISABLE_ALL)
]


def faults(seed: int) -> list[str]:
    """What is wrong with the network of one seed; empty where all is right."""
    return judged(seed)[0]


def judged(seed: int, modes: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """The faults of the network of one seed, and why, if so, it is refused or not all of it can be integers.

    Modes, of which the first is on floats, are drawn where none are given.
    """
    model, feed, options = quantised(seed)
    random = np.random.default_rng([seed, 1])
    found: list[str] = []
    spared: list[str] = []
    # In the first of the modes.
    given: list[Array] = []
    for mode in modes or _drawn(random):
        how = f"{mode}, {options['coding']}, {options['weights']}"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                rewriting = rewrite(model, mode=mode, **options)
        except PconvError as error:
            spare = "may reach" in str(error) or "can be one of integers" in str(error)
            (spared if spare else found).append(f"{how} is refused: {error}")
            continue
        if islands := rewriting.summary()["integer"]["islands"]:
            spared.append(f"{how}: {islands}")
            continue
        snn = rewriting.model
        (_, outputs), *others = _runs(snn, feed, random)
        for run, again in others:
            found += [f"{how}, {run}: {told}" for told in _differing(model, again, outputs)]
        found += [f"{how}, not as in the other mode: {told}" for told in _differing(model, outputs, given or outputs)]
        given = given or outputs
        # Modes on floats are compared with exact integers; a product that is rounded, everywhere alike, is none, and an
        # activation that is refused divides floats.
        refused = [row["name"] for row in rewriting.summary()["activations"] if row["status"] == "refused"]
        if refused:
            spared.append(f"{how}: refused are {refused}")
        if mode in INTEGER_MODES or refused or _rounds_products(rewriting):
            continue
        try:
            expected = whole(snn, feed)
        except (AssertionError, NotImplementedError) as error:
            found.append(f"{how}: {type(error).__name__}: {error}")
            continue
        found += [f"{how}, exactly: {told}" for told in _differing(model, outputs, expected)]
    return found, spared


def _drawn(random: np.random.Generator) -> tuple[str, str]:
    """A mode on floats, which exact integers are compared with, and another of any kind."""
    first = str(random.choice(MODES))
    return first, str(random.choice([mode for mode in ALL_MODES if mode != first]))


def _rounds_products(rewriting: Rewriting) -> bool:
    """Whether a product of integers is larger than floats hold exactly."""
    known = rewriting.integers.proof.tensors
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in rewriting.model.graph.initializer}

    def is_whole(name: str) -> bool:
        if name in constants:
            return bool((constants[name] == np.rint(constants[name])).all())
        return isinstance(known[name].value, Whole) if name in known else False

    products = (node for node in rewriting.model.graph.node if node.op_type == "Mul" and all(map(is_whole, node.input)))
    return any(known[node.output[0]].value is Float.FIXED for node in products)


def _runs(snn: onnx.ModelProto, feed: dict[str, Array], random: np.random.Generator) -> Iterator[Run]:
    """What onnxruntime gives: with kernels and optimised, and in another way of running a network."""
    rows = range(len(next(iter(feed.values()))))
    for kernels, level in (_WAYS[0], _WAYS[random.integers(1, len(_WAYS))]):
        options, name = (
            _options(level, int(random.integers(1, 3))),
            f"{'kernels' if kernels else 'bodies'}, {level.name}",
        )
        content = snn.SerializeToString()
        runner = session(snn, options=options) if kernels else onnxruntime.InferenceSession(content, options, _CPU)
        yield name, runner.run(None, feed)
        alone = [runner.run(None, {x: value[[row]] for x, value in feed.items()}) for row in rows]
        yield f"{name}, one by one", [np.concatenate(outputs) for outputs in zip(*alone, strict=True)]


def _options(level: GraphOptimizationLevel, threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    return options


def _differing(model: onnx.ModelProto, given: list[Array], expected: list[Array]) -> Iterator[str]:
    for output, ours, theirs in zip(model.graph.output, given, expected, strict=True):
        if ours.shape != theirs.shape:
            yield f"'{output.name}' has shape {ours.shape}, not {theirs.shape}"
            continue
        wrong = ours.view(np.uint32) != theirs.view(np.uint32)
        if wrong.any():
            first = tuple(int(index[0]) for index in np.nonzero(wrong))
            yield f"'{output.name}' differs in {wrong.sum()} of {wrong.size}: {ours[first]!r}, not {theirs[first]!r}"
