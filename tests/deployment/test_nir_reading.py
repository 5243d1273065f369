"""NIR graphs that are read give, spike for spike, what a stepping of the same graph in NumPy gives."""

from __future__ import annotations

import json

import nir
import numpy as np
import onnx
import pytest
from networks import network, qcfs
from refusals import refusal_of

from pconv_onnx import SerialSession, deploy, from_nir, rewrite
from pconv_onnx.cli.main import main

STEPS, DT = 12, 1e-4


def sixteenths(*shape: int, seed: int = 0) -> np.ndarray:
    """Weights whose sums with spikes are exact in float32, in whatever order."""
    return np.random.default_rng(seed).integers(-16, 17, shape).astype(np.float32) / 16


def neurons(kind: str, *shape: int, seed: int = 0) -> nir.NIRNode:
    """Neurons that all differ."""
    random = np.random.default_rng(seed)

    def table(low: float, high: float) -> np.ndarray:
        return random.uniform(low, high, shape).astype(np.float32)

    fires = {"v_threshold": table(0.5, 2), "v_reset": table(-0.5, 0.25)}
    if kind == "IF":
        return nir.IF(r=table(0.5, 1.5), **fires)
    leak = {"v_leak": table(-0.1, 0.1)}
    if kind == "LIF":
        return nir.LIF(tau=table(2 * DT, 20 * DT), r=table(1, 4), **leak, **fires)
    times = {"tau_syn": table(2 * DT, 9 * DT), "tau_mem": table(2 * DT, 9 * DT)}
    return nir.CubaLIF(**times, r=table(2, 6), w_in=table(1, 3), **leak, **fires)


def stepped(node: nir.NIRNode, driving: np.ndarray, dt: np.float32) -> np.ndarray:
    """Spikes `[T, N, …]` of neurons that are driven so, in float32 as the specification words it."""
    potential, current, spikes = np.zeros_like(driving[0]), np.zeros_like(driving[0]), []
    metadata = node.metadata
    for given in driving:
        if isinstance(node, nir.IF):
            potential = potential + (node.r * dt) * given
        else:
            tau = node.tau if isinstance(node, nir.LIF) else node.tau_mem
            if isinstance(node, nir.CubaLIF):
                share = dt / node.tau_syn
                current = (1 - share) * current + (node.w_in * share) * given
                given = current
            share = dt / tau
            potential = ((1 - share) * potential + node.v_leak * share) + (node.r * share) * given
        fires = potential >= node.v_threshold if "fires" in metadata else potential > node.v_threshold
        subtracts = metadata.get("reset") == "subtract"
        potential = np.where(fires, potential - node.v_threshold if subtracts else node.v_reset, potential)
        spikes.append(fires.astype(np.float32))
    return np.stack(spikes)


def chain(*nodes: nir.NIRNode, shape: tuple[int, ...], out: tuple[int, ...]) -> nir.NIRGraph:
    """One node behind the other."""
    names = ["input", *(f"n{index}" for index in range(len(nodes))), "output"]
    ends = nir.Input({"input": np.array(shape)}), nir.Output({"output": np.array(out)})
    every = dict(zip(names, (ends[0], *nodes, ends[1]), strict=True))
    return nir.NIRGraph(every, list(zip(names, names[1:], strict=False)))


def read(graph: nir.NIRGraph, tmp_path, **options):
    nir.write(tmp_path / "graph.nir", graph)
    return from_nir(tmp_path / "graph.nir", tmp_path / "snn.onnx", **options)


def outputs(tmp_path, x: np.ndarray) -> np.ndarray:
    """Of each time-step, on inputs `[T, N, …]` that differ."""
    session = SerialSession(tmp_path / "snn.onnx")
    return np.stack([session.step(None, {"input": one})[0] for one in x])


def trains(*shape: int, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, (STEPS, 3, *shape)).astype(np.float32)


@pytest.mark.parametrize("kind", ["IF", "LIF", "CubaLIF"])
def test_neurons_give_the_spikes_of_their_equations(kind, tmp_path):
    weight, bias = 2 * sixteenths(7, 5), sixteenths(7, seed=1)
    layer = neurons(kind, 7)
    reading = read(chain(nir.Affine(weight, bias), layer, shape=(5,), out=(7,)), tmp_path, steps=STEPS, dt=DT)
    x = trains(5)
    expected = stepped(layer, x @ weight.T + bias, np.float32(DT))
    assert 0.05 < expected.mean() < 0.95 or kind == "IF"
    np.testing.assert_array_equal(outputs(tmp_path, x), expected)
    assert reading.steps == STEPS


