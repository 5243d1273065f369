"""Layers of integer weights: their definition in NumPy, random cases of them, and their node run alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from pconv_onnx.basics.domain import DOMAIN, VERSION
from pconv_onnx.operators.integer_spike import count_of, sums_of_convolution, sums_of_product, trains_of
from pconv_onnx.operators.library import register

INSTRUCTIONS = ["avx512vnni", "avxvnni", "avx2", "portable"]
LAYER = ["counts", "weights", "bias", "factor", "residual", "multiplier"]
TABLES = ["thresholds", "line"]
INPUTS = {
    "IntegerSpikeConv": [*LAYER, *TABLES],
    "IntegerSpikeGemm": [*LAYER, *TABLES],
    "IntegerConv": LAYER,
    "IntegerGemm": LAYER,
    "IntegerSpike": ["sums", *TABLES],
}
LAYER_IN_TIME = ["input_steps", "residual_steps", "input_coding"]
TRAINS = ["steps", "coding", "silent"]
RATE, RADIX = 0, 1
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """One node and what it is given."""

    op_type: str
    arrays: Arrays
    attributes: dict[str, Any]

    def __post_init__(self) -> None:
        """Thresholds lie on no line, and there is no time, where nothing else is said."""
        names = LAYER_IN_TIME * (self.op_type != "IntegerSpike") + TRAINS * self.spikes
        for name in names:
            self.attributes.setdefault(name, 1 if name in ("input_steps", "residual_steps") else 0)
        if self.spikes:
            rows = self.arrays.get("thresholds", np.zeros((1, 1))).shape[0]
            self.arrays.setdefault("line", np.zeros((rows, 2), np.float32))

    @property
    def spikes(self) -> bool:
        return "Spike" in self.op_type


def sums(case: Case) -> np.ndarray:
    """What the thresholds are compared with."""
    if case.op_type == "IntegerSpike":
        return case.arrays["sums"].astype(np.int64)
    arrays = {name: case.arrays[name] for name in LAYER}
    attributes = {name: value for name, value in case.attributes.items() if name not in ("highest", *TRAINS)}
    layer = sums_of_convolution if case.op_type.endswith("Conv") else sums_of_product
    return layer(**arrays, **attributes)


def reference(case: Case) -> np.ndarray:
    reached = sums(case)
    if not case.spikes:
        return reached.astype(np.int32)
    counts = count_of(reached, case.arrays["thresholds"])
    return trains_of(counts, **{name: case.attributes[name] for name in TRAINS})


def model(case: Case, constants: tuple[str, ...] = (), declared: dict[str, list[Any]] | None = None) -> onnx.ModelProto:
    """One node; inputs named in `constants` are initializers, those in `declared` have a shape."""
    names = INPUTS[case.op_type]
    node = helper.make_node(case.op_type, names, ["output"], domain=DOMAIN, **case.attributes)

    def value(name: str) -> onnx.ValueInfoProto:
        array = case.arrays[name]
        shape = (declared or {}).get(name, [None] * array.ndim)
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), shape)

    kind = onnx.TensorProto.UINT8 if case.spikes else onnx.TensorProto.INT32
    graph = helper.make_graph(
        [node],
        "one",
        [value(name) for name in names if name not in constants],
        [helper.make_tensor_value_info("output", kind, None)],
        [onnx.numpy_helper.from_array(case.arrays[name], name) for name in constants],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, VERSION)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def session(one: onnx.ModelProto, threads: int = 1) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    register(options)
    return onnxruntime.InferenceSession(one.SerializeToString(), options, providers=["CPUExecutionProvider"])


def in_kernel(case: Case, constants: tuple[str, ...] = (), threads: int = 1) -> np.ndarray:
    feeds = {name: array for name, array in case.arrays.items() if name not in constants}
    return session(model(case, constants), threads).run(None, feeds)[0]


def thresholds_for(draw: np.random.Generator, rows: int, highest: int, reached: np.ndarray) -> np.ndarray:
    """Tables of every kind around sums that do occur: evenly spaced, nearly so, uneven, equal, unreachable."""
    table = np.zeros((rows, highest), np.int64)
    least, most = (int(reached.min()), int(reached.max())) if reached.size else (-5, 5)
    near = draw.random() < 0.3  # one that is not would have its neighbours compared as well
    for row in table:
        kind = 6 if near else draw.integers(6)
        first, last = sorted(draw.integers(least - 3, most + 4, 2))
        even = np.ceil(np.linspace(first, last, highest))
        jitter = draw.integers(-1, 2, highest) * max(1, (last - first) // (4 * highest))
        if kind == 6:
            row[:] = np.maximum.accumulate(even + jitter)
        else:
            row[:] = even if kind < 3 else np.sort(draw.integers(least - 3, most + 4, highest))
        if kind in (2, 4):
            row[draw.integers(highest + 1) :] = np.iinfo(np.int32).max
        if kind == 5:
            row[: draw.integers(highest + 1)] = np.iinfo(np.int32).min
    return np.clip(table, np.iinfo(np.int32).min, np.iinfo(np.int32).max).astype(np.int32)


def random_train(draw: np.random.Generator, highest: int) -> dict[str, int]:
    """Attributes of trains, or of no trains, that carry counts up to `highest`."""
    if draw.random() < 0.4:
        return {}
    silent = int(draw.choice([0, draw.integers(highest + 1)]))
    reach = max(silent, highest - silent)
    coding = int(draw.integers(2))
    steps = reach if coding == RATE else int(reach).bit_length() + int(draw.choice([0, 0, 1, 12]))
    return {"steps": steps, "coding": coding, "silent": silent}


def random_time(draw: np.random.Generator) -> dict[str, int]:
    """Attributes of an input in time, mostly of digits that are 0 or 1 or signed."""
    coding = int(draw.integers(2))
    steps = int(draw.integers(1, 9)) if draw.random() < 0.9 else 16 if coding == RADIX else 300
    zero = int(draw.choice([0, 0, 1]))
    highest = zero + 1 if draw.random() < 0.8 else int(draw.integers(1, 256))
    return {
        "input_steps": steps,
        "input_coding": coding,
        "residual_steps": int(draw.choice([1, steps])),
        "zero": zero,
        "highest": highest,
    }


def random_case(draw: np.random.Generator) -> Case:
    """A node of any of the five operators, of any geometry, whose sums int32 holds."""
    while True:
        case = any_case(draw)
        if np.abs(sums(case)).max(initial=0) < 2**31:
            return case


def any_case(draw: np.random.Generator) -> Case:
    op_type = str(draw.choice(list(INPUTS), p=[0.5, 0.15, 0.2, 0.1, 0.05]))
    highest = int(draw.choice([1, 2, 8, 15, 127, 255]))
    if op_type == "IntegerSpike":
        shape = tuple(int(size) for size in draw.integers(1, 40, draw.integers(1, 4)))
        spread = int(draw.choice([10, 1000, 2**31 - 1]))
        array = draw.integers(-spread, spread, shape, np.int32, endpoint=True)
        rows = 1 if draw.random() < 0.3 else shape[-1]
        count = int(draw.choice([1, 3, 8, 40, 255]))
        tables = {"sums": array, "thresholds": thresholds_for(draw, rows, count, array)}
        return Case(op_type, tables, random_train(draw, count) if len(shape) > 1 else {})

    attributes: dict[str, Any] = {"zero": int(draw.choice([0, 0, 1, 128, 255])), "highest": highest}
    timed = draw.random() < 0.5
    if timed:
        attributes |= random_time(draw)
        highest = attributes["highest"]
    steps = attributes.get("input_steps", 1)
    arrays: Arrays = {}
    if op_type.endswith("Gemm"):
        channels, outputs = int(draw.integers(1, 150)), int(draw.integers(1, 150))
        shape = (*draw.integers(1, 20, draw.integers(timed, 3)), channels)
        shape = (steps * shape[0], *shape[1:]) if timed else shape
        arrays["counts"] = draw.integers(0, highest, shape, np.uint8, endpoint=True)
        window: tuple[int, ...] = (outputs, channels)
    else:
        kind = draw.choice(["dense", "depthwise", "groups"], p=[0.5, 0.35, 0.15])
        group = {"dense": 1, "depthwise": int(draw.integers(2, 150)), "groups": int(draw.integers(2, 6))}[str(kind)]
        each = 1 if kind == "depthwise" else int(draw.integers(1, 24 if group > 1 else 70))
        many = 1 if kind == "depthwise" else int(draw.integers(1, 24 if group > 1 else 90))
        kernel = [int(draw.choice([1, 1, 2, 3, 3, 5, 7])) for _ in range(2)]
        attributes["group"] = group
        attributes["strides"] = [int(draw.choice([1, 1, 2, 3])) for _ in range(2)]
        attributes["dilations"] = [int(draw.choice([1, 1, 1, 2, 3])) for _ in range(2)]
        attributes["pads"] = [int(pad) for pad in draw.choice([0, 0, 1, 2, 4], 4)]
        if draw.random() < 0.3:
            attributes["pads"] = [0] * 4
        spans = [(size - 1) * d + 1 for size, d in zip(kernel, attributes["dilations"], strict=True)]
        padded = np.add(attributes["pads"][:2], attributes["pads"][2:])
        size = [int(max(1, span - pad) + draw.integers(0, 18)) for span, pad in zip(spans, padded, strict=True)]
        shape = (steps * int(draw.integers(1, 4)), *size, group * each)
        arrays["counts"] = draw.integers(0, highest, shape, np.uint8, endpoint=True)
        window = (group * many, each, *kernel)
    outputs = window[0]
    arrays["weights"] = draw.integers(-128, 127, window, np.int8, endpoint=True)
    if draw.random() < 0.4:  # the largest sums that there are
        arrays["weights"] = np.where(draw.random(window) < 0.5, np.int8(127), np.int8(-128))
        arrays["weights"] = np.broadcast_to(arrays["weights"][:1], window).copy()
        arrays["counts"] = np.full_like(arrays["counts"], highest)
    elif draw.random() < 0.3:
        arrays["weights"] = draw.integers(-7, 7, window, np.int8, endpoint=True)
    small = 7 if draw.random() < 0.5 else 1
    arrays["bias"] = draw.integers(-3000, 3000, outputs, np.int32)
    lowest = -small if draw.random() < 0.5 else 1
    arrays["factor"] = draw.integers(lowest, small, outputs, np.int32, endpoint=True)
    arrays["multiplier"] = draw.integers(-100, 100, outputs, np.int32)

    attributes["residual_zero"] = 0
    arrays["residual"] = np.zeros(1, np.uint8)
    blank = Case(op_type, dict(arrays), attributes | {"residual_steps": 1})
    reached = sums(blank)
    in_time = attributes.get("residual_steps", 1) > 1
    added = draw.choice(["counts", "sums"] if in_time else ["none", "one", "one32", "counts", "sums"])
    whole = (steps * reached.shape[0], *reached.shape[1:]) if in_time else reached.shape
    if added in ("one", "counts"):
        attributes["residual_zero"] = int(draw.choice([0, 1, 128]))
        size_of = (1,) * reached.ndim if added == "one" else whole
        arrays["residual"] = draw.integers(0, 255, size_of, np.uint8, endpoint=True)
    elif added in ("one32", "sums"):
        size_of = (1,) * reached.ndim if added == "one32" else whole
        arrays["residual"] = draw.integers(-9999, 9999, size_of, np.int32)
    if blank.spikes:
        rows = 1 if draw.random() < 0.25 else outputs
        count = int(draw.choice([1, 2, 8, 16, 60, 255], p=[0.1, 0.1, 0.4, 0.2, 0.1, 0.1]))
        arrays["thresholds"] = thresholds_for(draw, rows, count, sums(Case(op_type, dict(arrays), attributes)))
        attributes |= random_train(draw, count) if reached.ndim > 1 else {}
    return Case(op_type, arrays, attributes)


def random_constants(draw: np.random.Generator, case: Case) -> tuple[str, ...]:
    """Which inputs are initializers: mostly all tables, sometimes any."""
    names = [name for name in INPUTS[case.op_type] if name not in ("counts", "sums")]
    if draw.random() < 0.75:
        return tuple(name for name in names if name != "residual" or case.arrays["residual"].size == 1)
    return tuple(name for name in names if draw.random() < 0.5)
