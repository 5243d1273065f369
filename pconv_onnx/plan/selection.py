"""Which activations become neurons: those that the user selects, and only those of one type."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import replace
from fnmatch import fnmatchcase

from pconv_onnx.basics.domain import DOMAIN
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.graph import Network
from pconv_onnx.graph.nesting import every_node
from pconv_onnx.graph.view import Tensor
from pconv_onnx.operators.domain import is_integer, is_neuron
from pconv_onnx.plan.modes import Mode
from pconv_onnx.plan.plan import Planned, is_signed
from pconv_onnx.plan.wanted import Wanted
from pconv_onnx.recognise import Activation
from pconv_onnx.recognise.chain import data_input


def chosen(
    activation: Activation,
    wanted: Wanted,
    mode: Mode,
    include: Sequence[str],
    exclude: Sequence[str],
    why_it_stays: Callable[[str, Sequence[str]], str] | None,
) -> Activation:
    """The activation; refused if the user does not want it converted, or the calibration gave it no levels."""
    if activation.spec is None:
        reason = why_it_stays(activation.input.name, activation.op_types) if why_it_stays is not None else ""
        return refused(activation, reason) if reason else activation
    if reason := why_not_wanted(names_of(activation), include, exclude):
        return refused(activation, reason)
    if is_signed(activation.spec) and not wanted.signed:
        # The text does not name the value, so that equal reasons can be grouped.
        if not activation.spec.zero:
            return refused(
                activation,
                "its lowest value is not zero, nor is another in all its channels, so its neurons would emit something "
                "while silent and save no operations; `signed=True` converts it all the same",
            )
        if not mode.codes:
            return refused(
                activation,
                f"its trains are signed, and mode '{mode.name}' has none such; `signed=True` gives dense ones of one "
                "sign",
            )
    return activation


def names_of(one: Activation | Planned) -> Sequence[str]:
    """The names by which patterns can select it."""
    return [name for name in (one.name, one.also_called) if name]


def why_not_wanted(names: Sequence[str], include: Sequence[str], exclude: Sequence[str]) -> str:
    """Why an activation with these names is not wanted; empty if it is."""
    if include and not _match(names, include):
        return "not among those to include"
    return "excluded" if _match(names, exclude) else ""


def _match(names: Sequence[str], patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def refused(activation: Activation, reason: str) -> Activation:
    """The activation, with the reason why it is not converted."""
    return replace(activation, status="refused", reason=reason, spec=None)


def of_one_type(activations: Sequence[Activation]) -> list[Activation]:
    """The activations, those of another type than most refused: a model has one function body, of one type."""
    types = Counter(activation.spec.dtype for activation in activations if activation.spec is not None)
    if len(types) <= 1:
        return list(activations)
    common = types.most_common(1)[0][0]
    return [
        activation
        if activation.spec is None or activation.spec.dtype == common
        else refused(
            activation,
            f"it computes in {activation.spec.dtype} and most others in {common}; neurons of one model have one type",
        )
        for activation in activations
    ]


def if_a_neuron_encodes_it(activation: Activation, encoded: Set[str]) -> Activation:
    """An activation without levels, with another reason if a neuron encodes its output, since no remedy is needed then.

    The neuron follows at once, or behind scalings and offsets by constants.
    """
    if activation.status != "needs-calibration" or activation.output.name not in encoded:
        return activation
    reason = "it has no levels of its own and stays, on the temporal mean; the neuron behind it encodes its output"
    return replace(activation, reason=reason)


def encoded_by(neurons: Iterable[Activation]) -> set[str]:
    """Names of tensors that only neurons read, directly or behind scalings and offsets by constants.

    If something else reads a tensor too, it is read unencoded, so the tensor is not included.
    """
    found: set[str] = set()
    for neuron in neurons:
        tensor: Tensor | None = neuron.input
        while tensor is not None and tensor.name not in found:
            found.add(tensor.name)
            made_of = data_input(tensor.inputs[0]) if len(tensor.inputs) == 1 else None
            tensor = made_of if made_of is not None and len(made_of.outputs) == 1 else None
    return found


def refuse_patterns_of_nothing(network: Network, names: Sequence[str], patterns: Sequence[str]) -> None:
    """Raise for patterns that match nothing, since a name must be misspelt.

    Raises:
        PconvError: a pattern matches no activation, converted or not.
    """
    for pattern in patterns:
        if not _match(names, [pattern]):
            raise PconvError(f"'{pattern}' matches no activation of {network.name}", "pconv-onnx inspect lists them")


def refuse_spiking(network: Network) -> None:
    """Raise if the network has been rewritten already.

    Raises:
        PconvError: it has, or it uses this project's operator domain for something else.
    """
    nodes = list(every_node(network.proto.graph))
    if any(is_neuron(node) or is_integer(node) for node in nodes):
        raise PconvError(f"{network.name} is a spiking network already", "pass the ANN that it was made from")
    used = {node.domain for node in nodes} | {entry.domain for entry in network.proto.functions}
    if DOMAIN in used:
        raise PconvError(f"{network.name} uses the operator domain '{DOMAIN}' for something else", "rename that domain")