def test_graphs_without_time_constants_have_steps_of_one(tmp_path):
    layer = neurons("IF", 7)
    read(chain(nir.Linear(2 * sixteenths(7, 5)), layer, shape=(5,), out=(7,)), tmp_path, steps=STEPS)
    x = trains(5)
    expected = stepped(layer, x @ (2 * sixteenths(7, 5)).T, np.float32(1))
    assert 0.05 < expected.mean() < 0.95
    np.testing.assert_array_equal(outputs(tmp_path, x), expected)


def test_resets_and_charges_in_the_metadata_are_followed(tmp_path):
    """One threshold a channel becomes our own operator; others do not begin at a charge."""
    layer = neurons("LIF", 7)
    layer.metadata = {"reset": "subtract", "fires": "at threshold"}
    read(chain(nir.Linear(2 * sixteenths(7, 5)), layer, shape=(5,), out=(7,)), tmp_path, steps=STEPS, dt=DT)
    x = trains(5)
    np.testing.assert_array_equal(outputs(tmp_path, x), stepped(layer, x @ (2 * sixteenths(7, 5)).T, np.float32(DT)))
    layer.metadata["v_initial"] = np.ones(7, np.float32)
    graph = chain(nir.Linear(2 * sixteenths(7, 5)), layer, shape=(5,), out=(7,))
    assert "'n1' begins at a charge" in refusal_of(read, graph, tmp_path, steps=STEPS, dt=DT)


def test_images_pools_and_sums(tmp_path):
    """A residual network, of all that has windows."""
    shape = (4, 6, 6)
    convolution = nir.Conv2d((6, 6), sixteenths(4, 4, 3, 3), 1, 1, 1, 1, sixteenths(4, seed=1))
    first, last = neurons("IF", *shape, seed=2), neurons("IF", 5, seed=3)
    weight = sixteenths(5, 4, seed=4)
    graph = nir.NIRGraph(
        {
            "input": nir.Input({"input": np.array(shape)}), "conv": convolution, "first": first,
            "sum": nir.SumPool2d(np.array([3, 3]), np.array([3, 3]), np.array([0, 0])),
            "mean": nir.AvgPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
            "flat": nir.Flatten({"input": np.array((4, 1, 1))}, 0), "linear": nir.Linear(weight), "last": last,
            "output": nir.Output({"output": np.array([5])}),
        },
        [("input", "conv"), ("input", "first"), ("conv", "first"), ("first", "sum"), ("sum", "mean"), ("mean", "flat"),
         ("flat", "linear"), ("linear", "last"), ("last", "output")],
    )  # fmt: skip
    reading = read(graph, tmp_path, steps=STEPS)
    assert dict(reading.neurons) == {"first": "IF", "last": "IF"}
    x = trains(*shape)
    padded = np.pad(x, ((0, 0), (0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(3, 4))
    convolved = np.einsum("tncyxij,ocij->tnoyx", windows, convolution.weight)
    driving = convolved + convolution.bias.reshape(4, 1, 1) + x
    spikes = stepped(first, driving.astype(np.float32), np.float32(1))
    summed = spikes.reshape(STEPS, 3, 4, 2, 3, 2, 3).sum(axis=(4, 6)).mean(axis=(3, 4))
    expected = stepped(last, (summed @ weight.T).astype(np.float32), np.float32(1))
    assert 0.05 < expected.mean() < 0.95
    np.testing.assert_array_equal(outputs(tmp_path, x), expected)


def test_signals_are_convolved_with_same_padding(tmp_path):
    layer, weight = neurons("IF", 4, 8), sixteenths(4, 2, 3)
    convolution = nir.Conv1d(8, weight, 1, "same", 1, 1, np.zeros(4, np.float32))
    read(chain(convolution, layer, shape=(2, 8), out=(4, 8)), tmp_path, steps=STEPS)
    x = trains(2, 8)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0),) * 3 + ((1, 1),)), 3, axis=3)
    driving = np.einsum("tnclk,ock->tnol", windows, weight).astype(np.float32)
    np.testing.assert_array_equal(outputs(tmp_path, x), stepped(layer, driving, np.float32(1)))


