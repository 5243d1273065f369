"""A network in PyTorch, node by node, in which some nodes may be replaced by functions of tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

from pconv_onnx.basics.errors import PconvError
from pconv_onnx.calibration.tuning.operators import RULES
from pconv_onnx.graph import Network
from pconv_onnx.graph.constants import is_standard
from pconv_onnx.graph.nesting import captured
from pconv_onnx.graph.reference import reference_of

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
    reference = cache(partial(reference_of, network, node))

    def call(inputs: Sequence[Any]) -> Sequence[Any]:
        on_floats = any(isinstance(value, torch.Tensor) for value in inputs)
        found = rule(inputs, attributes) if rule is not None and on_floats else NotImplemented
        if found is NotImplemented:
            return list(map(_constant, reference()(list(map(_array, inputs)))))
        return [found] if isinstance(found, torch.Tensor) else found

    return Step(call, tuple(node.input), tuple(node.output))


def _constant(value: Any) -> Any:
    """Floats as a tensor, and what else there is as an array."""
    if value is None or isinstance(value, torch.Tensor):
        return value
    array = np.asarray(value)
    # PyTorch warns of memory that it must not write to.
    return torch.tensor(array) if array.dtype in (np.float32, np.float64) else array


def _array(value: Any) -> Any:
    return value.detach().numpy() if isinstance(value, torch.Tensor) else value
