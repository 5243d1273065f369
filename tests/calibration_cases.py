"""A network with activations of every kind, and data for it: what tests of whole calibrations share."""

from __future__ import annotations

import numpy as np
from networks import network, weight

# An activation that shares a layer with another, one that stays, one that becomes thresholds, and a corrected output.
NODES = """
    a = Conv (x, w) r = Relu (a) b = Conv (r, v) s = Gelu (b) c = Conv (s, u) t = Clip (c, zero, six)
    l = LeakyRelu (c) d = Add (t, l) e = Relu (d) y = Conv (e, q)
"""
WEIGHTS = {
    "w": 2 * weight(4, 3, 1, 1), "v": weight(6, 4, 1, 1, seed=1), "u": weight(4, 6, 1, 1, seed=2),
    "q": weight(2, 4, 1, 1, seed=3), "six": 1.5,
}  # fmt: skip
MODEL = network(NODES, inputs="float[N, 3, 4, 4] x", outputs="float[N, 2, 4, 4] y", weights=WEIGHTS, opset=20)
DATA = {"x": np.random.default_rng(0).normal(size=(40, 3, 4, 4)).astype(np.float32)}
ACTIVATIONS = 5
