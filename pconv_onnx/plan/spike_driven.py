"""Which share of a network's multiply-accumulates reads spikes, and why the others do not."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import onnx

from pconv_onnx.basics.domain import DOMAIN
from pconv_onnx.basics.errors import cut
from pconv_onnx.graph import Network
from pconv_onnx.graph.constants import is_standard
from pconv_onnx.graph.fan_out import fan_out, total
from pconv_onnx.graph.network import Dimension
from pconv_onnx.graph.passes.folding import fold
from pconv_onnx.graph.products import Product, prepared_inputs, products, uncounted
from pconv_onnx.graph.view import Node, Tensor, called, key_of, node_name
from pconv_onnx.graph.windows import Shape
from pconv_onnx.temporal.holding import row_size, spiking
from pconv_onnx.temporal.kinds import STATIC, Current, Kind, Spikes, Static

# Operators that pass values on: a reason that names their output names their input's maker instead.
_MOVES = ("Cast", "DepthToSpace", "Dropout", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape",
          "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze")  # fmt: skip
# What messages call the output of an operator.
_SUMS = ("Add", "Mean", "Sub", "Sum")
_AVERAGES = ("AveragePool", "GlobalAveragePool", "ReduceMean")
# Operators that are no neurons, products, plain sums or scalings: they take values, not spikes.
_ANALOG = ("BiasGelu", "Celu", "Elu", "Erf", "Exp", "FastGelu", "Gelu", "GroupNormalization", "Hardmax",
           "HardSigmoid", "HardSwish", "InstanceNormalization", "LayerNormalization", "Log", "LogSoftmax",
           "LpNormalization", "LRN", "MeanVarianceNormalization", "Mish", "Pow", "QuickGelu",
           "Reciprocal", "ReduceL2", "RMSNormalization", "Selu", "Sigmoid",
           "SimplifiedLayerNormalization", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization",
           "Softmax", "Softplus", "Softsign", "Sqrt", "Swish", "Tanh")  # fmt: skip
# Activations that are no curves are counted too if they stay.
_PIECEWISE = ("Clip", "LeakyRelu", "PRelu", "Relu", "ThresholdedRelu")
# The most positions of a window; no network has more.
_MOST_POSITIONS = 1 << 26


@dataclass(frozen=True)
class SpikeDriven:
    """Multiply-accumulates by what they read.

    Attributes:
        macs: multiply-accumulates of the ANN; None if they cannot be counted.
        on_inputs: those that read the network's inputs and no spikes; None likewise.
        on_spikes: those that have a spike train as an operand; None likewise.
        reasons: for each product that reads neither, by name, why it reads no spikes.
        whole: whether all products other than those that read the network's inputs read spikes, whatever their sizes.
        on_means: how many operators of each type take temporal means instead of spikes: Softmax, normalisations,
            curves, and activations that stay.
    """

    macs: int | None
    on_inputs: int | None
    on_spikes: int | None
    reasons: Mapping[str, str] = field(repr=False)
    whole: bool = False
    on_means: Mapping[str, int] = field(default_factory=dict, repr=False)

    @property
    def share(self) -> float | None:
        """The share on spikes of those that do not read the inputs; None if unknown, or if there are none."""
        if self.whole:
            return 1.0
        if self.macs is None or self.on_inputs is None or self.on_spikes is None or self.macs == self.on_inputs:
            return None
        return self.on_spikes / (self.macs - self.on_inputs)

    def summary(self, samples: int = 1) -> dict[str, Any]:
        """Its part of JSON documents, with operations per sample; `samples` were counted."""
        counted = {"macs": self.macs, "on_inputs": self.on_inputs, "on_spikes": self.on_spikes}
        return {
            **{name: None if number is None else per_sample(number, samples) for name, number in counted.items()},
            "share": self.share,
            "not_on_spikes": list(self.reasons),
            "reasons": dict(self.reasons),
            "on_means": dict(self.on_means),
        }


def spike_driven(
    network: Network,
    kinds: Mapping[str, Kind],
    macs: Mapping[Product, int | None],
    analog: Mapping[str, str],
    replaced: Collection[str] = (),
) -> SpikeDriven:
    """Which products of a network read spikes.

    Args:
        network: a source, or a spiking network.
        kinds: kinds of its tensors in time, by name.
        macs: multiply-accumulates of the ANN for each product; None if unknown.
        analog: names of the activations that stay, by their output.
        replaced: keys (`key_of`) of the nodes that neurons replace.
    """
    inputs, not_counted = prepared_inputs(network), uncounted(network)
    on_inputs: list[int | None] = []
    on_spikes: list[int | None] = []
    reasons = {}
    for product, count in macs.items():
        if reads_spikes(product, kinds) and runs_in_time(product, kinds):
            on_spikes.append(count)
        elif reads_inputs(product, inputs):
            on_inputs.append(count)
        else:
            # Nodes may share a name.
            name, (output, *_) = network.name_of(product.node), product.node.outputs
            reasons[f"{name}:{output.name}" if name in reasons else name] = _reason(network, product, kinds, analog)
    reasons |= {network.name_of(product.node): f"{called(product.node)} is not counted" for product in not_counted}
    on_means = _on_means(network, replaced, analog)
    # A product whose sizes are open may be empty.
    whole = bool(on_spikes) and not reasons and any(count != 0 for count in on_spikes)
    if not_counted or None in macs.values():
        return SpikeDriven(None, None, None, reasons, whole, on_means)
    every, inputs_alone, spikes = (sum(filter(None, counts)) for counts in (macs.values(), on_inputs, on_spikes))
    return SpikeDriven(every, inputs_alone, spikes, reasons, whole, on_means)


def _on_means(network: Network, replaced: Collection[str], analog: Collection[str]) -> dict[str, int]:
    counted = Counter(
        node.op
        for node in network.nodes
        if (node.op in _ANALOG or (node.op in _PIECEWISE and any(tensor.name in analog for tensor in node.outputs)))
        and node.inputs[0].name in network.computed_from_inputs
        and key_of(node) not in replaced
        # Of a scalar are sizes.
        and network.shape(node.inputs[0]) != ()
    )
    return dict(sorted(counted.items(), key=lambda entry: (-entry[1], entry[0])))


def macs_of(network: Network) -> dict[Product, int | None]:
    """The multiply-accumulates of each product in one run, as far as shapes are known.

    A first dimension of unknown size counts as one sample.
    """
    found = products(network)
    batches = {shape[0] for info in network.proto.graph.input if (shape := network.shapes.get(info.name))}
    read = {tensor.name: network.shape(tensor) for product in found for tensor in product.node.inputs[:2]}
    if any(shape and not isinstance(shape[0], int) and shape[0] not in batches - {None} for shape in read.values()):
        # Some tensors count rows differently: samples times heads, or windows.
        inferred = _of_one_sample(network).shapes
        read = {name: inferred.get(name, shape) for name, shape in read.items()}
    shapes = {name: _known(shape) for name, shape in read.items()}
    return {product: _macs(product, shapes) for product in found}


def per_sample(value: int, samples: int) -> int | float:
    """The number for one sample."""
    return value / samples if value % samples else value // samples


def off_spikes(network: Network, kinds: Mapping[str, Kind]) -> list[Product]:
    """The products that would read spikes with a neuron in front of them, in topological order.

    They read neither spikes nor the network's inputs.

    Args:
        network: a source, or a spiking network.
        kinds: kinds of its tensors in time, by name.
    """
    inputs = prepared_inputs(network)
    return [
        product
        for product in products(network)
        if product.operands and not reads_spikes(product, kinds) and not reads_inputs(product, inputs)
    ]


def reads_spikes(product: Product, kinds: Mapping[str, Kind]) -> bool:
    """Whether one of its operands is a spike train."""
    return any(isinstance(kinds.get(name), Spikes) for name in product.reads)


def reads_inputs(product: Product, inputs: set[str]) -> bool:
    """Whether one of its operands is among the network's inputs, as `prepared_inputs` gives them."""
    return not inputs.isdisjoint(product.reads)


