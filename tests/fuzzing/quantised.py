"""Random quantised networks as their integers find them hard: odd shapes, extreme scales, dead channels, residual sums.

Each tensor has a guess of its size, by which thresholds are chosen so that codes vary, and of how large the integers of
it are, so that few sums leave float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import hypot, prod
from typing import Any

import numpy as np
import onnx

from pconv_onnx.basics.choices import CODINGS

from .grown import Grower

Array = np.ndarray[Any, np.dtype[Any]]
Options = dict[str, Any]
_SAMPLES = 3
# A tensor whose integers are larger by the guess is not grown, nor one of more elements.
_MOST_REACH, _MOST_ELEMENTS = 2**21, 800
_WIDE = (16, 16, 32, 5)
# Trains of `rate` are as long as there are levels.
_MOST_OF_RATE, _MOST_LEVELS = 15, 255
# The guess of what weights are on average, of their largest.
_SHARE = 0.3
# By what the guess of a sum grows, whose summands get one unit.
_COMMON = 8


@dataclass(frozen=True)
class Signal:
    """A tensor of the network: its shape without the batch, the guesses, and whether it comes from an activation."""

    name: str
    shape: tuple[int, ...]
    size: float
    reach: float
    codes: bool = False


def quantised(seed: int) -> tuple[onnx.ModelProto, dict[str, Array], Options]:
    """A network with at least one activation, inputs for it, and how it is rewritten; the same for the same seed."""
    grower = QuantisedGrower(seed)
    grower.activated(conv(grower, grower.inputs[0]))
    for _ in range(int(grower.random.integers(1, 7))):
        _GROWTHS[grower.random.integers(len(_GROWTHS))](grower)
    if grower.random.random() < 0.6:
        head(grower)
    return grower.model(), grower.feed(), grower.options


class QuantisedGrower(Grower):
    """A quantised network that grows node by node, and how it is rewritten."""

    def __init__(self, seed: int) -> None:
        """Begin with the input."""
        super().__init__(seed)
        weights, coding = str(self.random.choice(["int8", "int4"])), str(self.random.choice(CODINGS))
        self.highest = 127 if weights == "int8" else 7
        self.most_levels = _MOST_OF_RATE if coding == "rate" else _MOST_LEVELS
        self.wide = self.random.random() < 0.15
        scale = 10.0 ** self.random.uniform(-3, 3)
        low = -self.random.random() if self.random.random() < 0.6 else 0.0
        input_range = (float(low * scale), float(self.random.uniform(0.01, 1) * scale))
        self.options = {"coding": coding, "weights": weights, "input_bits": 8, "input_range": input_range}
        axes = 1 if self.random.random() < 0.15 else 2
        shape = (int(self.random.integers(1, 7)), *map(int, self.random.integers(4, 5 if self.wide else 10, axes)))
        self.inputs = [Signal("x", shape, scale / 2, 255)]
        self.tensors = list(self.inputs)

    def chosen(self, fits: Callable[[Signal], bool]) -> Signal | None:
        """One of the tensors that fit, later ones more often."""
        fitting = [signal for signal in self.tensors if fits(signal)]
        index = max(self.random.integers(len(fitting), size=2)) if fitting else 0
        return fitting[index] if fitting else None

    def channels(self) -> int:
        """How many channels a layer gives: few, or as many as onnxruntime has a layout of its own for."""
        return int(self.random.choice(_WIDE) if self.wide else self.random.integers(1, 7))

    def spatial(self, most_reach: float = 300) -> Signal | None:
        """One of the tensors with pixels; integers in it are not larger than that."""
        return self.chosen(lambda signal: len(signal.shape) > 1 and signal.reach <= most_reach)

    def put(self, op_type: str, inputs: list[str], like: Signal, **attributes: Any) -> Signal:
        """A node, whose output is like that signal."""
        signal = replace(like, name=self.node(op_type, inputs, **attributes)[0])
        self.tensors.append(signal)
        return signal

    def linear(self, op_type: str, x: Signal, weights: Array, shape: tuple[int, ...], **attributes: Any) -> Signal:
        """A layer with such weights `[C, n, …]`, once they are scaled; with a bias or none."""
        fan_in = weights[0].size
        size = 10.0 ** self.random.uniform(-6, 6) if self.random.random() < 0.15 else 1.0
        factor = size / (x.size * np.sqrt(fan_in))
        inputs = [x.name, self.weight((weights * factor).astype(np.float32))]
        if self.random.random() < 0.6:
            inputs.append(self.weight(self.bias(len(weights), size)))
        reach = x.reach * self.highest * fan_in * _SHARE
        return self.put(op_type, inputs, Signal("", shape, size, reach), **attributes)

    def bias(self, channels: int, size: float) -> Array:
        """A bias; now and then one far larger than what it is added to, or zero in some channels."""
        values = self.random.normal(0, size, channels) * (self.random.random(channels) < 0.8)
        return (values * self.random.choice([0.3, 0.3, 1, 100])).astype(np.float32)

    def rows(self, *shape: int) -> Array:
        """Weights of a standard deviation of 1, but that channels may differ, be dead or all but dead."""
        weights = self.random.normal(0, 1, shape)
        if self.random.random() < 0.3:
            weights *= self.random.random(shape) < 0.4
        columns = (len(weights), *[1] * (len(shape) - 1))
        if self.random.random() < 0.3:
            weights *= 10.0 ** self.random.uniform(-1, 1, columns)
        if self.random.random() < 0.2:
            weights *= self.random.choice([0, 1e-6, 1e-3, 1, 1, 1], columns)
        return np.asarray(weights)

    def activated(self, x: Signal) -> Signal:
        """A quantised activation behind a tensor."""
        most = self.most_levels if self.random.random() < 0.1 else min(self.most_levels, 15)
        levels = int(self.random.integers(1, most + 1))
        per_channel = self.random.random() < 0.4
        shape = (x.shape[0], *[1] * (len(x.shape) - 1)) if per_channel else ()
        size = x.size * (10.0 ** self.random.uniform(-2, 2) if self.random.random() < 0.1 else 1.0)
        theta = np.asarray(size * self.random.uniform(0.5, 3, shape), np.float32)
        below = int(self.random.integers(1, levels + 1)) if self.random.random() < 0.3 else 0
        kind = self.random.random()
        if kind < 0.15 and self.most_levels == _MOST_LEVELS:
            name, levels = self.rounded_to_bytes(x.name, np.asarray(theta.reshape(-1)[0])), 255
        elif kind < 0.25:
            name = self.counted(x.name, theta, levels, below)
        elif below or kind < 0.6:
            name = self.uniform(x.name, theta / np.float32(levels), -below, levels - below)
        else:
            name = self.qcfs(x.name, theta, levels)
        signal = Signal(name, x.shape, float(np.mean(theta)) / 2, max(below, levels - below), codes=True)
        self.tensors.append(signal)
        return signal

    def counted(self, x: str, theta: Array, levels: int, below: int) -> str:
        """Thresholds of any spacing, some twice or out of reach, compared with and counted; with a level of zero."""
        table = self.random.uniform(-below / levels, 1 - below / levels, (*theta.shape, levels))
        table[..., -1] = self.random.choice([table[..., -1].max(), 1, np.inf])
        last, step = self.weight(np.array([-1])), theta / np.float32(levels)
        table = (np.sort(table) * theta[..., np.newaxis]).astype(np.float32)
        (y,) = self.node("GreaterOrEqual", [*self.node("Unsqueeze", [x, last]), self.weight(table)])
        (y,) = self.node("ReduceSum", [*self.node("Cast", [y], to=onnx.TensorProto.FLOAT), last], keepdims=0)
        (y,) = self.node("Mul", [y, self.weight(step)])
        return self.node("Add", [y, self.weight(np.float32(-below) * step)])[0] if below else y

    def rounded_to_bytes(self, x: str, theta: Array) -> str:
        """QuantizeLinear and DequantizeLinear, of either type of 8 bits."""
        signed = self.random.random() < 0.5
        zero = np.int8(0) if signed else np.uint8(self.random.choice([0, 0, 128]))
        parts = [self.weight(theta / np.float32(127 if signed or zero else 255)), self.weight(np.asarray(zero))]
        return self.node("DequantizeLinear", self.node("QuantizeLinear", [x, *parts]) + parts)[0]

    def feed(self) -> dict[str, Array]:
        """Samples in the range and a little beyond, some on the grid of codes or halfway; one of its ends alone."""
        low, high = self.options["input_range"]
        beyond, step = 0.1 * (high - low), (high - low) / 255 / 2
        values = self.random.uniform(low - beyond, high + beyond, (_SAMPLES, *self.inputs[0].shape))
        values = np.where(self.random.random(values.shape) < 0.3, np.rint(values / step) * step, values)
        values[-1] = np.where(values[-1] < self.random.uniform(low - beyond, high + beyond), low, high)
        return {"x": values.astype(np.float32)}


Growth = Callable[[QuantisedGrower], object]


def conv(grower: QuantisedGrower, x: Signal) -> Signal:
    """A convolution: grouped, depthwise, strided, dilated, padded on some sides; or one that keeps the shape."""
    channels, pixels = x.shape[0], x.shape[1:]
    group = int(grower.random.choice([g for g in (1, 1, 2, channels) if channels % g == 0]))
    kernel = [int(size) for size in grower.random.integers(1, 4, len(pixels))]
    strides, dilations = ([int(v) for v in grower.random.choice([1, 1, 2], len(pixels))] for _ in range(2))
    pads = [int(grower.random.integers(0, kernel[index % len(kernel)])) for index in range(2 * len(kernel))]
    shape = tuple(
        (n + before + after - d * (k - 1) - 1) // s + 1
        for n, before, after, d, k, s in zip(
            pixels, pads, pads[len(kernel) :], dilations, kernel, strides, strict=False
        )
    )
    if min(shape) < 1 or x.reach * channels // group * prod(kernel) > _MOST_REACH:
        return same_conv(grower, x, grower.channels())
    outputs = group * max(1, grower.channels() // group)
    weights = grower.rows(outputs, channels // group, *kernel)
    where = {"group": group, "kernel_shape": kernel, "strides": strides, "dilations": dilations, "pads": pads}
    return normalised(grower, grower.linear("Conv", x, weights, (outputs, *shape), **where))


def same_conv(grower: QuantisedGrower, x: Signal, outputs: int, stride: int = 1) -> Signal:
    """A convolution that keeps the number of pixels, or halves it, rounded up."""
    channels, pixels = x.shape[0], x.shape[1:]
    kernel = int(grower.random.choice([1, 3])) if x.reach < 300 else 1
    group = channels if outputs == channels and grower.random.random() < 0.2 else 1
    weights = grower.rows(outputs, channels // group, *[kernel] * len(pixels))
    where = {"kernel_shape": [kernel] * len(pixels), "strides": [stride] * len(pixels), "group": group}
    if grower.random.random() < 0.3:
        where["auto_pad"] = str(grower.random.choice(["SAME_UPPER", "SAME_LOWER"]))
    else:
        where["pads"] = [kernel // 2] * 2 * len(pixels)
    return normalised(grower, grower.linear("Conv", x, weights, (outputs, *(-(-n // stride) for n in pixels)), **where))


def normalised(grower: QuantisedGrower, x: Signal) -> Signal:
    """A batch normalisation behind a convolution, or none."""
    if grower.random.random() < 0.7 or grower.opset < 14:
        return x
    channels = x.shape[0]
    gain = grower.random.uniform(0.2, 2, channels) * grower.random.choice([1, 1, 1, -1], channels)
    parts = [gain, grower.random.normal(0, 0.5, channels), x.size * grower.random.normal(0, 0.3, channels)]
    parts.append(x.size**2 * grower.random.uniform(0.5, 2, channels))
    names = [grower.weight(part.astype(np.float32)) for part in parts]
    epsilon = 1e-5 if x.size > 0.1 else 0.0
    return grower.put("BatchNormalization", [x.name, *names], replace(x, size=1.0), epsilon=epsilon)


def layer(grower: QuantisedGrower) -> None:
    """A convolution, mostly behind an activation, and mostly with one behind it; else a linear bottleneck."""
    x = grower.spatial(300 if grower.random.random() < 0.8 else _MOST_REACH / grower.highest / 8)
    if x is not None:
        y = conv(grower, x)
        if grower.random.random() < 0.85:
            grower.activated(y)


def residual(grower: QuantisedGrower) -> None:
    """Sums of an activation and a convolution, of two, of all three, of two activations; with Add, Sum or Sub."""
    x = grower.spatial()
    if x is None:
        return
    kind = str(grower.random.choice(["skip", "both", "three", "codes", "strided"]))
    inner = grower.activated(same_conv(grower, x, grower.channels()))
    if kind == "skip":
        terms = [x, same_conv(grower, inner, x.shape[0])]
    elif kind == "both":
        outputs, stride = grower.channels(), int(grower.random.choice([1, 2]))
        terms = [same_conv(grower, one, outputs, stride) for one in (x, inner)]
    elif kind == "three":
        terms = [x, same_conv(grower, x, x.shape[0]), same_conv(grower, inner, x.shape[0])]
    elif kind == "codes":
        terms = [x, grower.activated(same_conv(grower, inner, x.shape[0]))]
    else:
        short = shortened(grower, x)
        terms = [short, same_conv(grower, inner, short.shape[0], 2)]
    y = summed(grower, terms)
    if grower.random.random() < 0.9:
        grower.activated(y)


def shortened(grower: QuantisedGrower, x: Signal) -> Signal:
    """The shortcut without weights: every other pixel, and channels of zeros."""
    axes = np.arange(1, len(x.shape)) + 1
    parts = [np.zeros(len(axes), np.int64), np.full(len(axes), 2**31 - 1), axes, np.full(len(axes), 2)]
    pixels = tuple(-(-n // 2) for n in x.shape[1:])
    y = grower.put("Slice", [x.name, *map(grower.weight, parts)], replace(x, shape=(x.shape[0], *pixels)))
    before, after = map(int, grower.random.integers(0, 3, 2))
    if not before + after:
        return y
    pads = np.zeros((2, len(x.shape) + 1), np.int64)
    pads[:, 1] = before, after
    shape = (x.shape[0] + before + after, *pixels)
    return grower.put("Pad", [y.name, grower.weight(pads.reshape(-1))], replace(y, shape=shape))


def summed(grower: QuantisedGrower, terms: list[Signal]) -> Signal:
    """Their sum, in one operator or several."""
    order = [terms[index] for index in grower.random.permutation(len(terms))]
    size, reach = hypot(*(term.size for term in terms)), sum(term.reach for term in terms) * _COMMON
    like = Signal("", terms[0].shape, size, reach)
    if grower.random.random() < 0.3:
        return grower.put("Sum", [term.name for term in order], like)
    y = order[0]
    for term in order[1:]:
        y = grower.put("Sub" if grower.random.random() < 0.15 else "Add", [y.name, term.name], like)
    return y


def again(grower: QuantisedGrower) -> None:
    """An activation behind any tensor, another activation's too."""
    x = grower.chosen(lambda signal: signal.name != "x")
    if x is not None:
        grower.activated(x)


