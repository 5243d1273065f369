"""From a plan to the integer form of its network: weights rounded, scales in thresholds and levels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import onnx

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.choices import WEIGHTS, WeightsName
from pconv_onnx.basics.errors import PconvError, cut
from pconv_onnx.calibration.calibrating import RANDOM
from pconv_onnx.data.reading import open_samples, random_samples
from pconv_onnx.data.samples import BatchAxis, Data, DataSource
from pconv_onnx.graph.carriers import in_carriers
from pconv_onnx.graph.network import Network
from pconv_onnx.graph.view import node_name
from pconv_onnx.integer.fitting import Rounded, fitted
from pconv_onnx.integer.inputs import codes_of_inputs
from pconv_onnx.integer.proof.proving import Proof, prove
from pconv_onnx.integer.reading import InputCodes, Reading, read
from pconv_onnx.integer.scales import rounded
from pconv_onnx.integer.units import Layer
from pconv_onnx.integer.writing import written
from pconv_onnx.plan.plan import Plan
from pconv_onnx.runtime.side_by_side import open_session


@dataclass(frozen=True, eq=False)
class IntegerForm:
    """A network with integer weights.

    Attributes:
        network: the quantised network.
        weights: `int8` or `int4`.
        input_bits: bits of the inputs' codes; None if inputs are floats.
        inputs: codes of the inputs that are quantised.
        reading: which tensors of the network are integers.
        rounding: the rounded weights of each layer, by `id`, and its bias in values.
        samples: the number of samples on which weights were rounded; None if each is the nearest integer.
        grains: possible grains of biases, the finest first: biases are multiples of the grain.
        grain: the grain that is used.
        proof: the proof for the spiking network made from it.
    """

    network: Network
    weights: WeightsName
    input_bits: int | None
    inputs: Sequence[InputCodes]
    reading: Reading = field(repr=False)
    rounding: Rounded = field(repr=False)
    samples: int | None
    grains: Sequence[int]
    grain: int = 1
    proof: Proof | None = None

    @cached_property
    def _written(self) -> tuple[onnx.ModelProto, set[str]]:
        def rounded_layer(layer: Layer) -> tuple[Array, Array]:
            weights, bias = self.rounding[id(layer)]
            return weights, np.rint(bias / (layer.accumulator.root.unit * self.grain)) * self.grain

        return written(self.network, self.reading, rounded_layer)

    @property
    def model(self) -> onnx.ModelProto:
        """The network in standard operators."""
        return self._written[0]

    @property
    def no_activations(self) -> set[str]:
        """First outputs of nodes that round but are no activations."""
        return self._written[1]

    def by_grain(self) -> Iterator[IntegerForm]:
        """The form with each grain; coarser biases leave more room for sums over weighted spikes."""
        return (replace(self, grain=grain) for grain in self.grains)

    @property
    def is_coarsest(self) -> bool:
        """Whether no grain is coarser."""
        return self.grain == self.grains[-1]

    def proved(self, model: onnx.ModelProto) -> IntegerForm:
        """The form with the proof for the spiking network that was made from it."""
        spiking, _ = in_carriers(replace(self.network, proto=model, hints={}))
        return replace(self, proof=prove(spiking))

    @property
    def overflows(self) -> bool:
        """Whether a sum may exceed the integers that floats hold exactly."""
        return self.proof is not None and bool(self.proof.overflowing)

    def require_exact(self) -> None:
        """Raise if a sum may exceed the integers that floats hold exactly.

        Raises:
            PconvError: one may; the text says which, and how large it may get.
        """
        if self.proof is not None and self.proof.overflowing:
            worst = max(self.proof.overflowing, key=lambda bound: bound.share)
            more = f", as {len(self.proof.overflowing) - 1} more may" if len(self.proof.overflowing) > 1 else ""
            raise PconvError(
                f"sums of {worst.op_type} '{cut(worst.name)}' may reach {worst.largest:,.0f}, and its type holds "
                f"integers below {worst.limit:,} exactly{more}",
                "give products neurons, so that no layer reads another's sums: `neurons='products'`, with "
                "`calibration=`; or choose fewer `steps=` or `weights='int4'`",
            )

    def record(self) -> dict[str, Any]:
        """Its entry in the record of the spiking network."""
        return {"weights": self.weights, "input_bits": self.input_bits, "islands": self._islands()}

    def _islands(self) -> dict[str, str]:
        """Why operators compute on floats, by name."""
        found = dict(self.proof.islands) if self.proof is not None else dict(self.reading.stays)
        return {name: self.reading.stays.get(name, reason) for name, reason in found.items()}

    def summary(self) -> dict[str, Any]:
        """Its part of the JSON document of `pconv-onnx rewrite`."""
        proof = self.proof
        worst = proof.worst if proof is not None else None
        return {
            "weights": self.weights,
            "input_bits": self.input_bits,
            "inputs": [
                {"name": one.name, "step": one.step, "lowest": one.lowest, "highest": one.highest}
                for one in self.inputs
            ],
            "layers": [_row(step) for step in self.reading.steps if isinstance(step, Layer)],
            "samples": self.samples,
            "exact": None if proof is None else proof.exact,
            "largest_sum": None if worst is None else worst.share,
            "islands": self._islands(),
        }


def integer_form(
    plan: Plan,
    weights: WeightsName,
    input_bits: int | None = None,
    input_range: tuple[float, float] | None = None,
    calibration: DataSource | None = None,
    batch_axis: BatchAxis = 0,
) -> IntegerForm:
    """Round the weights of a plan's network to integers.

    Args:
        plan: the plan of the quantised network.
        weights: `int8` or `int4`.
        input_bits: bits of the inputs' codes; None leaves the inputs floats.
        input_range: lowest and highest value of the inputs.
        calibration: data on which weights are rounded, and which give the range of inputs if `input_range` does not.
        batch_axis: the axis of the model's inputs that counts samples.

    Raises:
        PconvError: no layer can have integer weights, the range is wrong or unknown, or the data do not fit.
    """
    network, bits = plan.network, BITS[weights]
    if plan.source_dtype not in (np.float32, np.float64):
        raise PconvError(
            f"{network.name} computes in {plan.source_dtype}, whose sums of integers are not exact",
            "pass the network in float32",
        )
    data = None if calibration is None else _data(network, calibration, batch_axis)
    inputs = [] if input_bits is None else codes_of_inputs(network, input_bits, input_range, data)
    reading = read(plan, inputs, bits)
    layers = [step for step in reading.steps if isinstance(step, Layer)]
    if not layers:
        told = "; ".join(f"'{name}': {reason}" for name, reason in list(reading.stays.items())[:3])
        raise PconvError(
            f"no layer of {network.name} can have integer weights: {told or 'none reads a neuron'}",
            "docs/integers.md says which layers can",
        )
    rounding: Rounded = {id(layer): (nearest(layer, bits), layer.bias) for layer in layers}
    if data is not None:
        rounding = fitted(plan, reading, rounding, data, bits)
    samples, grains = None if data is None else len(data), sorted({1, grain_of(plan)})
    return IntegerForm(network, weights, input_bits, inputs, reading, rounding, samples, grains)


def _data(network: Network, calibration: DataSource, batch_axis: BatchAxis) -> Data:
    runner = open_session(network.proto, network.name, folder=network.folder)
    if isinstance(calibration, str) and calibration == RANDOM:
        return random_samples(runner, batch_axis=batch_axis)
    return open_samples(calibration, runner, batch_axis)


def nearest(layer: Layer, bits: int) -> Array:
    """The weights of a layer `[C, n]`, each as the nearest integer multiple of its scale."""
    return rounded(layer.in_units, layer.scale, bits) * layer.factor.reshape(-1, 1)


# Bits of a weight, by name.
BITS: Mapping[str, int] = {name: int(name.removeprefix("int")) for name in WEIGHTS}


def grain_of(plan: Plan) -> int:
    """The largest power of two that divides the T of all weighted trains, whose spikes are multiples of it."""
    steps = [neuron.coding.steps for neuron in plan.neurons.values() if neuron.coding.weighted]
    common = math.gcd(*steps) if steps else 1
    return common & -common


def _row(layer: Layer) -> dict[str, Any]:
    return {
        "name": node_name(layer.node),
        "op_type": layer.node.op,
        "scale": [float(layer.scale.min()), float(layer.scale.max())],
        "factor": [int(layer.factor.min()), int(layer.factor.max())],
    }
