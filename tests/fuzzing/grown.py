"""Random networks of supported operators in which all arithmetic is exact, so that every right answer has one value.

Weights, thresholds and inputs are multiples of powers of two. Each tensor has a bound on its magnitude and the finest
power of two that its values are multiples of; an operator that could take it, or its trains in any coding, beyond the
24 bits of float32 is not chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, np.dtype[Any]]
# Spikes of binary digits are worth up to 2T times what the train stands for, and T steps are summed.
_BITS = 19
_OUTPUTS = 6
_OPSETS = (13, 15, 17, 18, 20, 21)


@dataclass(frozen=True)
class Tensor:
    """A tensor of the network: its name, its shape without the batch, `|x| ≤ bound`, `x · 2^fine` whole."""

    name: str
    shape: tuple[int, ...]
    bound: float
    fine: int

    @property
    def exact(self) -> bool:
        """Whether float32 holds every value, and sums of a few of them."""
        return self.bound * 2**self.fine < 2**_BITS


class Grower:
    """A network that grows node by node."""

    def __init__(self, seed: int) -> None:
        """Begin with the inputs."""
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, Array] = {}
        self.functions: list[onnx.FunctionProto] = []
        self.named = 0
        self.opset = int(self.random.choice(_OPSETS))
        size, channels = int(self.random.choice([4, 8])), int(self.random.integers(1, 5))
        self.inputs = [Tensor("x", (channels, size, size), 4.0, 3)]
        if self.random.random() < 0.2:
            self.inputs.append(Tensor("second", (channels, size, size), 4.0, 3))
        self.tensors = list(self.inputs)
        self.activations = 0

    def node(self, op_type: str, inputs: list[str], outputs: int = 1, **attributes: Any) -> list[str]:
        """Add a node; the names of its outputs."""
        self.named += 1
        names = [f"t{self.named}_{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(op_type, inputs, names, f"{op_type}/{self.named}", **attributes))
        return names

    def weight(self, values: Array) -> str:
        """Add an initializer."""
        self.named += 1
        name = f"w{self.named}"
        self.weights[name] = values
        return name

    def dyadic(self, *shape: int, most: int = 4, fine: int = 2) -> Array:
        """Multiples of `2^-fine` of magnitude up to `most · 2^-fine`, many of them zero."""
        values = self.random.integers(-most, most + 1, shape) * (self.random.random(shape) < 0.7)
        return (values / 2**fine).astype(np.float32)

    def pick(self, rank: int | None = None) -> Tensor:
        """One of the tensors, later ones more often."""
        fitting = [tensor for tensor in self.tensors if rank is None or len(tensor.shape) == rank]
        fitting = fitting or self.tensors
        return fitting[max(self.random.integers(len(fitting)), self.random.integers(len(fitting)))]

    def add(self, tensor: Tensor) -> bool:
        """Keep a tensor if it is exact and not too large; whether it is."""
        if not tensor.exact or prod(tensor.shape) > 4096 or 0 in tensor.shape:
            return False
        self.tensors.append(tensor)
        return True

    def activate(self) -> None:
        """Put a quantised activation behind a tensor."""
        x = self.pick()
        per_channel = len(x.shape) == 3 and self.random.random() < 0.4
        shape = (x.shape[0], 1, 1) if per_channel else ()
        if self.random.random() < 0.3:
            x = Tensor(
                self.node("Add", [x.name, self.weight(self.dyadic(*shape))])[0], x.shape, x.bound + 1, max(x.fine, 2)
            )
            if not x.exact:
                return
        if self.random.random() < 0.6:
            levels = 2 ** int(self.random.integers(0, 5))
            theta = np.float32(2.0) ** self.random.integers(-1, 3, shape).astype(np.float32)
            y = self.qcfs(x.name, np.asarray(theta, np.float32), levels)
            fine = levels.bit_length() - 1 + 1
        else:
            levels = int(self.random.integers(1, 20) if self.random.random() < 0.8 else self.random.integers(20, 256))
            below = int(self.random.integers(1, levels + 1)) if self.random.random() < 0.4 else 0
            step = np.asarray(np.float32(2.0) ** self.random.integers(-3, 0, shape).astype(np.float32))
            theta, fine = step * max(below, levels - below), 3
            y = self.uniform(x.name, step, -below, levels - below)
        self.activations += 1
        self.add(Tensor(y, x.shape, float(np.max(theta)), fine))

    def qcfs(self, x: str, theta: Array, levels: int) -> str:
        """`θ · clip(⌊x/θ · L + 1/2⌋ / L, 0, 1)`."""
        count, half = self.weight(np.array(levels, np.float32)), self.weight(np.array(0.5, np.float32))
        threshold = self.weight(theta)
        ends = [self.weight(np.array(end, np.float32)) for end in (0, 1)]
        (y,) = self.node("Div", [x, threshold])
        (y,) = self.node("Mul", [y, count])
        (y,) = self.node("Add", [y, half])
        (y,) = self.node("Floor", [y])
        (y,) = self.node("Div", [y, count])
        (y,) = self.node("Clip", [y, *ends])
        return self.node("Mul", [y, threshold])[0]

    def uniform(self, x: str, step: Array, low: int, high: int) -> str:
        """`s · clip(round(x/s), low, high)`."""
        scale = self.weight(step)
        ends = [self.weight(np.array(end, np.float32)) for end in (low, high)]
        (y,) = self.node("Div", [x, scale])
        if self.random.random() < 0.5:
            (y,) = self.node("Round", self.node("Clip", [y, *ends]))
        else:
            (y,) = self.node("Clip", self.node("Round", [y]) + ends)
        return self.node("Mul", [y, scale])[0]

    def model(self) -> onnx.ModelProto:
        """The network."""
        used = {name for node in self.nodes for name in node.input}
        # All that nothing reads, so that no part of the network is idle.
        outputs = [tensor for tensor in self.tensors if tensor.name not in used][:_OUTPUTS] or [self.tensors[-1]]
        infos = [
            [helper.make_tensor_value_info(t.name, TensorProto.FLOAT, ["N", *t.shape]) for t in tensors]
            for tensors in (self.inputs, outputs)
        ]
        tensors = [numpy_helper.from_array(value, name) for name, value in self.weights.items()]
        graph = helper.make_graph(self.nodes, "grown", *infos, tensors)
        model = helper.make_model(graph, opset_imports=self.imports(), functions=self.functions, ir_version=9)
        onnx.checker.check_model(model, full_check=True)
        return model

    def imports(self) -> list[onnx.OperatorSetIdProto]:
        """The operator sets of the network and its functions."""
        return [helper.make_opsetid("", self.opset), helper.make_opsetid("grown", 1)]

    def within(self, tensors: list[Tensor], x: Tensor) -> tuple[list[onnx.NodeProto], dict[str, Array], Tensor]:
        """Nodes and weights that grow apart from the network, on these tensors, and a new tensor of the shape of x."""
        outside, self.nodes = self.nodes, []
        pool, self.tensors = self.tensors, list(tensors)
        held = set(self.weights)
        for _ in range(int(self.random.integers(1, 5))):
            self.grow()
        fitting = [y for y in self.tensors if y not in tensors and y.shape == x.shape]
        y = fitting[-1] if fitting else Tensor(self.node("Neg", [x.name])[0], x.shape, x.bound, x.fine)
        nodes, self.nodes, self.tensors = self.nodes, outside, pool
        return nodes, {name: self.weights.pop(name) for name in self.weights.keys() - held}, y

    def grow(self) -> None:
        """Put an activation or something else behind a tensor."""
        if self.random.random() < 0.25:
            self.activate()
        else:
            _GROWTHS[self.random.integers(len(_GROWTHS))](self)

    def feed(self) -> dict[str, Array]:
        """Inputs on the grid that the bounds were reckoned with."""
        batch = int(self.random.integers(1, 4))
        return {x.name: (self.random.integers(-32, 33, (batch, *x.shape)) / 8).astype(np.float32) for x in self.inputs}


Growth = Callable[[Grower], object]


def conv(grower: Grower) -> None:
    """Convolutions: grouped, depthwise, strided, padded on some sides."""
    x = grower.pick(3)
    if len(x.shape) != 3:
        return
    channels, height, width = x.shape
    group = int(grower.random.choice([g for g in (1, channels) if channels % g == 0]))
    outputs, kernel = group * int(grower.random.integers(1, 4)), int(grower.random.choice([1, 2, 3]))
    stride = int(grower.random.choice([1, 1, 2]))
    pads = [int(pad) for pad in grower.random.integers(0, kernel, 4)]
    if min(height + pads[0] + pads[2], width + pads[1] + pads[3]) < kernel:
        return
    w, b = grower.dyadic(outputs, channels // group, kernel, kernel), grower.dyadic(outputs)
    bound = x.bound * float(np.abs(w).sum(axis=(1, 2, 3)).max()) + 1
    shape = tuple((size + before + after - kernel) // stride + 1 for size, before, after in
                  ((height, pads[0], pads[2]), (width, pads[1], pads[3])))  # fmt: skip
    inputs = [x.name, grower.weight(w)] + ([grower.weight(b)] if grower.random.random() < 0.6 else [])
    if bound * 2 ** (x.fine + 2) < 2**_BITS:
        (y,) = grower.node("Conv", inputs, group=group, pads=pads, strides=[stride] * 2, kernel_shape=[kernel] * 2)
        grower.add(Tensor(y, (outputs, *shape), bound, x.fine + 2))


def conv_transpose(grower: Grower) -> None:
    """Transposed convolution by two."""
    x = grower.pick(3)
    if len(x.shape) == 3:
        w = grower.dyadic(x.shape[0], 2, 2, 2)
        y = Tensor("", (2, 2 * x.shape[1], 2 * x.shape[2]), x.bound * x.shape[0], x.fine + 2)
        if y.exact and prod(y.shape) <= 4096:
            (name,) = grower.node("ConvTranspose", [x.name, grower.weight(w)], strides=[2, 2], kernel_shape=[2, 2])
            grower.add(Tensor(name, y.shape, y.bound, y.fine))


def pool(grower: Grower) -> None:
    """Pooling over windows and over everything."""
    x = grower.pick(3)
    if len(x.shape) != 3 or x.shape[1] % 2 or x.shape[2] % 2:
        return
    halved = (x.shape[0], x.shape[1] // 2, x.shape[2] // 2)
    kind = grower.random.choice(["MaxPool", "AveragePool", "padded", "dilated", "GlobalMaxPool", "GlobalAveragePool"])
    if kind == "padded":
        (y,) = grower.node("MaxPool", [x.name], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    elif kind == "dilated":
        (y,) = grower.node(
            "MaxPool", [x.name], kernel_shape=[2, 2], dilations=[2, 2], strides=[2, 2], pads=[1, 1, 1, 1]
        )
    elif kind.startswith("Global"):
        area = x.shape[1] * x.shape[2]
        if area & (area - 1):
            return
        y, halved = grower.node(kind, [x.name])[0], (x.shape[0], 1, 1)
        return void(grower.add(Tensor(y, halved, x.bound, x.fine + (area.bit_length() if "Average" in kind else 0))))
    else:
        (y,) = grower.node(kind, [x.name], kernel_shape=[2, 2], strides=[2, 2])
    grower.add(Tensor(y, halved, x.bound, x.fine + (2 if kind == "AveragePool" else 0)))


def void(_: object) -> None:
    """Nothing, whatever was given."""


def combine(grower: Grower) -> None:
    """Two tensors of one shape: sums, differences, products, extrema, or one beside the other."""
    x = grower.pick()
    others = [tensor for tensor in grower.tensors if tensor.shape == x.shape]
    y = others[grower.random.integers(len(others))]
    op_type = str(grower.random.choice(["Add", "Add", "Sub", "Sum", "Mean", "Mul", "Max", "Min", "Concat"]))
    fine = x.fine + y.fine if op_type == "Mul" else max(x.fine, y.fine) + (op_type == "Mean")
    bound = {"Mul": x.bound * y.bound}.get(op_type, x.bound + y.bound)
    shape = (2 * x.shape[0], *x.shape[1:]) if op_type == "Concat" else x.shape
    attributes = {"axis": 1} if op_type == "Concat" else {}
    if Tensor("", shape, bound, fine).exact and prod(shape) <= 4096:
        (name,) = grower.node(op_type, [x.name, y.name], **attributes)
        grower.add(Tensor(name, shape, bound, fine))


def gate(grower: Grower) -> None:
    """A tensor times another that has one value for all of some axes."""
    x = grower.pick()
    fitting = [y for y in grower.tensors if y.shape != x.shape and len(y.shape) == len(x.shape)
               and all(one in (1, size) for one, size in zip(y.shape, x.shape, strict=True))]  # fmt: skip
    if fitting:
        y = fitting[grower.random.integers(len(fitting))]
        z = Tensor("", x.shape, x.bound * y.bound, x.fine + y.fine)
        if z.exact:
            (name,) = grower.node("Mul", [x.name, y.name] if grower.random.random() < 0.5 else [y.name, x.name])
            grower.add(replace(z, name=name))


def scale(grower: Grower) -> None:
    """By constants: products, sums, batch normalisation."""
    x = grower.pick()
    columns = (x.shape[0], *[1] * (len(x.shape) - 1)) if grower.random.random() < 0.5 else ()
    kind = grower.random.choice(["Mul", "Div", "Add", "Sub", "from", "BatchNormalization"])
    if kind == "BatchNormalization" and grower.opset < 14:
        return  # onnx's reference (1.23) adds something else than epsilon to the variance there
    constant = grower.dyadic(*columns)
    y = Tensor("", x.shape, x.bound * 4 + 1, x.fine + 2)
    if not y.exact:
        return
    if kind == "BatchNormalization":
        parts = [grower.dyadic(x.shape[0]) for _ in range(3)] + [np.ones(x.shape[0], np.float32)]
        names = [grower.weight(part) for part in parts]
        (name,) = grower.node(kind, [x.name, *names], epsilon=0.0)
        y = Tensor("", x.shape, x.bound + 2, x.fine + 2)
    elif kind == "Div":
        power = 2.0 ** grower.random.integers(-1, 2, columns).astype(np.float32)
        (name,) = grower.node("Div", [x.name, grower.weight(np.asarray(power, np.float32))])
    elif kind == "from":
        (name,) = grower.node("Sub", [grower.weight(constant), x.name])
    else:
        (name,) = grower.node(str(kind), [x.name, grower.weight(constant)])
    grower.add(Tensor(name, x.shape, y.bound, y.fine))


def elementwise(grower: Grower) -> None:
    """Of one tensor: what commutes with time on spikes, and what never does."""
    x = grower.pick()
    attributes = {"Cast": {"to": TensorProto.FLOAT}, "LeakyRelu": {"alpha": 0.25}}
    plain = ("Relu", "Clip", "Neg", "Abs", "Identity", "Dropout", "Sign")
    op_type = str(grower.random.choice([*plain, *attributes]))
    y = Tensor("", x.shape, max(x.bound, 1), x.fine + 2 * (op_type == "LeakyRelu"))
    if not y.exact:
        return
    ends = [grower.weight(np.array(end, np.float32)) for end in (-0.5, 2)] if op_type == "Clip" else []
    (name,) = grower.node(op_type, [x.name, *ends], **attributes.get(op_type, {}))
    grower.add(replace(y, name=name))


def shape_up(grower: Grower) -> None:
    """What moves elements: transposes, slices, splits, gathers, pads, resizes, blocks."""
    x = grower.pick(3)
    if len(x.shape) != 3:
        return
    channels, height, width = x.shape
    kind = str(grower.random.choice(["transpose", "slice", "split", "gather", "pad", "resize", "block", "space"]))
    fine, bound = x.fine, x.bound
    if kind == "transpose":
        order = [int(axis) + 1 for axis in grower.random.permutation(3)]
        (name,) = grower.node("Transpose", [x.name], perm=[0, *order])
        shape = tuple(x.shape[axis - 1] for axis in order)
    elif kind == "slice":
        axis = int(grower.random.integers(1, 4))
        end = int(grower.random.integers(1, x.shape[axis - 1] + 1))
        parts = [grower.weight(np.array([part])) for part in (0, end, axis)]
        (name,) = grower.node("Slice", [x.name, *parts])
        shape = tuple(end if index + 1 == axis else size for index, size in enumerate(x.shape))
    elif kind == "split":
        if channels % 2:
            return
        sizes = grower.weight(np.array([channels // 2] * 2))
        names = grower.node("Split", [x.name, sizes], 2, axis=1)
        grower.add(Tensor(names[0], (channels // 2, height, width), bound, fine))
        name, shape = names[1], (channels // 2, height, width)
    elif kind == "gather":
        indices = grower.random.integers(0, channels, int(grower.random.integers(1, 4)))
        (name,) = grower.node("Gather", [x.name, grower.weight(indices)], axis=1)
        shape = (len(indices), height, width)
    elif kind == "pad":
        pads = [0, 0, *grower.random.integers(0, 2, 2), 0, 0, *grower.random.integers(0, 2, 2)]
        value = [] if grower.random.random() < 0.5 else [grower.weight(np.array(0.5, np.float32))]
        (name,) = grower.node("Pad", [x.name, grower.weight(np.array(pads, np.int64)), *value])
        shape, fine = (channels, height + int(pads[2] + pads[6]), width + int(pads[3] + pads[7])), max(fine, 1)
    elif kind == "resize":
        scales = grower.weight(np.array([1, 1, 2, 2], np.float32))
        nearest = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        (name,) = grower.node("Resize", [x.name, "", scales], mode="nearest", **nearest)
        shape = (channels, 2 * height, 2 * width)
    elif kind == "block":
        if channels % 4:
            return
        (name,) = grower.node("DepthToSpace", [x.name], blocksize=2)
        shape = (channels // 4, 2 * height, 2 * width)
    else:
        if height % 2 or width % 2:
            return
        (name,) = grower.node("SpaceToDepth", [x.name], blocksize=2)
        shape = (4 * channels, height // 2, width // 2)
    grower.add(Tensor(name, shape, bound, fine))


def flatten(grower: Grower) -> None:
    """To rows, by Flatten or Reshape; or to signals `[C, H·W]` by a Reshape whose number of rows is computed."""
    x = grower.pick(3)
    if len(x.shape) != 3:
        return
    kind, shape = str(grower.random.choice(["Flatten", "Reshape", "zero", "computed"])), (prod(x.shape),)
    if kind == "Flatten":
        (name,) = grower.node("Flatten", [x.name])
    elif kind == "computed":
        shape = (x.shape[0], x.shape[1] * x.shape[2])
        (rows,) = grower.node("Gather", [grower.node("Shape", [x.name])[0], grower.weight(np.array([0]))])
        (target,) = grower.node("Concat", [rows, grower.weight(np.array(shape))], axis=0)
        (name,) = grower.node("Reshape", [x.name, target])
    else:
        target = grower.weight(np.array([-1, *shape] if kind == "Reshape" else [0, -1]))
        (name,) = grower.node("Reshape", [x.name, target])
    grower.add(Tensor(name, shape, x.bound, x.fine))


def reduce(grower: Grower) -> None:
    """Sums, means and extrema over some axes, which stay or go."""
    x = grower.pick()
    op_type = str(grower.random.choice(["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin"]))
    chosen = {axis for axis in range(len(x.shape)) if grower.random.random() < 0.5} or {len(x.shape) - 1}
    count, keeps = prod(x.shape[axis] for axis in chosen), bool(grower.random.integers(2))
    if op_type == "ReduceMean" and count & (count - 1):
        return
    shape = tuple(1 if axis in chosen else size for axis, size in enumerate(x.shape) if keeps or axis not in chosen)
    bound = x.bound * count if op_type == "ReduceSum" else x.bound
    y = Tensor("", shape, bound, x.fine + (count.bit_length() if op_type == "ReduceMean" else 0))
    if y.exact and shape:
        axes = [axis + 1 for axis in sorted(chosen)]
        if grower.opset >= (13 if op_type == "ReduceSum" else 18):
            (name,) = grower.node(op_type, [x.name, grower.weight(np.array(axes))], keepdims=int(keeps))
        else:
            (name,) = grower.node(op_type, [x.name], axes=axes, keepdims=int(keeps))
        grower.add(Tensor(name, shape, y.bound, y.fine))


def choose(grower: Grower) -> None:
    """Elements of one tensor or another, by a condition that is constant or computed."""
    x = grower.pick()
    others = [tensor for tensor in grower.tensors if tensor.shape == x.shape]
    y, z = (others[grower.random.integers(len(others))] for _ in range(2))
    condition = grower.weight(grower.random.random(x.shape) < 0.5)
    if grower.random.random() < 0.5:
        (condition,) = grower.node("Greater", [z.name, grower.weight(np.array(0.25, np.float32))])
    (name,) = grower.node("Where", [condition, x.name, y.name])
    grower.add(Tensor(name, x.shape, max(x.bound, y.bound), max(x.fine, y.fine)))


def repeat(grower: Grower) -> None:
    """More of the same along an axis: Tile, and Expand of an axis of one."""
    x = grower.pick()
    axis, times = int(grower.random.integers(len(x.shape))), int(grower.random.integers(1, 4))
    factors = [times if index == axis else 1 for index in range(len(x.shape))]
    shape = tuple(size * factor for size, factor in zip(x.shape, factors, strict=True))
    sizes = grower.weight(np.array([1, *(factors if x.shape[axis] > 1 else shape)]))
    (name,) = grower.node("Tile" if x.shape[axis] > 1 else "Expand", [x.name, sizes])
    grower.add(Tensor(name, shape, x.bound, x.fine))


def axes(grower: Grower) -> None:
    """An axis of one that comes, or goes."""
    x = grower.pick()
    ones = [axis for axis, size in enumerate(x.shape) if size == 1 and len(x.shape) > 1]
    if ones:
        (name,) = grower.node("Squeeze", [x.name, grower.weight(np.array([ones[0] + 1]))])
        shape = (*x.shape[: ones[0]], *x.shape[ones[0] + 1 :])
    else:
        axis = int(grower.random.integers(len(x.shape) + 1))
        (name,) = grower.node("Unsqueeze", [x.name, grower.weight(np.array([axis + 1]))])
        shape = (*x.shape[:axis], 1, *x.shape[axis:])
    if len(shape) < 5:
        grower.add(Tensor(name, shape, x.bound, x.fine))


def contract(grower: Grower) -> None:
    """Sums of products: Einsum with a matrix, MatMul of two tensors, a convolution along signals."""
    x = grower.pick()
    kind, rank = str(grower.random.choice(["Einsum", "MatMul", "Conv"])), len(x.shape)
    if kind == "Einsum":
        rest = "hwd"[: rank - 1]
        w = grower.dyadic(int(grower.random.integers(1, 4)), x.shape[0], most=2)
        y = Tensor("", (len(w), *x.shape[1:]), x.bound * float(np.abs(w).sum(axis=1).max()) + 1, x.fine + 2)
        if y.exact:
            equation = f"nc{rest},kc->nk{rest}"
            (name,) = grower.node("Einsum", [x.name, grower.weight(w)], equation=equation)
            grower.add(Tensor(name, y.shape, y.bound, y.fine))
    elif kind == "MatMul" and rank == 3:
        others = [tensor for tensor in grower.tensors if tensor.shape == x.shape]
        other = others[grower.random.integers(len(others))]
        y = Tensor("", (*x.shape[:2], x.shape[1]), x.bound * other.bound * x.shape[2], x.fine + other.fine)
        if y.exact:
            (turned,) = grower.node("Transpose", [other.name], perm=[0, 1, 3, 2])
            (name,) = grower.node("MatMul", [x.name, turned])
            grower.add(Tensor(name, y.shape, y.bound, y.fine))
    elif kind == "Conv" and rank == 2:
        w = grower.dyadic(2, x.shape[0], 2)
        dilation = int(grower.random.integers(1, 3))
        y = Tensor("", (2, x.shape[1] - dilation), x.bound * float(np.abs(w).sum(axis=(1, 2)).max()) + 1, x.fine + 2)
        if y.exact and y.shape[1] > 0:
            (name,) = grower.node("Conv", [x.name, grower.weight(w)], dilations=[dilation], kernel_shape=[2])
            grower.add(Tensor(name, y.shape, y.bound, y.fine))


def swap(grower: Grower) -> None:
    """Rows as channels for one operator, and back."""
    x = grower.pick()
    order = [1, 0, *range(2, len(x.shape) + 1)]
    (name,) = grower.node("Transpose", [x.name], perm=order)
    op_type = str(grower.random.choice(["Neg", "Relu", "Abs", "Identity"]))
    (name,) = grower.node("Transpose", grower.node(op_type, [name]), perm=order)
    grower.add(Tensor(name, x.shape, x.bound, x.fine))


def dense(grower: Grower) -> None:
    """Gemm and MatMul of rows."""
    x = grower.pick(1)
    if len(x.shape) != 1:
        return
    outputs = int(grower.random.integers(1, 6))
    w = grower.dyadic(x.shape[0], outputs, most=2)
    y = Tensor("", (outputs,), x.bound * float(np.abs(w).sum(axis=0).max()) + 1, x.fine + 2)
    if not y.exact:
        return
    if grower.random.random() < 0.5:
        (name,) = grower.node("MatMul", [x.name, grower.weight(w)])
    else:
        (name,) = grower.node(
            "Gemm", [x.name, grower.weight(w.T.copy()), grower.weight(grower.dyadic(outputs))], transB=1
        )
    grower.add(Tensor(name, y.shape, y.bound, y.fine))


def beside(grower: Grower) -> None:
    """Activations of one tensor along its channels, whose counts reach as far, but on one side or on both."""
    x = grower.pick(3)
    reach, step = int(grower.random.integers(1, 12)), np.asarray(2.0 ** -grower.random.integers(0, 4), np.float32)
    parts = []
    for _ in range(int(grower.random.integers(2, 4))):
        ends = [reach, int(grower.random.integers(0, reach + 1))]
        below, above = grower.random.permutation(ends)
        parts.append(grower.uniform(x.name, step, -int(below), int(above)))
    grower.activations += len(parts)
    (name,) = grower.node("Concat", parts, axis=1)
    grower.add(Tensor(name, (len(parts) * x.shape[0], *x.shape[1:]), float(step) * reach, 3))


def successive(grower: Grower) -> None:
    """A current or spikes, and directly behind them what takes the one in time and the other not, or moves channels."""
    before = len(grower.tensors)
    (scale, conv, Grower.activate, Grower.activate)[grower.random.integers(4)](grower)
    if len(grower.tensors) > before:
        # Without the others it is the one that is picked.
        others, grower.tensors = grower.tensors, grower.tensors[-1:]
        behind = (pool, elementwise, reduce, combine, shape_up, shape_up, flatten, axes, repeat)
        behind[grower.random.integers(len(behind))](grower)
        grower.tensors = others + grower.tensors[1:]


def branch(grower: Grower) -> None:
    """An If whose condition is computed. Branches may share names, and hold their constants or find them outside."""
    x = grower.pick()
    (peak,) = grower.node("ReduceMax", [x.name], keepdims=0)
    (condition,) = grower.node("Greater", [peak, grower.weight(np.array(grower.random.integers(-2, 3), np.float32))])
    bodies, results = {}, []
    shared, first, last = grower.random.random() < 0.5, grower.named, grower.named
    for name in ("then_branch", "else_branch"):
        if shared:
            grower.named = first
        nodes, weights, y = grower.within(grower.tensors, x)
        last = max(last, grower.named)
        if not shared and grower.random.random() < 0.5:
            grower.weights |= weights
            weights = {}
        info = helper.make_tensor_value_info(y.name, TensorProto.FLOAT, ["N", *y.shape])
        tensors = [numpy_helper.from_array(value, key) for key, value in weights.items()]
        bodies[name] = helper.make_graph(nodes, name, [], [info], tensors)
        results.append(y)
    grower.named = last
    (name,) = grower.node("If", [condition], **bodies)
    grower.add(Tensor(name, x.shape, max(y.bound for y in results), max(y.fine for y in results)))


def function(grower: Grower) -> None:
    """A model-local function, called once or twice."""
    x = grower.pick()
    parameter = Tensor("x", x.shape, x.bound, x.fine)
    nodes, weights, y = grower.within([parameter], parameter)
    constants = [
        helper.make_node("Constant", [], [key], value=numpy_helper.from_array(value)) for key, value in weights.items()
    ]
    op_type = f"Function{len(grower.functions)}"
    grower.functions.append(
        helper.make_function("grown", op_type, ["x"], [y.name], [*constants, *nodes], grower.imports())
    )
    fitting = [z for z in grower.tensors if z.shape == x.shape and z.bound <= x.bound and z.fine <= x.fine]
    for z in [x, *fitting[: int(grower.random.integers(0, 2))]]:
        (name,) = grower.node(op_type, [z.name], domain="grown")
        grower.add(Tensor(name, x.shape, y.bound, y.fine))


_GROWTHS: tuple[Growth, ...] = (
    conv, conv, conv_transpose, pool, combine, combine, gate, gate, scale, elementwise, shape_up, shape_up, flatten,
    dense, dense, beside, reduce, choose, repeat, axes, contract, swap,
    successive, successive, successive, successive,
    branch, function,
)  # fmt: skip


def grown(seed: int) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """A network with at least one activation, and inputs for it; the same for the same seed."""
    grower = Grower(seed)
    grower.activate()
    for _ in range(int(grower.random.integers(3, 16))):
        grower.grow()
    while not grower.activations or grower.tensors[-1] in grower.inputs:
        grower.activate()
    return grower.model(), grower.feed()