def beside(grower: QuantisedGrower) -> None:
    """Channels of two tensors, one behind the other, and mostly a layer that reads them."""
    x = grower.spatial()
    y = grower.chosen(lambda signal: x is not None and signal.shape[1:] == x.shape[1:] and signal.reach < 300)
    if x is None or y is None or (x.shape[0] + y.shape[0]) * prod(x.shape[1:]) > _MOST_ELEMENTS:
        return
    like = Signal("", (x.shape[0] + y.shape[0], *x.shape[1:]), max(x.size, y.size), max(x.reach, y.reach))
    both = grower.put("Concat", [x.name, y.name], like, axis=1)
    if grower.random.random() < 0.7:
        grower.activated(conv(grower, both))


def pool(grower: QuantisedGrower) -> None:
    """The largest or the mean of windows."""
    x = grower.spatial(300 if grower.random.random() < 0.8 else _MOST_REACH / 16)
    if x is None or min(x.shape[1:]) < 2:
        return
    axes, op_type = len(x.shape) - 1, str(grower.random.choice(["MaxPool", "MaxPool", "AveragePool"]))
    stride, kernel = int(grower.random.choice([1, 2])), int(grower.random.choice([2, 2, 3]))
    padded = int(op_type == "MaxPool" and grower.random.random() < 0.4)
    if min(x.shape[1:]) < kernel:
        return
    pixels = tuple((n + padded - kernel) // stride + 1 for n in x.shape[1:])
    reach = x.reach * kernel**axes if op_type == "AveragePool" else x.reach
    where = {"kernel_shape": [kernel] * axes, "strides": [stride] * axes, "pads": [padded] * axes + [0] * axes}
    grower.put(op_type, [x.name], Signal("", (x.shape[0], *pixels), x.size, reach), **where)


def moved(grower: QuantisedGrower) -> None:
    """What keeps integers: Relu, halves that change places, a border of zeros, Identity."""
    x = grower.spatial()
    if x is None:
        return
    kind = str(grower.random.choice(["Relu", "Identity", "Split", "Pad", "Transpose"]))
    if kind in ("Relu", "Identity"):
        grower.put(kind, [x.name], x)
    elif kind == "Split" and x.shape[0] > 1:
        sizes = [int(grower.random.integers(1, x.shape[0]))]
        halves = grower.node("Split", [x.name, grower.weight(np.array([*sizes, x.shape[0] - sizes[0]]))], 2, axis=1)
        grower.put("Concat", halves[::-1], x, axis=1)
    elif kind == "Pad":
        ends = [0, 0, *grower.random.integers(0, 2, len(x.shape) - 1)]
        shape = (x.shape[0], *(n + int(end) for n, end in zip(x.shape[1:], ends[2:], strict=True)))
        pads = grower.weight(np.array([0] * len(ends) + ends, np.int64))
        grower.put("Pad", [x.name, pads], replace(x, shape=shape))
    elif kind == "Transpose" and len(x.shape) == 3:
        grower.put("Transpose", [x.name], replace(x, shape=(x.shape[0], x.shape[2], x.shape[1])), perm=[0, 1, 3, 2])


def head(grower: QuantisedGrower) -> None:
    """Rows, from all pixels or their mean, and a layer or two of them."""
    x = grower.spatial()
    if x is None:
        return
    if grower.random.random() < 0.6:
        pixels = prod(x.shape[1:])
        x = grower.put(
            "GlobalAveragePool",
            [x.name],
            replace(x, shape=(x.shape[0], *[1] * (len(x.shape) - 1)), reach=x.reach * pixels),
        )
    row = (prod(x.shape),)
    if grower.random.random() < 0.5:
        x = grower.put("Flatten", [x.name], replace(x, shape=row))
    else:
        x = grower.put("Reshape", [x.name, grower.weight(np.array([-1, *row]))], replace(x, shape=row))
    if grower.random.random() < 0.4:
        x = grower.activated(dense(grower, x))
    dense(grower, x)


def dense(grower: QuantisedGrower, x: Signal) -> Signal:
    """Gemm, or MatMul and Add."""
    weights = grower.rows(int(grower.random.integers(1, 7)), x.shape[0])
    shape = (len(weights),)
    if grower.random.random() < 0.5:
        return grower.linear("Gemm", x, weights, shape, transB=1)
    factor = 1 / (x.size * np.sqrt(x.shape[0]))
    reach = x.reach * grower.highest * x.shape[0] * _SHARE
    matrix = grower.weight((weights.T * factor).astype(np.float32))
    y = grower.put("MatMul", [x.name, matrix], Signal("", shape, 1.0, reach))
    return grower.put("Add", [y.name, grower.weight(grower.bias(len(weights), 1.0))], y)


_GROWTHS: tuple[Growth, ...] = (
    layer, layer, layer, layer, residual, residual, residual, beside, pool, pool, moved, again,
)  # fmt: skip
