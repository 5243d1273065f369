"""The work of commands grows as the network does: calls are counted, which no other process disturbs."""

from __future__ import annotations

import cProfile
import pstats
import warnings
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from shapes import SHAPES

from pconv_onnx import PconvError, inspect, rewrite, stats, verify

FLOAT = onnx.TensorProto.FLOAT


def model(nodes: list[onnx.NodeProto], output: str, initializers: tuple[onnx.TensorProto, ...] = ()) -> onnx.ModelProto:
    declared = [helper.make_tensor_value_info(name, FLOAT, ["N", 4, 2, 2]) for name in ("x", output)]
    graph = helper.make_graph(nodes, "network", declared[:1], declared[1:], initializers)
    imports = [("", 20), ("com.microsoft", 1), ("finn.custom_op.general", 1)]
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(*entry) for entry in imports], ir_version=10)


def between_unknown_operators(nodes: int) -> onnx.ModelProto:
    made = [
        helper.make_node("Gelu", [f"t{i}" if i else "x"], [f"t{i + 1}"], domain="com.microsoft" if i % 2 else "")
        for i in range(nodes)
    ]
    return model(made, f"t{nodes}")


def of_thresholds(nodes: int) -> onnx.ModelProto:
    made, tensor = [], "x"
    for i in range(nodes // 2):
        made.append(helper.make_node("Neg", [tensor], [f"n{i}"]))
        made.append(helper.make_node("MultiThreshold", [f"n{i}", "levels"], [f"t{i}"], domain="finn.custom_op.general"))
        tensor = f"t{i}"
    return model(made, tensor, (numpy_helper.from_array(np.arange(3, dtype=np.float32)[None], "levels"),))


def shared(nodes: int) -> onnx.ModelProto:
    made = [helper.make_node("Neg", ["x"], ["t"])]
    for i in range(nodes // 2):
        made.append(helper.make_node("Floor", ["t"], [f"f{i}"]))
        made.append(helper.make_node("Relu", [f"f{i}"], [f"r{i}"]))
    made.append(helper.make_node("Sum", [f"r{i}" for i in range(nodes // 2)], ["y"]))
    return model(made, "y")


def sums_in_sums(nodes: int) -> onnx.ModelProto:
    made, tensor = [helper.make_node("Round", ["x"], ["q"])], "q"
    for i in range(nodes // 2):
        made.append(helper.make_node("Sub", [tensor, "x"], [f"d{i}"]))
        made.append(helper.make_node("Add", ["x", f"d{i}"], [f"v{i}"]))
        tensor = f"v{i}"
    return model(made, tensor)


CASES = {
    **SHAPES,
    "unknown operators": between_unknown_operators,
    "MultiThreshold": of_thresholds,
    "shared": shared,
    "sums in sums": sums_in_sums,
}


def work(task: Callable[[onnx.ModelProto], None], network: onnx.ModelProto) -> int:
    """Calls of functions in a task."""
    with warnings.catch_warnings(), cProfile.Profile() as profile:
        warnings.simplefilter("ignore")
        task(network)
    return int(pstats.Stats(profile).total_calls)


def look_at_and_rewrite(network: onnx.ModelProto) -> None:
    inspect(network)
    for mode in ("folded", "parallel"):
        try:
            rewrite(network, mode=mode)
        except PconvError as error:
            assert error.message.startswith("nothing to convert")


def measure(network: onnx.ModelProto) -> None:
    spiking = rewrite(network, mode="parallel").model
    stats(spiking)
    verify(network, spiking)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_twice_the_network_is_twice_the_work(name):
    make = CASES[name]
    work(look_at_and_rewrite, make(20))  # imports
    first, second = (work(look_at_and_rewrite, make(nodes)) for nodes in (300, 600))
    assert second < 2.3 * first, (first, second)


@pytest.mark.slow
def test_twice_the_layers_are_twice_the_measuring():
    make = SHAPES["Conv and QCFS"]
    work(measure, make(20))  # imports
    first, second = (work(measure, make(nodes)) for nodes in (800, 1600))
    assert second < 2.1 * first, (first, second)
