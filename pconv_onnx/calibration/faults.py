"""What the data make of the tensors to calibrate: told by running the network once, before anything is cut.

Along which axis of each samples lie, and which of them are of no use.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pconv_onnx.data import Samples
from pconv_onnx.graph import Network
from pconv_onnx.graph.nesting import unused
from pconv_onnx.inference import axes_told_by_runs, open_session, run_session
from pconv_onnx.neuron import Array
from pconv_onnx.runtime import import_onnxruntime


def axes_and_faults(
    network: Network, names: Sequence[str], samples: Samples, size: int
) -> tuple[dict[str, int | None], dict[str, str]]:
    """Along which axis of float32 tensors samples lie, and what is wrong with them: along none, or not finite.

    The network itself sums them up, so that no more of it is in memory than where it just runs.

    Args:
        network: the source.
        names: of the tensors.
        samples: the data.
        size: of a batch of them.

    Returns:
        The axis of each tensor, None where the whole of it is of one sample; and a reason for each with a fault.

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
    axes: dict[str, int | None] = dict.fromkeys(names, None if samples.one_by_one else 0)
    where = "its first axis"
    if not samples.first_everywhere and not samples.one_by_one:
        where = "one of its axes"

        def run(feed: dict[str, Array]) -> list[tuple[int, ...]]:
            return [tuple(sizes.tolist()) for sizes in run_session(runner, feed)[::2]]

        counting = zip(names, axes_told_by_runs(run, samples), strict=True)
        axes = {name: next(iter(found)) if len(found) == 1 else None for name, found in counting}
    faults: dict[str, str] = {}
    for part, feed in samples.batches(size):
        count = part.stop - part.start
        outputs = run_session(runner, feed)
        for name, sizes, value in zip(names, outputs[::2], outputs[1::2], strict=True):
            axis = axes[name]
            along = sizes.tolist()[axis : axis + 1] if axis is not None else [1] if samples.one_by_one else []
            if along != [count]:
                told = f"'{name}' has shape {sizes.tolist()} for {count} samples, which do not run along {where}"
                faults.setdefault(name, told)
            elif not np.isfinite(value):
                faults.setdefault(name, f"'{name}' has a NaN or an infinity on these data")
    return axes, faults
