"""Does a spiking network compute what its source computes? Layer by layer on the same input, and end to end."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.basics.progress import track
from pconv_onnx.data.reading import load_samples, random_samples
from pconv_onnx.data.samples import BatchAxis, DataSource, Samples
from pconv_onnx.graph import ModelSource, Network, load
from pconv_onnx.graph.exposing import expose
from pconv_onnx.graph.nesting import every_graph, every_node
from pconv_onnx.graph.record import parsed, recorded
from pconv_onnx.operators.domain import attribute, is_layer, is_operator
from pconv_onnx.operators.parallel_spike import neuron_of
from pconv_onnx.runtime.opening import import_onnxruntime
from pconv_onnx.runtime.side_by_side import (
    Sessions,
    batches,
    by_sample,
    classes,
    open_session,
    run_session,
    runnable,
    sample_axes,
)

# Share of the largest output that rounding in float32 explains.
_ROUNDING = 1e-4
# Types that activations compute in.
_FLOATS = ("float16", "bfloat16", "float32", "float64")


@dataclass
class Comparison:
    """Differences between the outputs of two networks, added up batch by batch.

    Attributes:
        max_abs_diff: largest difference of an output value; infinite where shapes differ, or where one network has a
            NaN, an infinity or another string than the other.
        magnitude: largest finite value of the float outputs expected.
        agreeing: samples on which the largest logit is the same.
        samples: samples compared; 0 where one of the networks could not be run.
    """

    max_abs_diff: float = 0.0
    magnitude: float = 0.0
    agreeing: int = 0
    samples: int = 0

    def add(self, expected: list[Array], found: list[Array], count: int) -> None:
        """Take in the outputs of one batch; top-1 is that of the first output with classes."""
        for left, right in zip(expected, found, strict=True):
            self.max_abs_diff = max(self.max_abs_diff, _difference(left, right))
            self.magnitude = max(self.magnitude, _magnitude(left))
        self.samples += count
        index = classes(expected, count)
        if index is not None and found[index].shape == expected[index].shape:
            self.agreeing += int((expected[index].argmax(1) == found[index].argmax(1)).sum())

    def top1_agreement(self, has_classes: bool) -> float | None:
        """Share of samples with the same top-1; None where no output has classes or nothing was compared."""
        return self.agreeing / self.samples if has_classes and self.samples else None


@dataclass
class Layer:
    """Spike counts of one neuron layer against its source activation, both fed the source's pre-activation.

    Attributes:
        name: name of the activation.
        exact: whether the source has a value to be equal to (T = L).
        calibrated: whether it has none because its levels are of a calibration: there it has a ReLU.
        mismatches: elements whose count is not the source's.
        elements: elements compared; none of a layer in a branch that no sample got to.
    """

    name: str
    exact: bool
    calibrated: bool = False
    mismatches: int = 0
    elements: int = 0

    @property
    def count_mismatch_rate(self) -> float | None:
        """Share of elements with another count; None where there is nothing to be equal to, or to compare."""
        return self.mismatches / self.elements if self.exact and self.elements else None


@dataclass
class Verification:
    """What `verify` found.

    Attributes:
        passed: see there.
        samples: samples compared.
        random_inputs: whether they were drawn, since no data was given.
        unoptimised: outputs against the source's, both with onnxruntime's graph optimisations disabled, so that every
            operator is what ONNX defines.
        as_run: the same, both as a user runs them.
        source_itself: the source as a user runs it against the source unoptimised; what onnxruntime alone changes.
        spiking_itself: the spiking network likewise.
        load_errors: why `ann` or `snn` loads only with graph optimisations disabled, and is not run otherwise.
        layers: one a neuron layer.
        correct: top-1 answers that are right of source and spiking network, where there are labels; each as it is run.
        has_classes: whether an output looks like logits.
        atol: the tolerance on outputs, if one was given.
    """

    samples: int
    random_inputs: bool
    layers: list[Layer] = field(repr=False)
    atol: float | None
    unoptimised: Comparison = field(default_factory=Comparison)
    as_run: Comparison = field(default_factory=Comparison)
    source_itself: Comparison = field(default_factory=Comparison)
    spiking_itself: Comparison = field(default_factory=Comparison)
    load_errors: dict[str, str] = field(default_factory=dict)
    correct: dict[str, int] | None = None
    has_classes: bool = False

    @property
    def passed(self) -> bool:
        """Every layer counts as its source does, and outputs are what they may be in every setting that runs.

        Outputs may not have another shape, a NaN or an infinity of their own, nor be beyond `atol`; a spiking network
        has to load as its source does.
        """
        settings = (self.unoptimised, self.as_run)
        bounded = all(math.isfinite(outputs.max_abs_diff) for outputs in settings)
        within = self.atol is None or all(outputs.max_abs_diff <= self.atol for outputs in settings)
        loads = "snn" not in self.load_errors or "ann" in self.load_errors
        return bounded and within and loads and not any(layer.mismatches for layer in self.layers)

    @property
    def layers_compared(self) -> int:
        """How many layers were compared with their source; where it is none, outputs alone were."""
        return sum(layer.count_mismatch_rate is not None for layer in self.layers)

    @property
    def outputs_differ(self) -> list[str]:
        """The settings in which outputs differ by more than `atol`, or without one by more than rounding explains."""
        tolerance = self.atol if self.atol is not None else _ROUNDING * self.unoptimised.magnitude
        return [name for name in ("unoptimised", "as_run") if getattr(self, name).max_abs_diff > tolerance]

    def summary(self) -> dict[str, Any]:
        """The JSON document of `pconv-onnx verify`."""

        def outputs(comparison: Comparison) -> dict[str, Any]:
            # JSON has no infinity.
            known = comparison.samples and math.isfinite(comparison.max_abs_diff)
            return {
                "max_abs_diff": comparison.max_abs_diff if known else None,
                "top1_agreement": comparison.top1_agreement(self.has_classes),
            }

        correct = (self.correct if self.has_classes else None) or {}
        accuracy = {name: count / self.samples for name, count in correct.items()} or None
        return {
            "passed": self.passed,
            **outputs(self.as_run),
            "samples": self.samples,
            "random_inputs": self.random_inputs,
            "atol": self.atol,
            "accuracy": accuracy,
            "unoptimised": outputs(self.unoptimised),
            "source_against_itself": outputs(self.source_itself),
            "spiking_against_itself": outputs(self.spiking_itself),
            "outputs_differ": self.outputs_differ,
            "load_errors": self.load_errors,
            "layers_compared": self.layers_compared,
            "layers": [
                {
                    "name": layer.name,
                    "exact": layer.exact,
                    "calibrated": layer.calibrated,
                    "count_mismatch_rate": layer.count_mismatch_rate,
                }
                for layer in self.layers
            ],
        }


def verify(
    ann: ModelSource,
    snn: ModelSource,
    data: DataSource | None = None,
    *,
    batch_axis: BatchAxis = 0,
    atol: float | None = None,
    providers: Sequence[Any] | None = None,
) -> Verification:
    """Compare a spiking network with the network that it was made from.

    Each neuron layer runs as it is deployed, on the pre-activation that the source computes (graph optimisations
    disabled, so that its operators are what they say); its spike counts must be the source's on every element. End to
    end the outputs are compared and reported, first without graph optimisations and then as a user runs them: a Conv
    over T·B rows may round otherwise than one over B rows, and onnxruntime's optimisations change either network.

    Args:
        ann: the source.
        snn: what `rewrite` made of it.
        data: samples as `load_samples` takes them; by default seeded random inputs.
        batch_axis: along which axis of the inputs samples lie in the model, as `load_samples` takes it.
        atol: tolerance on output values, a finite number that is not negative; None only reports them.
        providers: where the spiking network runs, whole and layer by layer, and the source as it is run, as `session`
            takes them. What is expected of a layer is computed on the CPU all the same.

    Raises:
        PconvError: a file cannot be read or run, `snn` was not made from `ann`, or the data do not fit.
    """
    if atol is not None and not 0 <= atol < math.inf:
        raise PconvError(f"{atol} is not a tolerance", "choose a finite number that is not negative")
    source, spiking = runnable(load(ann)), load(snn)
    rows = _provenance(source, spiking)
    disabled = import_onnxruntime().GraphOptimizationLevel.ORT_DISABLE_ALL
    exact = [row for row in rows if row["steps"] == row["levels"]]
    sessions = Sessions([source, spiking])

    def add(key: str, model: onnx.ModelProto, network: Network, level: Any, where: Sequence[Any] | None) -> None:
        sessions.add(key, partial(open_session, model, network.name, level, where, network.folder))

    model, taps = _with_taps(source, exact)
    add("ann unoptimised", model, source, disabled, None)
    ends = _ends(sessions["ann unoptimised"])
    add("snn unoptimised", spiking.proto, spiking, disabled, providers)
    _check_ends(ends, _ends(sessions["snn unoptimised"]), source, spiking)
    checks = [_LayerCheck(row, taps.get(row["name"], ""), source, spiking, providers) for row in rows]
    _refuse_neurons_without_record(spiking, rows)
    tapped = sessions["ann unoptimised"]
    if data is not None:
        samples = load_samples(data, tapped, batch_axis)
    else:
        samples = random_samples(tapped, batch_axis=batch_axis)
    outputs = [output.name for output in source.proto.graph.output]
    axes = sample_axes(tapped, samples, outputs)
    del tapped  # of large networks one session is open at a time
    result = Verification(len(samples), data is None, [check.layer for check in checks], atol)
    for key, network in (("ann", source), ("snn", spiking)):
        try:
            add(key, network.proto, network, None, providers)
        except PconvError as error:
            result.load_errors[key] = error.message
    if samples.labels is not None:
        result.correct = {"ann": 0, "snn": 0}
    steps = max((row["steps"] for row in rows), default=1)
    parts = batches(samples, steps)
    for part, feed in track(parts, "verifying", len(parts)):
        _verify_batch(result, checks, sessions, list(ends[1]), outputs, axes, feed, samples, part)
    return result


def _verify_batch(
    result: Verification,
    checks: list[_LayerCheck],
    sessions: Sessions,
    tapped: list[str],
    names: list[str],
    axes: list[int | None] | None,
    feed: dict[str, Array],
    samples: Samples,
    part: slice,
) -> None:
    values = dict(zip(tapped, run_session(sessions["ann unoptimised"], feed), strict=True)) | feed
    for check in checks:
        # Of a branch that was not entered it is empty.
        if check.layer.exact and values[check.tap].size:
            check.add(values[check.tap])
    outputs = {"ann unoptimised": by_sample([values[name] for name in names], axes)}
    outputs |= {
        name: by_sample(run_session(sessions[name], feed, names), axes) for name in sessions if name not in outputs
    }
    for comparison, expected, found in (
        (result.unoptimised, "ann unoptimised", "snn unoptimised"),
        (result.as_run, "ann", "snn"),
        (result.source_itself, "ann unoptimised", "ann"),
        (result.spiking_itself, "snn unoptimised", "snn"),
    ):
        if expected in outputs and found in outputs:
            comparison.add(outputs[expected], outputs[found], part.stop - part.start)
    index = classes(outputs["ann unoptimised"], part.stop - part.start)
    result.has_classes = index is not None
    if result.correct is not None and samples.labels is not None and index is not None:
        for name in result.correct:
            logits = outputs[name if name in outputs else f"{name} unoptimised"][index]
            result.correct[name] += int((logits.argmax(1) == samples.labels[part]).sum())


class _LayerCheck:
    """One neuron of the spiking network and the activation it replaced, each cut out and run by itself."""

    def __init__(
        self, row: dict[str, Any], tap: str, source: Network, network: Network, providers: Sequence[Any] | None
    ) -> None:
        spiking = network.proto
        self.layer = Layer(row["name"], row["steps"] == row["levels"], row["levels"] is None)
        self.tap = tap
        try:
            node = next(n for n in every_node(spiking.graph) if is_operator(n) and n.name == row["node"])
            tables = {t.name: t for t in _initializers(spiking) if t.name in node.input[1:]}
            self.spikes, self.input_steps = bool(attribute(node, "spikes")), attribute(node, "input_steps")
            self.neuron = neuron_of(node, tables)
        except (StopIteration, KeyError, ValueError) as error:
            raise PconvError(
                f"neuron '{row['name']}' of {network.name} is not there any more as rewrite wrote it",
                "compare before other tools edit the spiking network",
            ) from error
        # Thresholds out of order have no specified count, whatever this kernel makes of them (NaN sorts last, where it
        # belongs); and only levels evenly spaced are carried by a number of equal spikes.
        thresholds = self.neuron.thresholds
        in_order = np.array_equal(np.sort(thresholds, axis=1), thresholds, equal_nan=True)
        self.well_formed = in_order and (not self.spikes or self.neuron.carried_by_trains)
        if not self.layer.exact:
            return
        element = tables[node.input[1]].data_type
        graph = helper.make_graph(
            [node],
            "neuron",
            [helper.make_tensor_value_info(node.input[0], element, None)],
            [helper.make_tensor_value_info(node.output[0], element, None)],
            list(tables.values()),
        )
        alone = helper.make_model(
            graph, opset_imports=spiking.opset_import, functions=spiking.functions, ir_version=spiking.ir_version
        )
        told = f"neuron '{row['name']}' of {network.name}"
        self.session = open_session(alone, told, providers=providers, folder=network.folder)
        self.activation = _evaluator(source, row)

    def add(self, current: Array) -> None:
        """Take in one batch of the source's pre-activation, where the layer is exact."""
        dtype = self.neuron.levels.dtype
        # What the neuron sees: the pre-activation in its own type.
        current = current.astype(dtype)
        expected = self.activation(current)
        in_time = np.concatenate([current] * self.input_steps)
        (found,) = run_session(self.session, {self.session.get_inputs()[0].name: in_time})
        wrong = np.full(expected.shape, not self.well_formed)
        if self.spikes:
            trains = found.reshape(self.neuron.steps, *expected.shape)
            silent, spike = (
                self.neuron.along_channels(self.neuron.levels[:, [k]], expected.ndim) for k in (0, self.neuron.steps)
            )
            fired = trains != silent
            count = fired.sum(axis=0)
            # A train that is not sorted, or not of spikes of the neuron's amplitude, is wrong whatever its count.
            wrong |= (fired[1:] & ~fired[:-1]).any(axis=0) | (fired & (trains != spike)).any(axis=0)
            found = self.neuron.value(count)
        wrong |= found != expected.astype(dtype)
        self.layer.mismatches += int(wrong.sum())
        self.layer.elements += wrong.size


