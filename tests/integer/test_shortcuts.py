"""What spikes are worth on a shortcut is what neurons emit, where all that reads them agrees."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from networks import network, qcfs, weight
from onnx import numpy_helper

from pconv_onnx import Rewriting, rewrite

SAME = "<pads = [1, 1, 1, 1]>"
EACH = np.array([1, 1.5, 2, 3], np.float32).reshape(4, 1, 1)
CONSTANTS = {"w": weight(4, 3, 3, 3), "v": weight(4, 4, 3, 3, seed=1), "v2": weight(4, 4, 3, 3, seed=2), "each": EACH,
             "columns": np.array([-1, 4, 64]), "back": np.array([-1, 4, 8, 8])}  # fmt: skip
A = f"c = Conv {SAME} (x, w)" + qcfs("c", "a")
BLOCK = f"{A} d = Conv {SAME} (a, v)" + qcfs("d", "b") + f"e = Conv {SAME} (b, v2)"
END = qcfs("s", "y")


def rewritten(nodes: str, outputs: str = "", **options) -> Rewriting:
    words = set(nodes.replace("(", " ").replace(")", " ").replace(",", " ").split())
    model = network(nodes, outputs=f"float[N, 4, 8, 8] y{outputs}",
                    weights={name: value for name, value in CONSTANTS.items() if name in words})  # fmt: skip
    return rewrite(model, weights="int8", input_bits=8, input_range=(-4, 4), **options)


def products(model: onnx.ModelProto) -> int:
    """How many tensors in time are multiplied."""
    return sum(node.op_type == "Mul" and node.output[0].endswith("/steps") for node in model.graph.node)


def levels(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Of each neuron, by its name."""
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return {node.name: held[node.input[2]] for node in model.graph.node if node.op_type == "ParallelSpike"}


def thresholds(model: onnx.ModelProto) -> list[int]:
    """Of each neuron, how many rows."""
    held = {tensor.name: tensor.dims[0] for tensor in model.graph.initializer if tensor.dims}
    return [held[node.input[1]] for node in model.graph.node if node.op_type == "ParallelSpike"]


SHORTCUTS = {
    "past two layers": f"{BLOCK} s = Add (e, a) {END}",
    "from the second operand": f"{BLOCK} s = Add (a, e) {END}",
    "that is taken away": f"{BLOCK} s = Sub (e, a) {END}",
    "through moves": f"{BLOCK} r = Reshape (a, columns) t = Reshape (r, back) s = Add (e, t) {END}",
}


@pytest.mark.parametrize("nodes", SHORTCUTS.values(), ids=SHORTCUTS)
def test_a_neuron_emits_what_its_spikes_are_worth(nodes):
    result = rewritten(nodes)
    assert result.integers.proof.exact
    assert products(result.model) == 0
    first, second, *_ = levels(result.model).values()
    multiple = first[0, 1]
    assert multiple > 1
    assert np.log2(multiple) % 1 == 0
    np.testing.assert_array_equal(first[0], multiple * np.arange(first.shape[1]))
    np.testing.assert_array_equal(second[0], np.arange(second.shape[1]))
    # As in the source; sums over 256 codes of the input leave the first neuron no room for that.
    assert set(thresholds(result.model)[1:]) == {1}


def test_channels_of_several_spacings_share_a_multiple():
    each = BLOCK.replace(qcfs("c", "a"), qcfs("c", "a").replace("theta", "each"))
    result = rewritten(f"{each} s = Add (e, a) {END}")
    assert products(result.model) == 0
    first = next(iter(levels(result.model).values()))
    assert (first[:, 1] > 1).all()
    assert len(np.unique(first[:, 1])) == 1


DISAGREE = {
    "an output": (f"{BLOCK} s = Add (e, a) {END}", ", float[N, 4, 8, 8] a"),
    "floats": (f"{BLOCK} s = Add (e, a) {END} z = Sigmoid (a)", ", float[N, 4, 8, 8] z"),
    "a layer that is summed": (f"{A} e = Conv {SAME} (a, v) s = Add (e, a) {END}", ""),
    "a layer that is an output": (f"{BLOCK} s = Add (e, a) {END}", ", float[N, 4, 8, 8] d"),
}


@pytest.mark.parametrize("case", DISAGREE)
def test_where_another_reader_does_not_agree_spikes_are_multiplied(case):
    nodes, outputs = DISAGREE[case]
    result = rewritten(nodes, outputs)
    assert products(result.model) == 1
    first = next(iter(levels(result.model).values()))
    np.testing.assert_array_equal(first[0], np.arange(first.shape[1]))
