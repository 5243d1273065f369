"""Time to rewrite, imports excluded: ResNet-20, and chains of layers up to 10,000 nodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from measure import arguments, interleaved, machine, report, rows
from onnx import TensorProto, helper, numpy_helper

import pconv_onnx

RESNET = Path(__file__).parent.parent / "examples" / "resnet20" / "resnet20-qcfs8.onnx"
NODES_A_LAYER = 8


def chain(layers: int) -> onnx.ModelProto:
    """Conv and QCFS, over and over; constants are shared by all layers, as exporters share them."""
    nodes, tensor = [], "x"
    for index in range(layers):
        names = [f"t{index}_{part}" for part in range(NODES_A_LAYER)]
        spelled = [
            ("Conv", "w"), ("Div", "theta"), ("Mul", "count"), ("Add", "half"), ("Floor",), ("Div", "count"),
            ("Clip", "zero", "one"), ("Mul", "theta"),
        ]  # fmt: skip
        for (op_type, *constants), name in zip(spelled, names, strict=True):
            nodes.append(helper.make_node(op_type, [tensor, *constants], [name], name=f"node_{name}"))
            tensor = name
    constants = {"theta": 2.0, "count": 8.0, "half": 0.5, "zero": 0.0, "one": 1.0}
    initializers = [
        numpy_helper.from_array(np.array(value, dtype=np.float32), name) for name, value in constants.items()
    ]
    initializers.append(numpy_helper.from_array(np.ones((4, 4, 1, 1), dtype=np.float32), "w"))
    shape = ["N", 4, 8, 8]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(tensor, TensorProto.FLOAT, shape)],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def main() -> None:
    """Measure, print, write."""
    options = arguments(__doc__, repeats=5).parse_args()
    models = {f"chain of {NODES_A_LAYER * layers:,} nodes": chain(layers) for layers in (125, 313, 625, 1250)}
    candidates = {"ResNet-20 (file)": lambda: pconv_onnx.rewrite(RESNET)}
    candidates |= {name: lambda model=model: pconv_onnx.rewrite(model) for name, model in models.items()}
    seconds = interleaved(candidates, options.repeats, warm_up=1)
    baseline = next(iter(models))
    document = {
        "benchmark": "rewriting",
        "machine": machine(options.threads),
        "rows": rows(seconds, baseline),
        "seconds": seconds,
    }
    report("Rewriting", document, options.output)


if __name__ == "__main__":
    main()
