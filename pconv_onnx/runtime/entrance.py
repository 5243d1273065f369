"""How a user's model becomes a network for planning, calibrating or running.

It does what `passes.pipeline` does, and what needs runs: a network that was converted to a later opset is compared with
the original, and shapes that cannot be inferred are observed.
"""

from __future__ import annotations

from pconv_onnx.basics.domain import DOMAIN
from pconv_onnx.graph import ModelSource, Network
from pconv_onnx.graph.passes import pipeline
from pconv_onnx.graph.passes.inlining import inlined
from pconv_onnx.runtime.conversion import require_same
from pconv_onnx.runtime.observed import with_observed_shapes


def prepared(source: ModelSource | Network) -> Network:
    """The network that plans and calibrations start from, as `pipeline.prepared` describes it.

    Raises:
        PconvError: it cannot be read, or brought to a later opset so that it computes the same.
    """
    network = pipeline.loaded(source)
    return with_observed_shapes(pipeline.prepared(_checked(network, pipeline.modern(network))))


def runnable(source: ModelSource) -> Network:
    """A model in its own operators, for comparisons, as `pipeline.runnable` describes it.

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
