"""The energy of operations, of arithmetic only: of an ANN and of the spiking network that it became."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pconv_onnx.basics.choices import ENERGY_AC, ENERGY_AC_INT8, ENERGY_MAC, ENERGY_MAC_INT8
from pconv_onnx.graph import Network
from pconv_onnx.graph.products import prepared_inputs
from pconv_onnx.graph.view import node_name
from pconv_onnx.measure.operations import LinearOperator, Reading
from pconv_onnx.measure.spike_counts import ratio
from pconv_onnx.plan.spike_driven import reads_inputs


@dataclass(frozen=True)
class Prices:
    """The energy of each kind of operation.

    Attributes:
        mac: energy of a multiply-accumulate, in pJ.
        ac: energy of an accumulate, in pJ.
    """

    mac: float
    ac: float

    def ann(self, operators: Sequence[LinearOperator]) -> float:
        """The energy of operators in the ANN, in pJ."""
        return self.mac * sum(entry.macs for entry in operators)

    def snn(self, operators: Sequence[LinearOperator]) -> float:
        """The energy of operators in the spiking network, in pJ."""
        remaining = sum(entry.multiply_accumulates for entry in operators)
        return self.mac * remaining + self.ac * sum(entry.synaptic_operations for entry in operators)

    def __str__(self) -> str:
        return f"a multiply-accumulate takes {self.mac:g} pJ and an accumulate {self.ac:g} pJ"


FLOAT32 = Prices(ENERGY_MAC, ENERGY_AC)
INT8 = Prices(ENERGY_MAC_INT8, ENERGY_AC_INT8)


def energy(
    prices: Prices, operators: Sequence[LinearOperator], samples: int, in_floats: Sequence[LinearOperator] = ()
) -> dict[str, Any]:
    """Energies of one sample, of so many counted, as a part of the JSON document.

    Args:
        prices: of operations.
        operators: which of them have those prices.
        samples: how many they were counted on.
        in_floats: others, which have those of `FLOAT32`.
    """
    priced = ((prices, operators), (FLOAT32, in_floats))
    ann = sum(each.ann(entries) for each, entries in priced)
    snn = sum(each.snn(entries) for each, entries in priced)
    return {
        "mac_pj": prices.mac,
        "ac_pj": prices.ac,
        "ann_nj": ann / samples / 1000,
        "snn_nj": snn / samples / 1000,
        "ratio": ratio(snn, ann),
    }


def in_floats(network: Network, read: Sequence[Reading], integer: Mapping[str, Any] | None) -> list[LinearOperator]:
    """The products that a network of integer weights computes in floats.

    Args:
        network: a spiking network.
        read: its products.
        integer: what its record says of integers. Without it nothing tells which would stay in floats: none.
    """
    if integer is None:
        return []
    # Codes of 8 bits are integers, and what is not rounded to them is none.
    inputs = prepared_inputs(network) if integer["input_bits"] is None else set()
    return [
        reading.result
        for reading in read
        if node_name(reading.product.node) in integer["islands"] or reads_inputs(reading.product, inputs)
    ]
