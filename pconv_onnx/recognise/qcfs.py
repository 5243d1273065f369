"""QCFS: `a/L · clip(⌊(x + ψ)·L/θ + 1/2⌋, 0, L)`, a uniform quantiser, and the one that this project trains.

θ, ψ and a are scalars or per channel; ψ is what calibration leaves, and a may then differ from θ. Source: Bu et al.,
"Optimal ANN-SNN conversion for high-accuracy and ultra-low-latency spiking neural networks" (ICLR 2022), and the
activation of Hao et al. (ICML 2025).
"""

from __future__ import annotations

import numpy as np

from pconv_onnx.neuron.quantiser import QuantizerSpec


def is_qcfs(spec: QuantizerSpec) -> bool:
    """Whether a quantiser is QCFS, rather than another that rounds to even or starts elsewhere."""
    return (
        spec.rounding.op_type == "Floor"
        and spec.threshold is not None
        and np.array_equal(spec.shift, spec.threshold / 2)
        and not spec.silent.any()
    )
