"""The one door: how a model that users bring becomes a network, for whoever looks at it or runs it.

As `passes.pipeline` makes it, and with what takes runs: a network that was brought to a later opset is compared with
what it was, and shapes that nothing else tells are looked at.
"""

from __future__ import annotations

from pconv_onnx.basics.domain import DOMAIN
from pconv_onnx.graph import ModelSource, Network
from pconv_onnx.graph.passes import pipeline
from pconv_onnx.graph.passes.inlining import inlined
from pconv_onnx.runtime.conversion import require_same
from pconv_onnx.runtime.observed import with_observed_shapes


def prepared(source: ModelSource | Network) -> Network:
    """A model as plans are made of it, and as it is calibrated, as `pipeline.prepared` says.

    Raises:
        PconvError: it cannot be read, or brought to a later opset so that it computes the same.
    """
    network = pipeline.loaded(source)
    return with_observed_shapes(pipeline.prepared(_checked(network, pipeline.modern(network))))


def runnable(source: ModelSource) -> Network:
    """A model as onnxruntime runs it, for whoever compares with it, as `pipeline.runnable` says.

    Raises:
        PconvError: as of `prepared`.
    """
    network = pipeline.loaded(source)
    return _checked(network, pipeline.runnable(network))


def _checked(network: Network, later: Network) -> Network:
    if later.opset != network.opset:
        given = pipeline.in_standard_operators(inlined(network, DOMAIN))
        require_same(given, pipeline.in_standard_operators(later))
    return later
