"""Networks that `from_nir` reads, against snnTorch and nirtorch stepping the same graphs, spike for spike.

    pip install 'pconv-onnx[cpu,nir]' snntorch nirtorch torch
    python benchmarks/nir_reading.py -o benchmarks/results/nir-reading.json

Weights are sixteenths, so that sums do not depend on their order, and both sides step the same inputs. Of snnTorch it
takes what its importer makes of LIF and CubaLIF (`r` is tau/dt, which it asks for), with dt = 0.0001. Its importer
makes an IF leaky; what an IF gives is compared with nirtorch, for whose IF this file has the equation.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nir
import nirtorch
import numpy as np
import torch
from measure import arguments, machine, write
from snntorch.import_nir import import_from_nir

from pconv_onnx import SerialSession, from_nir

STEPS, SAMPLES, DT, FEATURES = 50, 20, 1e-4, (24, 40, 30)


def sixteenths(random: np.random.Generator, *shape: int) -> np.ndarray:
    return random.integers(-16, 17, shape).astype(np.float32) / 16


def neurons(kind: str, size: int, random: np.random.Generator) -> nir.NIRNode:
    """A layer; snnTorch takes one threshold a layer."""
    ones = np.ones(size, np.float32)
    fires = {"v_threshold": ones * np.float32(random.uniform(0.75, 2)), "v_reset": 0 * ones}
    if kind == "IF":
        return nir.IF(r=ones, **fires)
    tau = np.float32(DT * random.uniform(3, 15)) * ones
    if kind == "LIF":
        return nir.LIF(tau=tau, r=tau / np.float32(DT), v_leak=0 * ones, **fires)
    synapse = np.float32(DT * random.uniform(2, 5)) * ones
    weight = synapse / np.float32(DT)
    return nir.CubaLIF(synapse, tau, tau / np.float32(DT), 0 * ones, w_in=weight, **fires)


def graph_of(kind: str, seed: int) -> nir.NIRGraph:
    """Two layers."""
    random = np.random.default_rng(seed)
    first, second, third = FEATURES
    nodes = {
        "input": nir.Input({"input": np.array([first])}),
        "first": nir.Affine(sixteenths(random, second, first), sixteenths(random, second)),
        "hidden": neurons(kind, second, random),
        "second": nir.Affine(sixteenths(random, third, second), sixteenths(random, third)),
        "last": neurons(kind, third, random),
        "output": nir.Output({"output": np.array([third])}),
    }
    names = list(nodes)
    return nir.NIRGraph(nodes, list(zip(names, names[1:], strict=False)))


class Neurons(torch.nn.Module):
    """An IF as its equation in NIR."""

    def __init__(self, node: nir.IF) -> None:
        super().__init__()
        self.threshold, self.reset = map(torch.from_numpy, (node.v_threshold, node.v_reset))

    def forward(self, given: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
        charge = given if state is None else state + given
        fires = charge > self.threshold
        return fires.to(given.dtype), torch.where(fires, self.reset, charge)


def affine(node: nir.Affine) -> torch.nn.Module:
    layer = torch.nn.Linear(*node.weight.shape[::-1])
    layer.weight.data, layer.bias.data = torch.from_numpy(node.weight), torch.from_numpy(node.bias)
    return layer


def peer(graph: nir.NIRGraph, kind: str, x: np.ndarray) -> np.ndarray:
    """What the other library gives at each step."""
    with contextlib.redirect_stdout(io.StringIO()):  # snnTorch prints what it finds
        if kind == "IF":
            network = nirtorch.nir_to_torch(graph, {nir.IF: Neurons, nir.Affine: affine})
        else:
            network = import_from_nir(graph)
    state, outputs = None, []
    with torch.no_grad():
        for given in x:
            output, state = network(torch.from_numpy(given), state)
            # What snnTorch gives of neurons has their potential besides.
            outputs.append((output[0] if isinstance(output, tuple) else output).numpy())
    return np.stack(outputs)


def compared(kind: str, seeds: range) -> dict[str, Any]:
    """Spikes of networks of one kind of neuron."""
    found = {"spikes": 0, "places": 0, "differing": 0}
    for seed in seeds:
        graph = graph_of(kind, seed)
        x = np.random.default_rng([seed, 1]).integers(0, 2, (STEPS, SAMPLES, FEATURES[0])).astype(np.float32)
        with tempfile.TemporaryDirectory() as folder:
            nir.write(Path(folder, "graph.nir"), graph)
            from_nir(Path(folder, "graph.nir"), Path(folder, "snn.onnx"), steps=STEPS, dt=None if kind == "IF" else DT)
            session = SerialSession(Path(folder, "snn.onnx"))
            ours = np.stack([session.step(None, {"input": given})[0] for given in x])
        theirs = peer(graph, kind, x)
        found["spikes"] += int(theirs.sum())
        found["places"] += theirs.size
        found["differing"] += int((ours != theirs).sum())
    return {"neurons": kind, "peer": "nirtorch" if kind == "IF" else "snnTorch", "networks": len(seeds), **found}


def main() -> None:
    options = arguments(__doc__ or "", 10).parse_args()
    libraries = {name: version(name) for name in ("nir", "nirtorch", "snntorch", "torch")}
    document: dict[str, Any] = {
        "title": "Networks read from NIR, against others stepping the same graphs",
        "machine": machine(1) | libraries,
        "steps": STEPS,
        "samples": SAMPLES,
        "rows": [compared(kind, range(options.repeats)) for kind in ("IF", "LIF", "CubaLIF")],
    }
    for row in document["rows"]:
        print(row)
    write(document, options.output)


if __name__ == "__main__":
    main()
