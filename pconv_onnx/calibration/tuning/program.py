"""A network in PyTorch, node by node, in which some nodes may be replaced by functions of tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from pconv_onnx.basics.errors import PconvError
from pconv_onnx.calibration.tuning.operators import RULES
from pconv_onnx.graph import Network
from pconv_onnx.graph.constants import is_standard
from pconv_onnx.graph.nesting import captured

Values = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Step:
    """What computes some tensors from others.

    Attributes:
        call: from the values of inputs to those of outputs.
        inputs: names; empty where an input is left out.
        outputs: names, of which some may be empty.
    """

    call: Callable[[Sequence[Any]], Sequence[Any]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class Program:
    """Steps in topological order.

    Floats that depend on the data are tensors, and gradients go through operators of `RULES`. Whatever else there is,
    shapes above all, is computed by the reference implementation of ONNX on NumPy arrays.
    """

    def __init__(self, network: Network, steps: Sequence[Step], wanted: Iterable[str]) -> None:
        """Prepare what `wanted` tensors need, and compute what depends on constants alone."""
        self._constants: Values = {
            tensor.name: _constant(numpy_helper.to_array(tensor)) for tensor in network.proto.graph.initializer
        }
        self._wanted = list(dict.fromkeys(wanted))
        needed, kept = set(self._wanted), []
        for step in reversed(steps):
            if needed & set(step.outputs):
                needed |= set(step.inputs)
                kept.append(step)
        self._steps = []
        for step in reversed(kept):
            if all(not name or name in self._constants for name in step.inputs):
                made = step.call([self._constants.get(name) for name in step.inputs])
                self._constants |= {name: _constant(v) for name, v in zip(step.outputs, made, strict=False) if name}
            else:
                self._steps.append(step)
        self._last = {name: index for index, step in enumerate(self._steps) for name in step.inputs}

    def __call__(self, feed: Mapping[str, Any]) -> dict[str, Any]:
        """The wanted tensors of one batch, whose arrays are by input."""
        values: Values = {name: _constant(array) for name, array in feed.items()}
        for index, step in enumerate(self._steps):
            made = step.call([values[name] if name in values else self._constants.get(name) for name in step.inputs])
            values |= {name: value for name, value in zip(step.outputs, made, strict=False) if name}
            for name in step.inputs:
                if self._last[name] == index and name not in self._wanted:
                    values.pop(name, None)
        return {name: values[name] if name in values else self._constants[name] for name in self._wanted}


def step_of(network: Network, node: onnx.NodeProto) -> Step:
    """A node as it is.

    Raises:
        PconvError: it has bodies, through which nothing goes here.
    """
    if captured(node):
        raise PconvError(
            f"'{node.name or node.op_type}' ({node.op_type}) has a body, and gradients do not go through it",
            "choose method 'refit'",
        )
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    rule = RULES.get(node.op_type) if is_standard(node) else None
    plain = _Plain(network, node)

    def call(inputs: Sequence[Any]) -> Sequence[Any]:
        if rule is None or not any(isinstance(value, torch.Tensor) for value in inputs):
            return plain(inputs)
        found = rule(inputs, attributes)
        if found is NotImplemented:
            return plain(inputs)
        return [found] if isinstance(found, torch.Tensor) else found

    return Step(call, tuple(node.input), tuple(node.output))


class _Plain:
    """A node on arrays, by the reference implementation of ONNX; no gradient goes through it."""

    def __init__(self, network: Network, node: onnx.NodeProto) -> None:
        self._node, self._imports = node, list(network.proto.opset_import)
        self._functions = list(network.proto.functions)
        self._evaluator: ReferenceEvaluator | None = None

    def __call__(self, inputs: Sequence[Any]) -> Sequence[Any]:
        names = [name for name in dict.fromkeys(self._node.input) if name]
        if self._evaluator is None:
            outputs = [name for name in self._node.output if name]
            function = helper.make_function("", "node", names, outputs, [self._node], self._imports)
            self._evaluator = ReferenceEvaluator(function, functions=self._functions or None)
        arrays = {name: _array(value) for name, value in zip(self._node.input, inputs, strict=True) if name}
        # A function has attributes, if none.
        found = iter(self._evaluator.run(None, arrays, attributes={}))
        return [_constant(next(found)) if name else None for name in self._node.output]


def _constant(value: Any) -> Any:
    """Floats as a tensor, and what else there is as an array."""
    if isinstance(value, torch.Tensor):
        return value
    array = np.asarray(value)
    # PyTorch warns of memory that it must not write to.
    return torch.tensor(array) if array.dtype in (np.float32, np.float64) else array


def _array(value: Any) -> Any:
    return value.detach().numpy() if isinstance(value, torch.Tensor) else value
