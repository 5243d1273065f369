"""How a user's model becomes a network for planning, calibrating or running, as far as no run is needed."""

from __future__ import annotations

from dataclasses import replace

from pconv_onnx.basics.domain import DOMAIN, MIN_OPSET
from pconv_onnx.graph.files import ModelSource, load
from pconv_onnx.graph.network import Network
from pconv_onnx.graph.passes.codes import dequantised_first
from pconv_onnx.graph.passes.duplicates import without_duplicates
from pconv_onnx.graph.passes.folding import fold
from pconv_onnx.graph.passes.inlining import inlined
from pconv_onnx.graph.passes.straight_through import without_straight_through
from pconv_onnx.graph.passes.taking_apart import taken_apart
from pconv_onnx.graph.passes.upgrading import upgraded
from pconv_onnx.graph.qonnx import standardised


def loaded(source: ModelSource | Network) -> Network:
    """A model as `load` reads it; a network that is loaded already, as it is.

    Raises:
        PconvError: it cannot be read.
    """
    return source if isinstance(source, Network) else load(source)


def prepared(source: ModelSource | Network) -> Network:
    """The network that plans and calibrations start from, in a uniform spelling and with all that can be known.

    Functions are inlined, an opset too old for function bodies is upgraded, quantisers are spelled in one way, and what
    can be computed beforehand is a constant.

    Raises:
        PconvError: it cannot be read, or onnx cannot bring it there.
    """
    return fold(respelled(modern(loaded(source))))


def modern(network: Network) -> Network:
    """The network without functions, at an opset in which function bodies can be written.

    Raises:
        PconvError: onnx cannot bring it there.
    """
    return upgraded(inlined(network, DOMAIN), MIN_OPSET)


def respelled(network: Network) -> Network:
    """The network in the spelling that recognition expects, with the same values in every bit.

    There are two exceptions, equal only in real numbers: sums of straight-through gradients around whole quantisers,
    which round by themselves, and operators that are taken apart, whose parts round differently.
    """
    return without_duplicates(dequantised_first(without_straight_through(taken_apart(network))))


def runnable(source: ModelSource | Network) -> Network:
    """A model in its own operators, for comparisons; only functions and QONNX's operators are written out.

    Raises:
        PconvError: it cannot be read, or onnx cannot bring it there.
    """
    network = inlined(loaded(source), DOMAIN)
    if standardised(network.proto) is network.proto:
        return network
    # As `rewrite` does: an opset for the operators that are written, and bit widths folded to constants.
    return in_standard_operators(fold(upgraded(network, MIN_OPSET)))


def in_standard_operators(network: Network) -> Network:
    """The network with QONNX's operators written out."""
    model = standardised(network.proto)
    return network if model is network.proto else replace(network, proto=model)
