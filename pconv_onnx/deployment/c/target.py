"""The target `c`: a network of integers as plain C99, without a runtime and without allocation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx

from pconv_onnx.basics.domain import DOMAIN
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.deployment.c.program import Program
from pconv_onnx.deployment.c.rules import OWN_RULES, RULES, Refused, Site, Value
from pconv_onnx.deployment.c.views import Buffer, View
from pconv_onnx.deployment.c.writing import written
from pconv_onnx.deployment.package import Package, Tensor
from pconv_onnx.deployment.target import Contents
from pconv_onnx.graph import Network
from pconv_onnx.graph.constants import is_standard
from pconv_onnx.graph.external import values
from pconv_onnx.graph.record import Record
from pconv_onnx.graph.reference import reference_of
from pconv_onnx.graph.view import Node, called
from pconv_onnx.plan.modes import INTEGER

_INTEGERS = "rewrite it with `mode='integer', input_bits=8`, and the range of the inputs or a calibration"
_FLOATS = "docs/integers.md has what stays on floats, and what to do"


class C:
    """A source file and its header, which every compiler of C99 takes."""

    every_device = "the compiler decides where it runs"
    may_lose = False

    def contents(self, packed: Package, gpu: bool) -> Contents:
        """The folder.

        Raises:
            PconvError: the network is none of integers, or an operator of it has no layer in C.
        """
        record = Record.read(packed.model)
        if packed.mode is not INTEGER:
            raise PconvError(f"the network is {packed.mode.name}, and C has layers of integers", _INTEGERS)
        islands = (record.integer or {}).get("islands") or {}
        if islands:
            name, reason = next(iter(islands.items()))
            raise PconvError(f"'{name}' computes on floats: {reason}", _FLOATS)
        return Contents(written(_program(packed), packed.name))


def _program(packed: Package) -> Program:
    """The calls of a network."""
    network = packed.network
    found: dict[str, Value] = {
        tensor.name: np.asarray(values(tensor, network.folder)) for tensor in network.proto.graph.initializer
    }
    tensors = [tensor for tensor in packed.inputs if tensor.name not in found]
    for tensor in (*tensors, *packed.outputs):
        if tensor.type != onnx.TensorProto.FLOAT:
            raise PconvError(f"'{tensor.name}' is not float32, which C reads and gives", _FLOATS)
    inputs = _side_by_side("in", {tensor.name: _static(tensor) for tensor in tensors})
    program = Program(inputs)
    found = _walked(network, program, {**found, **inputs})
    last = {tensor.name: found[tensor.name] for tensor in packed.outputs}
    program.outputs = _side_by_side("out", {name: value.shape for name, value in last.items()})
    for name, out in program.outputs.items():
        program.label = f"output {name}"
        value = last[name]
        program.each("(float)a", out, value if isinstance(value, View) else program.constant(value))
    return program


def _side_by_side(name: str, shapes: Mapping[str, Sequence[int]]) -> dict[str, View]:
    """Tensors one behind another, by their names, in what is called so."""
    starts = np.cumsum([0, *(math.prod(shape) for shape in shapes.values())])
    buffer = Buffer("float", int(starts[-1]), name)
    return {
        tensor: replace(View.of(buffer, shape), offset=int(start))
        for (tensor, shape), start in zip(shapes.items(), starts, strict=False)
    }


def _static(tensor: Tensor) -> tuple[int, ...]:
    """The shape of one sample."""
    first, *others = tensor.shape or [None]
    sizes = [1 if not isinstance(first, int) else first, *others]
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        raise PconvError(
            f"the shape of '{tensor.name}', {tensor.shape}, is open beyond the batch; C wants sizes",
            "give the inputs of the ANN fixed sizes, and rewrite it again",
        )
    return tuple(int(size) for size in sizes if size is not None)


def _walked(network: Network, program: Program, found: dict[str, Value]) -> dict[str, Value]:
    """All tensors, once calls are written that give them."""
    tables = {tensor.name: tensor for tensor in network.proto.graph.initializer}
    for node, proto in network.graph.pairs():
        inputs = [found[tensor.name] if tensor.name else None for tensor in node.inputs]
        program.label = called(node)
        for tensor, value in zip(node.outputs, _written(network, program, node, proto, inputs, tables), strict=False):
            found[tensor.name] = value
    return found


def _written(
    network: Network,
    program: Program,
    node: Node,
    proto: onnx.NodeProto,
    inputs: Sequence[Value | None],
    tables: dict[str, onnx.TensorProto],
) -> Sequence[Value]:
    """What a node gives: known now, or once its calls have run.

    Raises:
        PconvError: it cannot be written in C.
    """
    if node.op == "Shape" and isinstance(inputs[0], View):
        return [np.array(inputs[0].shape)]
    if is_standard(node) and not any(isinstance(value, View) for value in inputs):
        return reference_of(network, proto)(inputs)
    rules = RULES if is_standard(node) else OWN_RULES if node.domain == DOMAIN else {}
    if node.op not in rules:
        raise PconvError(f"{called(node)} has no layer of integers in C", _FLOATS)
    try:
        given = rules[node.op](Site(program, node, proto, inputs, tables))
    except Refused as error:
        raise PconvError(f"{called(node)} {error}, so that it has no layer in C", _FLOATS) from error
    return given if isinstance(given, list) else [given]