def _evaluator(source: Network, row: dict[str, Any]) -> Callable[[Array], Array]:
    """An activation of the source as a function of its pre-activation.

    onnxruntime runs float32 operator by operator. Half types it computes in float32 over several operators on the CPU;
    the meaning of the operators, each rounded to its type, is that of onnx's reference.
    """
    dtype = np.dtype(row["dtype"])
    model = _between(source.proto, row["input"], row["output"], helper.np_dtype_to_tensor_dtype(dtype))
    if dtype == np.float32:
        session = open_session(
            model,
            f"activation '{row['name']}' of {source.name}",
            import_onnxruntime().GraphOptimizationLevel.ORT_DISABLE_ALL,
            folder=source.folder,
        )
        return lambda x: run_session(session, {row["input"]: x.astype(dtype)})[0]
    evaluator = ReferenceEvaluator(model)

    def run(x: Array) -> Array:
        with np.errstate(all="ignore"):
            (value,) = evaluator.run(None, {row["input"]: x.astype(dtype)})
        return np.asarray(value)

    return run


def _initializers(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Those of the main graph and of bodies."""
    return [tensor for graph in every_graph(model.graph) for tensor in graph.initializer]


def _between(model: onnx.ModelProto, start: str, end: str, element: int) -> onnx.ModelProto:
    """The part of a model from one tensor of that element type to another."""
    needed, nodes = {end}, []
    for node in reversed(list(every_node(model.graph))):
        if not needed.isdisjoint(node.output) and start not in node.output:
            nodes.append(node)
            needed.update(node.input)
    graph = helper.make_graph(
        nodes[::-1],
        "activation",
        [helper.make_tensor_value_info(start, element, None)],
        [helper.make_tensor_value_info(end, element, None)],
        [tensor for tensor in _initializers(model) if tensor.name in needed],
        sparse_initializer=[
            tensor
            for part in every_graph(model.graph)
            for tensor in part.sparse_initializer
            if tensor.values.name in needed
        ],
    )
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def _provenance(source: Network, spiking: Network) -> list[dict[str, Any]]:
    """The converted activations that the spiking network says it has."""
    entries = recorded(spiking.proto)
    try:
        digest = entries["source_sha256"]
        rows = [row for row in parsed(entries["activations"]) if row["status"] == "converted"]
    except (KeyError, TypeError, ValueError) as error:
        raise PconvError(
            f"{spiking.name} was not written by pconv-onnx rewrite", "pass the ANN first and then the spiking network"
        ) from error
    if not all(map(_is_row, rows)):
        raise PconvError(f"the record of {spiking.name} is not as rewrite wrote it", "rewrite the model again")
    if entries.get("mode") == "serial":
        raise PconvError(
            f"{spiking.name} is a serial network: its outputs depend on when spikes arrive and are not its source's",
            "verify what mode 'parallel' gives; accuracy is measured by evaluate with mode 'serial'",
        )
    if digest != source.sha256:
        raise PconvError(f"{spiking.name} was not made from {source.name}", "pass the file that was rewritten")
    with contextlib.suppress(KeyError, ValueError, TypeError):
        calibrated = set(parsed(entries["calibration"])["outputs"])
        # The source has no levels there that a count could be equal to. What a neuron with an offset behind it gives is
        # no tensor of the source at all.
        its_own = source.names - calibrated
        rows = [row | ({} if row["output"] in its_own else {"levels": None}) for row in rows]
    return rows


def _refuse_neurons_without_record(spiking: Network, rows: list[dict[str, Any]]) -> None:
    """Raise where the network has a neuron of which it does not say what it was, so that nothing would compare it.

    Raises:
        PconvError: it has.
    """
    mode = recorded(spiking.proto).get("mode")
    named = {row["node"] for row in rows}
    for node in every_node(spiking.proto.graph):
        if is_layer(node, mode) and node.name not in named:
            raise PconvError(
                f"the record of {spiking.name} does not name the activation of its neuron '{node.name}'",
                "rewrite the model again",
            )


def _is_row(row: dict[str, Any]) -> bool:
    """Whether a record of a converted activation has what is read of it, each of its type."""
    texts = ("name", "node", "input", "output", "dtype")
    return (
        all(isinstance(row.get(key), str) for key in texts)
        and row["dtype"] in _FLOATS
        and isinstance(row.get("steps"), int)
        and isinstance(row.get("levels"), int | None)
    )


def _per_step_outputs(spiking: Network) -> list[str]:
    """Outputs that the spiking network says it has besides its source's."""
    with contextlib.suppress(KeyError, ValueError, TypeError):
        return [str(name) for name in parsed(recorded(spiking.proto)["per_step_outputs"])]
    return []


# Names of the inputs of a session, and types of its outputs by name.
_Ends = tuple[list[str], dict[str, str]]


def _ends(session: Any) -> _Ends:
    return [entry.name for entry in session.get_inputs()], {entry.name: entry.type for entry in session.get_outputs()}


def _check_ends(tapped: _Ends, snn: _Ends, source: Network, spiking: Network) -> None:
    """Refuse networks whose inputs or outputs are not each other's, or are no tensors."""
    outputs = [output.name for output in source.proto.graph.output]
    if snn[0] != tapped[0] or list(snn[1]) != outputs + _per_step_outputs(spiking):
        raise PconvError(f"{spiking.name} has other inputs or outputs than {source.name}", "rewrite that again")
    for name in outputs:
        if not tapped[1][name].startswith("tensor("):
            raise PconvError(f"output '{name}' of {source.name} is {tapped[1][name]}; only tensors can be compared")


def _with_taps(source: Network, rows: list[dict[str, Any]]) -> tuple[onnx.ModelProto, dict[str, str]]:
    """The source with the input of each of these activations as an output, and the name of that by the activation's."""
    model = onnx.ModelProto()
    model.CopyFrom(source.proto)
    used = set(source.names)
    taps: dict[str, str] = {}
    for row in rows:
        element = helper.np_dtype_to_tensor_dtype(np.dtype(row["dtype"]))
        taps[row["name"]] = expose(model.graph, row["input"], element, used)
    return model, taps


def _difference(left: Array, right: Array) -> float:
    """Largest difference between two outputs; values that are the same, NaN and infinities too, differ by nothing."""
    if left.shape != right.shape or left.dtype != right.dtype:
        return math.inf
    if left.dtype.kind not in "fiub":
        return 0.0 if np.array_equal(left, right) else math.inf
    left, right = left.astype(np.float64), right.astype(np.float64)
    same = (left == right) | (np.isnan(left) & np.isnan(right))
    with np.errstate(invalid="ignore"):
        difference = np.where(same, 0.0, np.abs(left - right))
    return float(np.where(np.isnan(difference), np.inf, difference).max(initial=0.0))


def _magnitude(values: Array) -> float:
    """Largest finite float of an output."""
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else np.zeros(0)
    return float(np.abs(finite).max(initial=0.0))


__all__ = ["Comparison", "Layer", "Verification", "verify"]