def runs_in_time(product: Product, kinds: Mapping[str, Kind]) -> bool:
    """Whether a product runs at each time-step, and not on temporal means."""
    return any(tensor.name in kinds for tensor in product.node.outputs)


def operand_in_time(network: Network, product: Product, kinds: Mapping[str, Kind]) -> int:
    """The input by which a product is counted: preferably a train, else a current, else one without a time axis."""
    found = {index: kinds.get(product.node.inputs[index].name, STATIC) for index in product.operands or (0,)}
    trains = spiking(found, {index: row_size(network.shape(product.node.inputs[index])) for index in found})
    return trains[0] if trains else min(found, key=lambda index: isinstance(found[index], Static))


def _of_one_sample(network: Network) -> Network:
    """The network with one row in each input whose number of rows is open."""
    model = onnx.ModelProto()
    model.CopyFrom(network.proto)
    del model.graph.value_info[:]
    for info in model.graph.input:
        dims = info.type.tensor_type.shape.dim
        if dims and not dims[0].HasField("dim_value"):
            dims[0].dim_value = 1
    for info in model.graph.output:
        info.type.tensor_type.ClearField("shape")
    return fold(replace(network, proto=model, hints={}))


def _known(shape: Sequence[Dimension] | None) -> Shape | None:
    """A shape in numbers, with one row if their number is open; None if other sizes are open."""
    if shape is None:
        return None
    sizes = [1 if axis == 0 and not isinstance(size, int) else size for axis, size in enumerate(shape)]
    known = tuple(size for size in sizes if isinstance(size, int))
    return known if len(known) == len(shape) and math.prod(known[2:]) <= _MOST_POSITIONS else None


