"""Which tensors of a network the data make useless for calibration: told by running it once, before anything is cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pconv_onnx.graph import Network
from pconv_onnx.graph.nesting import unused
from pconv_onnx.inference import open_session, run_session
from pconv_onnx.neuron import Array
from pconv_onnx.runtime import import_onnxruntime


class Faults(dict[str, str]):
    """A reason for each tensor with a fault, the first that was found."""

    def __add__(self, other: Faults) -> Faults:
        """Those of both parts of the data."""
        return Faults({**other, **self})


def faults_of(network: Network, names: Sequence[str], shards: Iterable[Iterable[dict[str, Array]]]) -> Iterator[Faults]:
    """What is wrong with float32 tensors: their first axis does not count samples, or a value is not finite.

    The network itself sums them up, so that no more of it is in memory than where it just runs.

    Args:
        network: the source.
        names: of the tensors.
        shards: feeds of the network, of each shard.

    Yields:
        The faults on each shard.

    Raises:
        PconvError: onnxruntime cannot run the network.
    """
    model = onnx.ModelProto()
    model.CopyFrom(network.proto)
    graph = model.graph
    del graph.output[:]
    used = set(network.names)
    zero = unused("zero", used)
    graph.initializer.append(numpy_helper.from_array(np.zeros((), np.float32), zero))
    for name in names:
        shape, product, total = (unused(f"{name}/{part}", used) for part in ("shape", "product", "total"))
        graph.node.append(helper.make_node("Shape", [name], [shape]))
        # A NaN where any value is a NaN or an infinity.
        graph.node.append(helper.make_node("Mul", [name, zero], [product]))
        graph.node.append(helper.make_node("ReduceSum", [product], [total], keepdims=0))
        graph.output.append(helper.make_tensor_value_info(shape, onnx.TensorProto.INT64, None))
        graph.output.append(helper.make_tensor_value_info(total, onnx.TensorProto.FLOAT, None))
    # Optimised, a product with zero could become part of what computes the tensor.
    disabled = import_onnxruntime().GraphOptimizationLevel.ORT_DISABLE_ALL
    runner = open_session(model, network.name, disabled)
    for batches in shards:
        found = Faults()
        for feed in batches:
            count = len(next(iter(feed.values())))
            outputs = run_session(runner, feed)
            for name, sizes, value in zip(names, outputs[::2], outputs[1::2], strict=True):
                if sizes.tolist()[:1] != [count]:
                    told = f"{sizes.tolist()} for {count} samples, which do not run along its first axis"
                    found.setdefault(name, f"'{name}' has shape {told}")
                elif not np.isfinite(value):
                    found.setdefault(name, f"'{name}' has a NaN or an infinity on these data")
        yield found
