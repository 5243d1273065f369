"""The table of rules: what each ONNX operator does to kinds in time.

A tensor in time has rows `[T·B, …]`, time-major. An operator may run on it unchanged where it treats rows
independently and its temporal mean is then the operator of the mean (it *commutes with time*). Where no rule says so,
the tensor is decoded first: exact always, at the price of a time axis that ends there.
"""

from __future__ import annotations

from pconv_onnx.graph.constants import is_standard
from pconv_onnx.temporal import elementwise, extremes, layout, linear
from pconv_onnx.temporal.kinds import STATIC, Passage
from pconv_onnx.temporal.site import Rule, Site


def transfer(site: Site) -> Passage:
    """How a node runs; if no rule applies, on Static tensors, with its inputs decoded first."""
    rule = TRANSFER_RULES.get(site.node.op) if site.varying and is_standard(site.node) else None
    try:
        found = (rule(site) if rule is not None else None) or STATIC
    except (ArithmeticError, LookupError, TypeError, ValueError):  # operands that a runtime would refuse too
        found = STATIC
    return found if isinstance(found, Passage) else Passage((found,) * len(site.node.outputs))


# One row an operator. An operator that is not here is decoded first.
TRANSFER_RULES: dict[str, Rule] = {
    "Add": elementwise.add,
    "AveragePool": linear.linear,
    "BatchNormalization": linear.normalise,
    "Cast": elementwise.cast,
    "Clip": extremes.clip,
    "Concat": layout.concat,
    "Conv": linear.linear,
    "ConvTranspose": linear.linear,
    "DepthToSpace": layout.depth_to_space,
    "Div": elementwise.divide,
    "Dropout": elementwise.dropout,
    "Einsum": linear.einsum,
    "Expand": layout.expand,
    "Flatten": layout.flatten,
    "Gather": layout.gather,
    "Gemm": linear.gemm,
    "GlobalAveragePool": linear.linear,
    "GlobalMaxPool": extremes.max_pool,
    "Identity": elementwise.identity,
    "LeakyRelu": extremes.leaky_relu,
    "MatMul": linear.matmul,
    "Max": extremes.extremes,
    "MaxPool": extremes.max_pool,
    "Mean": elementwise.add,
    "Min": extremes.extremes,
    "Mul": elementwise.multiply,
    "Neg": elementwise.negate,
    "Pad": layout.pad,
    "ReduceMax": extremes.extremum,
    "ReduceMean": linear.reduce,
    "ReduceMin": extremes.extremum,
    "ReduceSum": linear.reduce,
    "Relu": extremes.relu,
    "Reshape": layout.reshape,
    "Resize": layout.resize,
    "Slice": layout.slice,
    "SpaceToDepth": layout.depth_to_space,
    "Split": layout.split,
    "Squeeze": layout.squeeze,
    "Sub": elementwise.add,
    "Sum": elementwise.add,
    "Tile": layout.tile,
    "Transpose": layout.transpose,
    "Unsqueeze": layout.unsqueeze,
    "Where": elementwise.where,
}
