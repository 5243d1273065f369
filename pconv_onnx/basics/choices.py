"""The names and numbers that users can choose from. The command line takes them from here only.

This module imports nothing heavy, so that `--help` and wrong arguments are answered at once.
"""

from typing import Any, Literal

# What flows in a rewritten network.
ModeName = Literal["parallel", "folded", "serial", "integer", "integer-parallel"]
MODES: tuple[ModeName, ...] = ("parallel", "folded", "serial", "integer", "integer-parallel")
# What a NIR graph may be asked to become: nothing in particular, or what it does become.
NIR_MODES: tuple[ModeName, ...] = ("parallel", "serial")
Precision = Literal["float16"]
PRECISIONS: tuple[Precision, ...] = ("float16",)

# What weights are rounded to.
WeightsName = Literal["int8", "int4"]
WEIGHTS: tuple[WeightsName, ...] = ("int8", "int4")
# Bits that an input of the network may be quantised to.
INPUT_BITS = (8,)

# The most time-steps of a spike train.
MAX_STEPS = 256
# In coding radix no activation gets more where they are mixed, unless T is more: all of so many levels are exact, also
# on both sides of zero, and so trains can be joined.
MOST_MIXED_BITS = 10

# How trains carry spike counts; `auto` chooses by the levels of an activation.
CodingName = Literal["auto", "rate", "radix"]
CODINGS: tuple[CodingName, ...] = ("auto", "rate", "radix")

# What becomes a neuron: activations, or everything that products read; the first is the default.
NeuronsName = Literal["activations", "products"]
NEURONS: tuple[NeuronsName, ...] = ("activations", "products")

# What becomes of activations that only outputs read: they stay, or get levels as all others; the first is the default.
ReadoutsName = Literal["analog", "spiking"]
READOUTS: tuple[ReadoutsName, ...] = ("analog", "spiking")

# How a calibration chooses thresholds; the first is the default.
METHODS = ("refit", "tune", "fit", "da-qcfs", "mse+da-qcfs", "percentile+da-qcfs", "mse", "percentile", "max")
# Those that change weights and biases as well; the second continues from what the first finds.
CORRECTING = REFIT, TUNE = "refit", "tune"

# Where samples can be run other than in this process.
ENGINES = ("ray",)

# What `deploy` can write for; the first is the default.
TARGETS = ("bundle", "triton", "nir", "c")

# What `bench` measures by default: time-steps, samples a run, rounds.
STEPS = (4, 8, 16)
BATCHES = (1, 32)
REPEATS = 20

# Bytes that activations may take at a time, by default.
MEMORY = 1 << 29

# 32-bit floats in 45 nm CMOS (M. Horowitz, "Computing's energy problem", ISSCC 2014), in pJ.
ENERGY_MAC, ENERGY_AC = 4.6, 0.9
# Likewise of 8-bit integers into sums of 32 bits: 0.2 to multiply, 0.1 to add. It has no figures of 4 bits.
ENERGY_MAC_INT8, ENERGY_AC_INT8 = 0.3, 0.1

# The execution providers, as onnxruntime takes them; CUDA's without TF32, which would round inputs of
# convolutions to 10 bits.
PROVIDERS: dict[str, list[Any]] = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": [("CUDAExecutionProvider", {"use_tf32": "0"})],
}