def _macs(product: Product, shapes: Mapping[str, Shape | None]) -> int | None:
    left, right = (shapes[tensor.name] for tensor in product.node.inputs[:2])
    if left is None or right is None:
        return None
    index = product.operands[0] if product.operands else 0
    try:
        return total(fan_out(product.node, index, (left, right)), (left, right)[index])
    except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError):  # a runtime would refuse it too
        return None


def _reason(network: Network, product: Product, kinds: Mapping[str, Kind], analog: Mapping[str, str]) -> str:
    """Why a product reads no spikes."""
    tensor = product.node.inputs[operand_in_time(network, product, kinds)]
    maker = _maker(tensor, kinds)
    if maker is None:
        return "nothing but its kernel is computed"
    if _is_train(tensor, kinds) or (maker.domain == DOMAIN and _is_train(maker.inputs[0], kinds)):
        return "it has no form in time, and runs on temporal means"
    if any(isinstance(kinds.get(output.name), Current) for output in maker.outputs):
        return f"it reads a current, {_result(maker)}"
    stays = next((analog[output.name] for output in maker.outputs if output.name in analog), None)
    given = called(maker) if stays is None else f"activation '{cut(stays)}'"
    return f"it reads what {given} gives, which is analog"


def _result(node: Node) -> str:
    for what, operators in (("sum", _SUMS), ("average", _AVERAGES)):
        if node.op in operators:
            return f"the {what} '{cut(node_name(node))}'"
    return f"what {called(node)} gives"


def _maker(tensor: Tensor, kinds: Mapping[str, Kind]) -> Node | None:
    """The operator that makes a tensor, before those that pass it on; None for a constant.

    An operator that is given spikes and passes none on counts as the maker of its output.
    """
    maker = None
    while len(tensor.inputs) == 1:
        (maker,) = tensor.inputs
        moves = maker.op in _MOVES if is_standard(maker) else maker.domain == DOMAIN
        if not moves or _is_train(maker.inputs[0], kinds):
            break
        tensor = maker.inputs[0]
    return maker


def _is_train(tensor: Tensor, kinds: Mapping[str, Kind]) -> bool:
    return isinstance(kinds.get(tensor.name), Spikes)
