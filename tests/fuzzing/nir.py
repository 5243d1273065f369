"""Random serial networks with quantised weights, mutated or not: is each a file with the right values, or refused?

All sums are exact, so what is written, run step by step, must give the bits of `SerialSession`.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import nir
import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from pconv_onnx import PconvError, SerialSession, deploy, rewrite

from . import mutants
from .hostile import attempt
from .workers import enter

_OPSETS = (13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24)
# Between names that HDF5, PyTorch or a terminal take for something else, and such as clash once they are mended.
_NAMES = ("a/b", "a.b", "/", ".", "..", "a b", "\x1b[31m", "θ", "x" * 3000, "input", "output", "nodes", "1", "_", "-")
_TYPES = {"int8": TensorProto.INT8, "uint8": TensorProto.UINT8, "int32": TensorProto.INT32,
          "int4": TensorProto.INT4, "uint4": TensorProto.UINT4, "int16": TensorProto.INT16}  # fmt: skip
_STEPS = 4
Array = np.ndarray[Any, np.dtype[Any]]
Random = np.random.Generator


def faults(seed: int) -> list[str]:
    """What is wrong with what becomes of the network of one seed; empty where all is right."""
    random = np.random.default_rng(seed)
    found: list[str] = []
    with warnings.catch_warnings(), np.errstate(all="ignore"), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        enter("the network is made")
        source = Serial(random).model()
        is_mutant = random.random() < 0.6
        if is_mutant and random.random() < 0.5:
            source = mutants.of_structure(source, random)
        result = attempt(found, "rewrite", lambda: rewrite(source, mode="serial"))
        if result is None:
            return found
        snn = mutants.of_structure(result.model, random) if is_mutant and random.random() < 0.7 else result.model
        out = Path(folder, "out")
        done = attempt(found, "deploy", lambda: deploy(snn, out, target="nir", allow_lossy=True))
        if done is None:
            found += [f"a refusal leaves '{path.name}' behind" for path in Path(folder).iterdir()]
            return found
        enter("the file is read")
        graph = nir.read(out / "model.nir")
        if _is_exact(graph):
            found += _compared(snn, graph, random)
    return found


class Serial:
    """A network of one input and one output that grows layer by layer, with numbers that float32 adds exactly."""

    def __init__(self, random: Random) -> None:
        self.random, self.opset = random, int(random.choice(_OPSETS))
        self.nodes: list[onnx.NodeProto] = []
        self.held: list[TensorProto] = []
        self.count = 0
        self.axes = int(random.choice([0, 1, 2, 2, 2, 3], p=[0.2, 0.15, 0.2, 0.2, 0.2, 0.05]))
        self.shape = [int(random.integers(1, 4)) * 2, *[int(random.choice([4, 6]))] * self.axes]
        self.renamed = {}
        if random.random() < 0.3:
            self.renamed = {f"t{index}": str(random.choice(_NAMES)) for index in random.integers(0, 30, 3)}

    def model(self) -> onnx.ModelProto:
        """The whole network."""
        before, tensor = list(self.shape), "x"
        for _ in range(int(self.random.integers(1, 3))):
            tensor = self.activation(self.affine(tensor))
            if self.random.random() < 0.4:
                tensor = self.between(tensor)
        if self.random.random() < 0.8:
            tensor = self.affine(tensor)
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *before])]
        outputs = [helper.make_tensor_value_info(self.tensor(tensor), TensorProto.FLOAT, None)]
        graph = helper.make_graph(self.nodes, "serial", inputs, outputs, self.held)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10)

    def tensor(self, name: str) -> str:
        """A name of a tensor, which is now and then an odd one."""
        taken = {name for node in self.nodes for name in node.output} | {held.name for held in self.held}
        odd = self.renamed.get(name)
        return name if odd is None or (odd in taken and name in taken) else odd

    def node(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Add a node; the name of its output."""
        self.count += 1
        name = f"t{self.count}"
        odd = self.renamed.get(name)
        if odd is not None and odd not in {out for node in self.nodes for out in node.output}:
            name = odd
        label = str(self.random.choice(_NAMES)) if self.random.random() < 0.1 else f"{op_type}_{self.count}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], label, **attributes))
        return name

    def constant(self, values: Array) -> str:
        """Hold values, as an initializer or by a node."""
        self.count += 1
        tensor = numpy_helper.from_array(values, f"w{self.count}")
        if self.random.random() < 0.2:
            return self.node("Constant", value=tensor)
        self.held.append(tensor)
        return tensor.name

    def codes(self, shape: tuple[int, ...], kind: str) -> str:
        """Hold small whole numbers of a type."""
        low = 0 if kind.startswith("u") else -4
        values = self.random.integers(low, 5, shape)
        self.count += 1
        self.held.append(helper.make_tensor(f"w{self.count}", _TYPES[kind], shape, values.reshape(-1).tolist()))
        return self.held[-1].name

    def weight(self, *shape: int, axis: int = 0) -> str:
        """Weights of any spelling: as they are, or codes behind a DequantizeLinear."""
        if self.random.random() < 0.25:
            return self.spelled(self.constant((self.random.integers(-4, 5, shape) / 4).astype(np.float32)), shape)
        kinds = ["int8", "uint8", "int32"] + (["int4", "uint4", "int16"] if self.opset >= 21 else [])
        kind = str(self.random.choice(kinds))
        by_channel = self.random.random() < 0.5
        scales = (shape[axis],) if by_channel else ()
        scale = (2.0 ** self.random.integers(-4, 1, scales)).astype(np.float32)
        halves = self.opset >= 19 and self.random.random() < 0.2
        scale = np.asarray(scale, np.float16 if halves else np.float32)
        inputs = [self.codes(shape, kind), self.constant(scale)]
        if kind != "int32" and self.random.random() < 0.5:
            inputs.append(self.codes(scales, kind))
        attributes = {"axis": axis - int(self.random.integers(2)) * len(shape)} if by_channel else {}
        made = self.node("DequantizeLinear", *inputs, **attributes)
        if halves:
            made = self.node("Cast", made, to=TensorProto.FLOAT)
        return self.spelled(made, shape)

    def spelled(self, name: str, shape: tuple[int, ...]) -> str:
        """The same values behind operators that do not change them."""
        kind = int(self.random.integers(8))
        if kind == 0:
            flat = self.node("Reshape", name, self.constant(np.array([-1])))
            return self.node("Reshape", flat, self.constant(np.array(shape, np.int64)))
        if kind == 1:
            order = self.random.permutation(len(shape))
            turned = self.node("Transpose", name, perm=order.tolist())
            return self.node("Transpose", turned, perm=np.argsort(order).tolist())
        if kind == 2:
            return self.node("Neg", self.node("Neg", name))
        if kind == 3:
            return self.node("Identity", name)
        return name

    def affine(self, tensor: str) -> str:
        """A convolution or a matrix."""
        if self.axes and self.random.random() < 0.25:
            self.shape, self.axes = [int(np.prod(self.shape))], 0
            if self.random.random() < 0.5:
                tensor = self.node("Flatten", tensor)
            else:
                tensor = self.node("Reshape", tensor, self.constant(np.array([0, -1])))
        return self.convolution(tensor) if self.axes else self.matrix(tensor)

    def convolution(self, tensor: str) -> str:
        groups = int(self.random.choice([1, 1, self.shape[0], 2 - self.shape[0] % 2]))
        channels, length = groups * int(self.random.integers(1, 3)), int(self.random.choice([1, 2, 3]))
        stride = int(self.random.choice([1, 1, 2]))
        dilation = int(self.random.choice([1, 1, 1, 2])) if self.shape[1] > (length - 1) * 2 else 1
        attributes: dict[str, Any] = {"group": groups, "strides": [stride] * self.axes}
        extent = (length - 1) * dilation + 1
        kind = str(
            self.random.choice(["pads", "none", "SAME_UPPER", "SAME_LOWER", "VALID"], p=[0.4, 0.3, 0.1, 0.1, 0.1])
        )
        size = self.shape[1]
        if kind.startswith("SAME"):
            attributes["auto_pad"], after = kind, -(-size // stride)
        else:
            pad = int(self.random.integers(0, 2)) if kind == "pads" else 0
            if kind == "pads":
                attributes["pads"] = [pad] * 2 * self.axes
            elif kind == "VALID":
                attributes["auto_pad"] = kind
            after = (size + 2 * pad - extent) // stride + 1
        if dilation > 1 and not kind.startswith("SAME"):
            attributes["dilations"] = [dilation] * self.axes
        elif dilation > 1:
            attributes["dilations"] = [dilation] * self.axes
        weight = self.weight(channels, self.shape[0] // groups, *[length] * self.axes)
        if after < 1:
            return tensor
        bias = [self.weight(channels)] if self.random.random() < 0.5 else []
        self.shape = [channels, *[after] * self.axes]
        made = self.node("Conv", tensor, weight, *bias, **attributes)
        return self.of_channels(made)

    def matrix(self, tensor: str) -> str:
        rows, columns = self.shape[0], int(self.random.integers(1, 6))
        self.shape = [columns]
        if self.random.random() < 0.5:
            made = self.node("MatMul", tensor, self.weight(rows, columns, axis=1))
            return self.node("Add", made, self.weight(columns)) if self.random.random() < 0.5 else made
        turned = int(self.random.integers(2))
        weight = self.weight(*((columns, rows) if turned else (rows, columns)), axis=1 - turned)
        shape = [(columns,), (1, columns), (1,), ()][self.random.integers(4)]
        bias = [self.weight(*shape) if shape else self.constant(np.float32(0.5))] if self.random.random() < 0.6 else []
        factors = {"alpha": float(self.random.choice([0.5, 2.0, -1.0])), "beta": float(self.random.choice([0.0, 0.5]))}
        attributes = factors if self.random.random() < 0.3 else {}
        return self.node("Gemm", tensor, weight, *bias, transB=turned, **attributes)

    def of_channels(self, tensor: str) -> str:
        """What changes channels by constants, mostly nothing."""
        kind, shape = int(self.random.integers(10)), (self.shape[0], *[1] * self.axes)
        if kind == 0:
            return self.node("Add", tensor, self.constant((self.random.integers(-4, 5, shape) / 4).astype(np.float32)))
        if kind == 1:
            return self.node(
                "Mul", self.constant((2.0 ** self.random.integers(-1, 2, shape)).astype(np.float32)), tensor
            )
        if kind == 2:
            return self.node("Sub", self.constant(np.ones((1, *shape), np.float32)), tensor)
        if kind == 3:
            gamma, beta, mean = (self.random.integers(-2, 3, self.shape[0]).astype(np.float32) for _ in range(3))
            tables = [self.constant(table) for table in (gamma, beta, mean, np.full(self.shape[0], 0.25, np.float32))]
            return self.node("BatchNormalization", tensor, *tables, epsilon=0.0)
        return tensor

    def activation(self, tensor: str) -> str:
        """QCFS with θ a power of two, of the layer or of each channel."""
        by_channel = self.random.random() < 0.3
        shape = (self.shape[0], *[1] * self.axes) if by_channel else ()
        theta = self.constant(np.asarray(2.0 ** self.random.integers(0, 3, shape), np.float32))
        steps, half, low, high = (self.constant(np.float32(value)) for value in (_STEPS, 0.5, 0, 1))
        scaled = self.node("Div", tensor, theta)
        code = self.node("Floor", self.node("Add", self.node("Mul", scaled, steps), half))
        return self.node("Mul", self.node("Clip", self.node("Div", code, steps), low, high), theta)

    def between(self, tensor: str) -> str:
        """A pool, a sum with another branch, or nothing that computes."""
        kind = int(self.random.integers(6))
        if kind == 0 and self.axes == 2 and min(self.shape[1:]) >= 2:
            self.shape[1:] = [size // 2 for size in self.shape[1:]]
            return self.node("AveragePool", tensor, kernel_shape=[2, 2], strides=[2, 2])
        if kind == 1 and self.axes == 2 and self.shape[1] in (1, 2, 4):
            self.shape[1:] = [1, 1]
            return self.node("GlobalAveragePool", tensor)
        if kind == 2:
            weight = self.weight(self.shape[0], self.shape[0], *[1] * self.axes)
            other = self.node("Conv", tensor, weight) if self.axes else self.node("MatMul", tensor, weight)
            return self.node(str(self.random.choice(["Add", "Sub"])), tensor, other)
        if kind == 3:
            return self.node(str(self.random.choice(["Identity", "Dropout"])), tensor)
        return tensor


def _is_exact(graph: nir.NIRGraph) -> bool:
    """Whether sums of all weights and thresholds have few enough bits."""
    tables = [
        np.asarray(values)
        for node in graph.nodes.values()
        for name, values in vars(node).items()
        if name in ("weight", "bias", "v_threshold")
    ]
    fine = [np.abs(table) <= 64 for table in tables] + [np.modf(table * 1024)[0] == 0 for table in tables]
    return all(values.all() for values in fine)


def _compared(snn: onnx.ModelProto, graph: nir.NIRGraph, random: Random) -> list[str]:
    """Whether both give the same at each step, where onnxruntime runs the network."""
    shape = [int(size) for size in graph.nodes[next(iter(graph.inputs))].input_type["input"]]
    x = (random.integers(-16, 17, (2, *shape)) / 4).astype(np.float32)
    enter("onnxruntime runs the network")
    try:
        session = SerialSession(snn)
        (info,) = session.get_inputs()
        expected = session.run_per_step(None, {info.name: x})[0]
    except (PconvError, ValueError, MemoryError):  # a mutant that does not run
        return []
    enter("the file is run")
    found = run(graph, x, len(expected))
    return [] if np.array_equal(found, expected) else [f"the file gives other values: {found} for {expected}"[:500]]


def run(graph: nir.NIRGraph, x: Array, steps: int) -> Array:
    """What a graph gives at each step, `[T, B, …]`, computed in float64, as its metadata tell of its neurons."""
    potentials: dict[str, Any] = {}
    end = next(iter(graph.outputs))
    return np.stack([_of(graph, end, x, potentials, {}).numpy().astype(np.float32) for _ in range(steps)])


def _of(graph: nir.NIRGraph, name: str, x: Array, potentials: dict[str, Any], values: dict[str, Any]) -> Any:
    """What a node gives at this step, whose values so far are given."""
    if name not in values:
        read = [_of(graph, start, x, potentials, values) for start, end in graph.edges if end == name]
        values[name] = _given(graph.nodes[name], sum(read) if read else torch.from_numpy(x).double(), name, potentials)
    return values[name]


def _given(node: Any, x: Any, name: str, potentials: dict[str, Any]) -> Any:
    """What one node gives."""
    if isinstance(node, nir.IF):
        threshold = torch.from_numpy(node.v_threshold).double()
        potential = potentials.get(name, torch.from_numpy(node.metadata["v_initial"]).double()) + x
        spikes = (potential >= threshold).double()
        potentials[name] = potential - threshold * spikes
        return spikes
    functional = torch.nn.functional
    if isinstance(node, nir.Affine):
        return functional.linear(x, torch.from_numpy(node.weight).double(), torch.from_numpy(node.bias).double())
    if isinstance(node, nir.Conv1d | nir.Conv2d):
        convolve = functional.conv1d if isinstance(node, nir.Conv1d) else functional.conv2d
        tables = (torch.from_numpy(table).double() for table in (node.weight, node.bias))
        sizes = (np.atleast_1d(values).tolist() for values in (node.stride, node.padding, node.dilation))
        return convolve(x, *tables, *sizes, node.groups)
    if isinstance(node, nir.SumPool2d):
        sizes = [tuple(map(int, values)) for values in (node.kernel_size, node.stride, node.padding)]
        return functional.avg_pool2d(x, *sizes, divisor_override=1)
    return x.flatten(node.start_dim, node.end_dim) if isinstance(node, nir.Flatten) else x
