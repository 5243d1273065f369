"""Rules for operators that sum: convolutions, matrix products, averages."""

from __future__ import annotations

from pconv_onnx.temporal.holding import one_in_time
from pconv_onnx.temporal.kinds import Kind, Passage
from pconv_onnx.temporal.site import Site, current, lifted_inputs, reduced


def linear(site: Site) -> Kind | None:
    """Conv, BatchNormalization, average pooling: linear or affine in the first input, row by row."""
    # Static weights are constants or are computed without a time axis; either way they are the same at each step.
    single_output = all(not output.name for output in site.node.outputs[1:])
    return current(site.kinds[0]) if site.only_first_varies and single_output else None


def gemm(site: Site) -> Kind | None:
    """Gemm, if `A` is not transposed and `C` has no rows of its own."""
    if site.attribute("transA", 0):
        return None
    if site.given(2):
        shape = site.shape(2)
        if shape is None or (len(shape) == 2 and shape[0] != 1):
            return None
    return linear(site)


def matmul(site: Site) -> Kind | Passage | None:
    """MatMul by a matrix that is the same at each step; of two tensors in time one is held. No sum over rows."""
    return one_in_time(site, _by_static)


def _by_static(site: Site) -> Passage | None:
    """By one matrix, from either side, or by a stack whose matrices match rows in time."""
    (varying,) = site.varying
    rank, other_rank = site.rank(varying), site.rank(1 - varying)
    if rank is None or other_rank is None or rank < (2, 3)[varying]:
        return None
    lifted = lifted_inputs(site) if other_rank > 2 else ()
    return None if lifted is None else Passage((current(site.kinds[varying]),), lifted)


def einsum(site: Site) -> Kind | None:
    """Einsum is linear in one tensor in time, if its first axis is the result's first and no other tensor has it."""
    terms, arrow, result = site.attribute("equation", "").replace(" ", "").partition("->")
    operands = terms.split(",")
    if len(site.varying) != 1 or not arrow or "." in terms:
        return None
    (varying,) = site.varying
    row = operands[varying][:1]
    if not row or not result.startswith(row) or terms.count(row) > 1:
        return None
    return current(site.kinds[varying])


def normalise(site: Site) -> Kind | None:
    """BatchNormalization with the statistics of the training set, not of the batch."""
    return None if site.attribute("training_mode", 0) else linear(site)


def reduce(site: Site) -> Kind | None:
    """ReduceMean and ReduceSum over constant axes other than the first."""
    return None if reduced(site) is None else current(site.kinds[0])