def test_out_and_in_again_is_the_same_in_every_bit(tmp_path):
    """What is written of what was read is what was read, and gives the same bits where sums are exact."""
    nodes = f"""
        c = Conv <pads = [1, 1, 1, 1]> (x, w, k) {qcfs("c", "a")}
        p = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (a)
        f = Flatten (p)
        y = Gemm (f, u)
    """
    weights = {"w": sixteenths(4, 3, 3, 3), "k": sixteenths(4), "u": sixteenths(64, 5, seed=2)}
    rewrite(network(nodes, outputs="float[N, 5] y", weights=weights), tmp_path / "0.onnx", mode="serial")
    graphs, given = [], []
    x = sixteenths(4, 3, 8, 8, seed=9) * 4
    for index in range(3):
        session = SerialSession(tmp_path / f"{index}.onnx")
        given.append(session.run_per_step(None, {session.get_inputs()[0].name: x})[0])
        if index < 2:
            deploy(tmp_path / f"{index}.onnx", tmp_path / f"nir{index}", target="nir", allow_lossy=True)
            graphs.append(nir.read(tmp_path / f"nir{index}" / f"{index}.nir"))
            from_nir(tmp_path / f"nir{index}" / f"{index}.nir", tmp_path / f"{index + 1}.onnx")
    assert given[0].any()
    assert given[0].tobytes() == given[1].tobytes() == given[2].tobytes()
    first, again = graphs
    kinds = [[type(node).__name__ for node in graph.nodes.values()] for graph in graphs]
    assert kinds[0] == kinds[1]
    for left, right in zip(first.nodes.values(), again.nodes.values(), strict=True):
        for name, value in vars(left).items():
            if isinstance(value, np.ndarray):
                np.testing.assert_array_equal(value, getattr(right, name))
        assert left.metadata.get("reset") == right.metadata.get("reset")
        if "v_initial" in left.metadata:
            np.testing.assert_array_equal(left.metadata["v_initial"], right.metadata["v_initial"])


def test_the_command_reads_and_says_what_is_lost(tmp_path, capsys):
    graph = chain(nir.Linear(sixteenths(7, 5)), neurons("LIF", 7), shape=(5,), out=(7,))
    nir.write(tmp_path / "graph.nir", graph)
    command = ["rewrite", str(tmp_path / "graph.nir"), "--steps", "4", "--dt", "0.0001", "--json"]
    assert main(command) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["losses"] == ["continuous time: each step is one of Euler's method, dt = 0.0001"]
    assert document["counts"]["converted"] == 1
    onnx.checker.check_model(onnx.load(document["output"]))
    assert main([*command[:-1], "--weights", "int8"]) == 2
    assert "a NIR graph becomes a serial network as it is" in capsys.readouterr().err
    assert main(["rewrite", "model.onnx", "--dt", "1"]) == 2


def test_refusals_say_what_to_do(tmp_path):
    linear, layer = nir.Linear(sixteenths(7, 5)), neurons("LIF", 7)
    graph = chain(linear, layer, shape=(5,), out=(7,))
    assert "does not say for how many time-steps it is; pass `steps=`" in refusal_of(read, graph, tmp_path, dt=DT)
    assert "does not say how long a time-step is; pass `dt=`" in refusal_of(read, graph, tmp_path, steps=4)
    assert "no length of a time-step" in refusal_of(read, graph, tmp_path, steps=4, dt=0.0)
    delayed = chain(linear, nir.Delay(np.ones(7)), layer, shape=(5,), out=(7,))
    assert "'n1' is a Delay, which has no counterpart here" in refusal_of(read, delayed, tmp_path, steps=4, dt=DT)
    looped = chain(linear, layer, nir.Linear(sixteenths(7, 7)), layer, shape=(5,), out=(7,))
    looped.edges.append(("n2", "n1"))
    assert "is part of a loop" in refusal_of(read, looped, tmp_path, steps=4, dt=DT)
    (tmp_path / "no.nir").write_bytes(b"no")
    assert "cannot be read as NIR" in refusal_of(from_nir, tmp_path / "no.nir", steps=4)
