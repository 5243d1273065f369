"""Graphs of the Neuromorphic Intermediate Representation as serial networks, which a `SerialSession` steps."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pconv_onnx.answers.lines import nir_lines
from pconv_onnx.answers.printing import Part, Printed
from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.choices import MAX_STEPS
from pconv_onnx.basics.domain import DOMAIN
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.basics.foreign_errors import reason_of
from pconv_onnx.deployment.nir.target import nir_package
from pconv_onnx.graph import save
from pconv_onnx.graph.nesting import unused
from pconv_onnx.graph.record import Record
from pconv_onnx.graph.windows import windows
from pconv_onnx.operators.domain import SERIAL_OP_TYPE
from pconv_onnx.operators.serial_spike import serial_spike
from pconv_onnx.plan.modes import SERIAL

_OPSET, _IR_VERSION = 20, 10
_BATCH = "N"


@dataclass(frozen=True, eq=False)
class NirReading(Printed):
    """What `from_nir` did.

    Attributes:
        model: the serial network.
        steps: T, which a `SerialSession` takes by default.
        neurons: layers of neurons, by the names of their nodes, with the names of their types in NIR.
        losses: what of the graph the network does not have, or has in one of several ways: a sentence each.
    """

    model: onnx.ModelProto = field(repr=False)
    steps: int
    neurons: Mapping[str, str]
    losses: Sequence[str]

    def summary(self) -> dict[str, Any]:
        """The JSON document of `pconv-onnx rewrite` of such a file."""
        rows = [
            {"name": name, "op_types": [kind], "encoding": "nir", "levels": None, "steps": self.steps,
             "status": "converted", "reason": None}
            for name, kind in self.neurons.items()
        ]  # fmt: skip
        counts = {"converted": len(rows), "needs_calibration": 0, "refused": 0}
        return {
            "mode": SERIAL.name,
            "steps": self.steps,
            "activations": rows,
            "counts": counts,
            "losses": [*self.losses],
        }

    def _answer(self, document: dict[str, Any]) -> Iterator[Part]:
        return nir_lines(document)


def from_nir(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    steps: int | None = None,
    dt: float | None = None,
) -> NirReading:
    """Read a NIR graph into a serial network, as ONNX for a `SerialSession`.

    Potentials and synaptic currents are stepped by Euler's method, as snnTorch does: of `tau v' = v_leak - v + r i`
    one step is `v = (1 - dt/tau) v + (r dt/tau) i + (dt/tau) v_leak`, and a synapse is stepped before its membrane. A
    neuron fires where its potential is above the threshold, and its potential is then `v_reset`. Where the metadata of
    a node say so, as this package writes them, neurons begin at `v_initial`, fire at the threshold as well, and
    subtract it.

    Args:
        source: path of a `.nir` file.
        output: where to write the network; None only returns it.
        steps: T; by default what the metadata of the graph say.
        dt: length of a time-step, in the unit of the time constants; 1 by default of graphs without any.

    Raises:
        PconvError: the package nir is missing, the file is no NIR graph, a node has no counterpart, T or `dt` is not
            known, or the file cannot be written.
    """
    nir, path = nir_package(), Path(source)
    try:
        graph, digest = nir.read(path), hashlib.sha256(path.read_bytes()).hexdigest()
    except Exception as error:  # of h5py and of nir, which have no common base
        raise PconvError(f"'{path}' cannot be read as NIR: {reason_of(error)}", "") from error
    found = graph.metadata.get("steps") if steps is None else steps
    if not isinstance(found, int | np.integer) or not 1 <= found <= MAX_STEPS:
        raise PconvError(f"'{path}' does not say for how many time-steps it is", f"pass `steps=`, 1 to {MAX_STEPS}")
    if dt is not None and not (np.isfinite(dt) and dt > 0):
        raise PconvError(f"{dt} is no length of a time-step", "pass `dt=` above 0")
    reading = _Reading(nir, graph, dt)
    model = reading.model()
    Record(digest, SERIAL.name, int(found), [], potentials=reading.potentials, kinds={}).write(model)
    if output is not None:
        save(model, output)
    return NirReading(model, int(found), reading.neurons, reading.losses)


class _Reading:
    """The nodes written so far."""

    def __init__(self, nir: Any, graph: Any, dt: float | None) -> None:
        self.nir, self.graph = nir, graph
        timed = any(hasattr(node, "tau") or hasattr(node, "tau_mem") for node in graph.nodes.values())
        if timed and dt is None:
            raise PconvError(
                "the graph has time constants, and NIR does not say how long a time-step is",
                "pass `dt=`; snnTorch takes 0.0001",
            )
        self.dt = np.float32(1 if dt is None else dt)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.states: list[tuple[onnx.ValueInfoProto, onnx.ValueInfoProto]] = []
        self.neurons: dict[str, str] = {}
        self.losses: list[str] = []
        self.tensors: dict[str, str] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.used: set[str] = set(graph.nodes)
        if timed:
            self.losses.append(f"continuous time: each step is one of Euler's method, dt = {self.dt:g}")

    @property
    def potentials(self) -> dict[str, str]:
        """By input the output that the next step takes."""
        return {before.name: after.name for before, after in self.states}

    def model(self) -> onnx.ModelProto:
        """The network of one time-step."""
        for name in self._ordered():
            node = self.graph.nodes[name]
            kind = type(node).__name__
            rule = _RULES.get(kind)
            if rule is None:
                raise PconvError(
                    f"'{name}' is a {kind}, which has no counterpart here",
                    f"what is read: {', '.join(_RULES)}",
                )
            try:
                rule(self, name, node)
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
                # The package nir takes parameters of any shape and type; rules take them as NIR defines them.
                kind = type(node).__name__
                raise PconvError(
                    f"'{name}' has parameters that no {kind} has: {reason_of(error)}", "correct it"
                ) from error
        if not self.states:
            raise PconvError("the graph has no neurons that are read", f"what is read: {', '.join(_RULES)}")
        before, after = ([pair[index] for pair in self.states] for index in (0, 1))
        inputs, outputs = [*self.inputs, *before], [*self.outputs, *after]
        ends = {info.name for info in (*inputs, *outputs)}
        between = [
            helper.make_tensor_value_info(tensor, TensorProto.FLOAT, [_BATCH, *self.shapes[name]])
            for name, tensor in self.tensors.items()
            if tensor not in ends
        ]
        proto = helper.make_graph(self.nodes, "nir", inputs, outputs, self.constants, value_info=between)
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(DOMAIN, 1)]
        functions = [serial_spike(_OPSET, np.dtype(np.float32))]
        model = helper.make_model(proto, opset_imports=opsets, functions=functions, ir_version=_IR_VERSION)
        onnx.checker.check_model(model)
        return model

    def _ordered(self) -> list[str]:
        """The nodes, each behind those that it reads."""
        self.sources: dict[str, list[str]] = {name: [] for name in self.graph.nodes}
        for source, target in self.graph.edges:
            if source not in self.sources or target not in self.sources:
                raise PconvError(f"an edge goes from '{source}' to '{target}', which are not both there", "")
            self.sources[target].append(source)
        found: list[str] = []
        waiting = dict(self.sources)
        while waiting:
            ready = [name for name, sources in waiting.items() if not set(sources) & waiting.keys()]
            if not ready:
                raise PconvError(f"'{next(iter(waiting))}' is part of a loop; networks are read without loops", "")
            found += ready
            waiting = {name: sources for name, sources in waiting.items() if name not in ready}
        return found

    # What is written

    def node(self, op_type: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Write a node; the name that its output gets."""
        output = unused(output, self.used)
        self.nodes.append(helper.make_node(op_type, inputs, [output], unused(output, self.used), **attributes))
        return output

    def constant(self, name: str, values: Any) -> str:
        """Write a constant in float32; the name that it has."""
        name = unused(name, self.used)
        self.constants.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
        return name

    def read(self, name: str) -> str:
        """What a node reads: the sum of all edges into it.

        Raises:
            PconvError: it has none, or they differ in shape.
        """
        sources = self.sources[name]
        if not sources:
            raise PconvError(f"nothing leads to '{name}'", "connect it, or leave it out")
        shapes = {self.shapes[source] for source in sources}
        if len(shapes) > 1:
            raise PconvError(f"what leads to '{name}' differs in shape: {sorted(shapes)}", "NIR sums equal shapes")
        total = self.tensors[sources[0]]
        for source in sources[1:]:
            total = self.node("Add", [total, self.tensors[source]], f"{name}/sum")
        self.shapes[name] = shapes.pop()
        return total

    def give(self, name: str, tensor: str, shape: Sequence[int]) -> None:
        """A node has been written."""
        self.tensors[name], self.shapes[name] = tensor, tuple(int(size) for size in shape)

    def state(self, name: str, shape: Sequence[int]) -> str:
        """What is kept from step to step; the name before the step, whose new value `keep` takes."""
        before, after = (
            helper.make_tensor_value_info(unused(f"{name}{end}", self.used), TensorProto.FLOAT, [_BATCH, *shape])
            for end in ("", "/next")
        )
        self.states.append((before, after))
        return str(before.name)

    def keep(self, value: str) -> None:
        """The new value of the last state."""
        self.nodes.append(helper.make_node("Identity", [value], [self.states[-1][1].name]))

    # Nodes

    def input(self, name: str, node: Any) -> None:
        """Of the network."""
        (shape,) = node.input_type.values()
        sizes = [int(size) for size in shape]
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [_BATCH, *sizes]))
        self.give(name, name, sizes)

    def output(self, name: str, node: Any) -> None:
        """Of the network."""
        given = self.read(name)
        self.nodes.append(helper.make_node("Identity", [given], [name]))
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [_BATCH, *self.shapes[name]]))

    def matrix(self, name: str, node: Any) -> None:
        """Linear, Affine."""
        given, weight = self.read(name), node.weight
        shape = self.shapes[name]
        if weight.ndim != 2 or not shape or weight.shape[1] != shape[-1]:
            raise PconvError(f"'{name}' has weights of shape {list(weight.shape)} for {list(shape)}", "correct it")
        bias = self._bias(name, getattr(node, "bias", None), len(weight))
        if len(shape) == 1:
            tables = [self.constant(f"{name}/weight", weight), *bias]
            made = self.node("Gemm", [given, *tables], f"{name}/value", transB=1)
        else:
            made = self.node("MatMul", [given, self.constant(f"{name}/weight", weight.T)], f"{name}/product")
            made = self.node("Add", [made, *bias], f"{name}/value") if bias else made
        self.give(name, made, (*shape[:-1], len(weight)))

    def _bias(self, name: str, bias: Any, outputs: int) -> list[str]:
        """What is added to each output, if anything is."""
        if bias is None:
            return []
        if np.shape(bias) != (outputs,):
            raise PconvError(f"'{name}' has a bias of shape {list(np.shape(bias))} for {outputs} outputs", "correct it")
        return [self.constant(f"{name}/bias", bias)]

    def scale(self, name: str, node: Any) -> None:
        """Elementwise factors."""
        given = self.read(name)
        if np.broadcast_shapes(np.shape(node.scale), self.shapes[name]) != self.shapes[name]:
            raise PconvError(f"'{name}' scales {list(self.shapes[name])} by {list(np.shape(node.scale))}", "correct it")
        made = self.node("Mul", [given, self.constant(f"{name}/scale", node.scale)], f"{name}/value")
        self.give(name, made, self.shapes[name])

    def convolution(self, name: str, node: Any) -> None:
        """Conv1d, Conv2d."""
        weight, groups = node.weight, int(node.groups)
        given, channels = self._images(name, weight.ndim - 2)
        if groups < 1 or len(weight) % groups or channels != weight.shape[1] * groups:
            told = f"weights of shape {list(weight.shape)} in {groups} groups for {channels} channels"
            raise PconvError(f"'{name}' has {told}", "correct it")
        stride, dilation = (_pair(getattr(node, key), weight.ndim - 2) for key in ("stride", "dilation"))
        inputs = [given, self.constant(f"{name}/weight", weight), *self._bias(name, node.bias, len(weight))]
        self._window(name, "Conv", inputs, weight.shape[2:], len(weight), node.padding, stride, dilation, groups)

    def sum_pool(self, name: str, node: Any) -> None:
        """Sums in windows: a convolution of ones, whose sums of spikes are exact."""
        self._pool(name, node, "Conv")

    def average_pool(self, name: str, node: Any) -> None:
        """Means in windows, of the padding as well."""
        self._pool(name, node, "AveragePool")

    def _pool(self, name: str, node: Any, op_type: str) -> None:
        kernel, stride, padding = (_pair(getattr(node, key), 2) for key in ("kernel_size", "stride", "padding"))
        given, channels = self._images(name, len(kernel))
        ones = [self.constant(f"{name}/ones", np.ones((channels, 1, *kernel)))] if op_type == "Conv" else []
        self._window(name, op_type, [given, *ones], kernel, channels, padding, stride, [1, 1], channels)

    def _images(self, name: str, axes: int) -> tuple[str, int]:
        """What windows along so many axes look at, and its channels."""
        given, shape = self.read(name), self.shapes[name]
        if len(shape) != axes + 1:
            raise PconvError(f"'{name}' has {axes} axes of windows for {list(shape)}", "correct it")
        return given, shape[0]

    def _window(
        self, name: str, op_type: str, inputs: list[str], kernel: Sequence[int], channels: int, padding: Any,
        stride: list[int], dilation: list[int], groups: int,
    ) -> None:  # fmt: skip
        shape = self.shapes[name]
        reach = [size_of * (taps - 1) for size_of, taps in zip(dilation, kernel, strict=True)]
        if isinstance(padding, str):
            same = padding == "same"
            before = [same * (size // 2) for size in reach]
            after = [same * size - start for size, start in zip(reach, before, strict=True)]
        else:
            before = after = _pair(padding, len(kernel))
        attributes: dict[str, Any] = {"strides": stride, "pads": [*before, *after], "kernel_shape": [*kernel]}
        if op_type == "Conv":
            attributes |= {"dilations": dilation, "group": groups}
        else:
            attributes["count_include_pad"] = 1
        sizes = [window.count for window in windows({**attributes, "dilations": dilation}, shape[1:], kernel)]
        if min(sizes) < 1:
            raise PconvError(f"the window of '{name}' is larger than {list(shape)}", "correct it")
        self.give(name, self.node(op_type, inputs, f"{name}/value", **attributes), (channels, *sizes))

    def flatten(self, name: str, node: Any) -> None:
        """All axes as one, where what follows reads so many; else as the package nir has it."""
        given, shape = self.read(name), self.shapes[name]
        all_of_it = (int(np.prod(shape)),)
        readers = [self.graph.nodes[target] for source, target in self.graph.edges if source == name]
        wanted = {getattr(reader, "weight", np.empty((0, 0))).shape[-1] for reader in readers}
        sizes = all_of_it if wanted == set(all_of_it) else tuple(map(int, *node.output_type.values()))
        if np.prod(sizes) != all_of_it[0]:
            raise PconvError(f"'{name}' makes {list(sizes)} of {list(shape)}", "correct it")
        if sizes == all_of_it:
            made = self.node("Flatten", [given], f"{name}/value", axis=1)
        else:
            target = unused(f"{name}/shape", self.used)
            self.constants.append(numpy_helper.from_array(np.array([0, *sizes], np.int64), target))
            made = self.node("Reshape", [given, target], f"{name}/value")
        self.give(name, made, sizes)

    # Neurons

    def integrate_and_fire(self, name: str, node: Any) -> None:
        """IF: `v = v + (r dt) i`."""
        if self._as_serial_spike(name, node):
            return
        given = self.read(name)
        potential = self.state(f"{name}/potential", self.shapes[name])
        self._fire(name, node, self._plus(name, potential, self._times(name, given, "gain", node.r * self.dt)))

    def leaky(self, name: str, node: Any) -> None:
        """LIF: `v = (1 - dt/tau) v + (r dt/tau) i + (dt/tau) v_leak`."""
        given, share = self.read(name), self.dt / node.tau
        potential = self.state(f"{name}/potential", self.shapes[name])
        kept = self._kept(name, node, potential, share)
        self._fire(name, node, self._plus(name, kept, self._times(name, given, "gain", node.r * share)))

    def current_based(self, name: str, node: Any) -> None:
        """CubaLIF: the synaptic current `i = (1 - dt/tau_syn) i + (w_in dt/tau_syn) s`, then as a LIF."""
        given, of_synapse, share = self.read(name), self.dt / node.tau_syn, self.dt / node.tau_mem
        current = self.state(f"{name}/current", self.shapes[name])
        decayed = self._times(name, current, "current_decay", 1 - of_synapse)
        new = self._plus(name, decayed, self._times(name, given, "weight", node.w_in * of_synapse))
        self.keep(new)
        potential = self.state(f"{name}/potential", self.shapes[name])
        kept = self._kept(name, node, potential, share)
        self._fire(name, node, self._plus(name, kept, self._times(name, new, "gain", node.r * share)))

    def _as_serial_spike(self, name: str, node: Any) -> bool:
        """Write neurons that subtract their threshold, one kind a channel, as our own operator; whether they are so."""
        metadata, shape = node.metadata, node.v_threshold.shape
        initial = np.asarray(metadata.get("v_initial", np.zeros(shape, np.float32)))
        if metadata.get("reset") != "subtract" or not _fires_at(metadata) or not (node.r * self.dt == 1).all():
            return False
        rows = [table.reshape(shape[0], -1) for table in (node.v_threshold, initial)]
        if initial.shape != shape or any((table != table[:, :1]).any() for table in rows):
            return False
        reset, start = (table[:, 0].astype(np.float32) for table in rows)
        given = self.read(name)
        self._require_neurons(name, node)
        potential = self.state(f"{name}/potential", shape)
        # The potential is counted from where it begins.
        levels = np.stack([np.zeros_like(reset), np.ones_like(reset)], axis=1)
        tables = {"bias": np.zeros_like(reset), "threshold": reset - start, "reset": reset, "levels": levels}
        constants = [self.constant(f"{name}/{key}", table) for key, table in tables.items()]
        spikes = unused(f"{name}/spikes", self.used)
        outputs = [spikes, self.states[-1][1].name]
        self.nodes.append(
            helper.make_node(
                SERIAL_OP_TYPE, [given, potential, *constants], outputs, name, domain=DOMAIN, channel_axis=1
            )
        )
        self.neurons[name] = type(node).__name__
        self.give(name, spikes, shape)
        return True

    def _kept(self, name: str, node: Any, potential: str, share: Array) -> str:
        """What is left of a potential, with the leak."""
        kept = self._times(name, potential, "decay", 1 - share)
        if not node.v_leak.any():
            return kept
        return self.node("Add", [kept, self.constant(f"{name}/leak", node.v_leak * share)], f"{name}/leaked")

    def _times(self, name: str, value: str, what: str, factor: Any) -> str:
        if (np.asarray(factor) == 1).all():
            return value
        return self.node("Mul", [value, self.constant(f"{name}/{what}", factor)], f"{name}/{what}_of")

    def _plus(self, name: str, kept: str, driving: str) -> str:
        """The sum of two; onnxruntime would put an Add into the convolution before it, and round otherwise."""
        return self.node("Sub", [kept, self.node("Neg", [driving], f"{name}/negative")], f"{name}/charge")

    def _require_neurons(self, name: str, node: Any) -> None:
        """There is one for each value that is read."""
        neurons, shape = list(node.v_threshold.shape), list(self.shapes[name])
        if neurons != shape:
            raise PconvError(f"'{name}' has neurons of shape {neurons} for {shape}", "correct it")

    def _fire(self, name: str, node: Any, charge: str) -> None:
        """Spikes where the last state, charged, is above the threshold, and what is left of it."""
        metadata, shape = node.metadata, self.shapes[name]
        self._require_neurons(name, node)
        initial = np.asarray(metadata.get("v_initial", np.zeros(shape)))
        if initial.any():
            raise PconvError(
                f"'{name}' begins at a charge, and is no IF that subtracts one threshold a channel",
                "that is read of what pconv-onnx writes alone",
            )
        threshold = self.constant(f"{name}/threshold", node.v_threshold)
        above = "GreaterOrEqual" if _fires_at(metadata) else "Greater"
        fires = self.node(above, [charge, threshold], f"{name}/fires")
        spikes = self.node("Cast", [fires], f"{name}/spikes", to=TensorProto.FLOAT)
        if metadata.get("reset") == "subtract":
            spent = self.node("Sub", [charge, threshold], f"{name}/spent")
        else:
            spent = self.constant(f"{name}/reset", node.v_reset)
        self.keep(self.node("Where", [fires, spent, charge], f"{name}/left"))
        self.neurons[name] = type(node).__name__
        self.give(name, spikes, shape)


def _fires_at(metadata: Mapping[str, Any]) -> bool:
    """Whether neurons fire at their threshold too; what earlier versions wrote does, and does not say so."""
    return metadata.get("fires", "at threshold" if metadata.get("reset") == "subtract" else "above") == "at threshold"


def _pair(value: Any, count: int) -> list[int]:
    """A number for each axis."""
    return [int(number) for number in np.broadcast_to(np.asarray(value).reshape(-1), (count,))]


_RULES = {
    "Input": _Reading.input,
    "Output": _Reading.output,
    "Linear": _Reading.matrix,
    "Affine": _Reading.matrix,
    "Scale": _Reading.scale,
    "Conv1d": _Reading.convolution,
    "Conv2d": _Reading.convolution,
    "SumPool2d": _Reading.sum_pool,
    "AvgPool2d": _Reading.average_pool,
    "Flatten": _Reading.flatten,
    "IF": _Reading.integrate_and_fire,
    "LIF": _Reading.leaky,
    "CubaLIF": _Reading.current_based,
}
