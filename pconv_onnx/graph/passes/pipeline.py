"""How a model that users bring becomes a network, for whoever looks at it or runs it: as far as that takes no run."""

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
    """A model as `load` reads it; what is one already, as it is.

    Raises:
        PconvError: it cannot be read.
    """
    return source if isinstance(source, Network) else load(source)


def prepared(source: ModelSource | Network) -> Network:
    """A model as plans are made of it, and as it is calibrated: with as much known of it, and said once, as can be.

    Functions are written out, an opset too old for the operators' bodies is brought up, quantisers are spelled in one
    way, and what can be computed beforehand is a constant.

    Raises:
        PconvError: it cannot be read, or onnx cannot bring it there.
    """
    return fold(respelled(modern(loaded(source))))


def modern(network: Network) -> Network:
    """The network without functions, at an opset that the operators' bodies can be written in.

    Raises:
        PconvError: onnx cannot bring it there.
    """
    return upgraded(inlined(network, DOMAIN), MIN_OPSET)


def respelled(network: Network) -> Network:
    """The network in the spelling that recognition reads; what it computes stays in real numbers, and in every bit.

    But for sums of straight-through gradients around whole quantisers, which round by themselves, and operators that
    are taken apart, whose parts round otherwise.
    """
    return without_duplicates(dequantised_first(without_straight_through(taken_apart(network))))


def runnable(source: ModelSource | Network) -> Network:
    """A model as onnxruntime runs it, for whoever compares with it: its own operators, but functions and QONNX's.

    Raises:
        PconvError: it cannot be read, or onnx cannot bring it there.
    """
    network = inlined(loaded(source), DOMAIN)
    if standardised(network.proto) is network.proto:
        return network
    # As rewrite does: operators of the opset that they are written in, bit widths that are computed from constants.
    return in_standard_operators(fold(upgraded(network, MIN_OPSET)))


def in_standard_operators(network: Network) -> Network:
    """The network with QONNX's operators written out."""
    model = standardised(network.proto)
    return network if model is network.proto else replace(network, proto=model)
