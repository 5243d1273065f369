"""The target `nir`: a serial network in the Neuromorphic Intermediate Representation, for simulators and chips."""

from __future__ import annotations

import io
from typing import Any

from pconv_onnx.basics.errors import PconvError
from pconv_onnx.deployment.nir.rules import nir_graph
from pconv_onnx.deployment.package import Package
from pconv_onnx.deployment.target import Contents
from pconv_onnx.graph.passes.folding import fold
from pconv_onnx.graph.record import Record

_RESET = "the reset, which subtracts the threshold here and sets the potential to `v_reset` there"
_CHARGE = "the charge that neurons begin with (`v_initial`), for which readers begin at 0"
_TIES = "neurons that fire at their threshold, not only above it"


class Nir:
    """A graph as HDF5, and what to know of it; what reads it decides where it runs."""

    every_device = "what reads it decides where it runs"
    may_lose = True

    def contents(self, packed: Package, gpu: bool) -> Contents:
        """The folder.

        Raises:
            PconvError: the network is not serial, something of it has no counterpart in NIR, or the package nir is
                missing.
        """
        if not packed.mode.one_step:
            whole = Record.read(packed.network.proto).integer is not None
            raise PconvError(
                f"the network is {packed.mode.name}, and what reads NIR computes step by step",
                f"rewrite it with `mode='serial'`{', without `weights=`' if whole else ''}",
            )
        nir = nir_package()
        graph = nir_graph(fold(packed.network), packed.potentials, packed.steps, nir)
        neurons = [node for node in graph.nodes.values() if isinstance(node, nir.IF)]
        charged = any(node.metadata["v_initial"].any() for node in neurons)
        losses = [_RESET, *([_CHARGE] if charged else []), _TIES]
        with io.BytesIO() as file:
            nir.write(file, graph)
            written = file.getvalue()
        name = f"{packed.name}.nir"
        return Contents({name: written, "README.md": _readme(name, packed, graph, losses).encode()}, losses=losses)


def nir_package() -> Any:
    """The package nir.

    Raises:
        PconvError: it is missing.
    """
    try:
        import nir
    except ImportError as error:
        raise PconvError(f"the package nir cannot be imported: {error}", "pip install 'pconv-onnx[nir]'") from error
    return nir


def _readme(name: str, packed: Package, graph: Any, losses: list[str]) -> str:
    (shape,) = graph.input_type.values()
    lost = "".join(f"- {loss}\n" for loss in losses)
    return f"""# {packed.name} in the Neuromorphic Intermediate Representation

    import nir
    graph = nir.read("{name}")

A spiking network for T = {packed.steps} time-steps, each of length 1. Its input, of shape {[*map(int, shape)]} without
a batch axis, is the same at each step, as biases are; its output is a current, whose mean over the steps counts.

Edges into one node are to be added. Amplitudes of spikes are in the weights behind them, means of pools as well.

What NIR cannot say:

{lost}
The metadata of each neuron node has `v_initial`, of the shape of its threshold, and `reset`. A reader that subtracts
the threshold, and sets potentials to `v_initial` before the first step, gives the spikes of the network that this comes
from, up to the rounding of its sums. Any other reader has another network, as a rule a far less accurate one.
"""
