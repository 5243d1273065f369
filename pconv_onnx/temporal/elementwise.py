"""Rules for element-wise operators."""

from __future__ import annotations

import numpy as np

from pconv_onnx.temporal.holding import one_in_time
from pconv_onnx.temporal.kinds import Current, Kind, Passage
from pconv_onnx.temporal.meeting import meeting
from pconv_onnx.temporal.site import Site, current, lifted_inputs


def add(site: Site) -> Passage | None:
    """Add, Sub, Sum, Mean: tensors in time get the same T, and others are added at each step."""
    shapes = {site.shape(index) for index in site.varying}
    if None in shapes or len({(len(shape), shape[0]) for shape in shapes if shape}) != 1:
        return None
    lifted, met = lifted_inputs(site), meeting(site)
    return None if lifted is None or met is None else Passage((Current(met[0]),), lifted, recoded=met[1])


def multiply(site: Site) -> Kind | Passage | None:
    """Mul by a factor that is the same at each step; of two tensors in time, one is replaced by its mean."""
    return one_in_time(site, _by_static)


def _by_static(site: Site) -> Passage | None:
    """Factors must be finite: infinity times zero does not commute with the mean."""
    lifted, factor = lifted_inputs(site), site.constant(1 - site.varying[0])
    if lifted is None or (factor is not None and not np.isfinite(factor).all()):
        return None
    return Passage((current(site.kinds[site.varying[0]]),), lifted)


def divide(site: Site) -> Kind | Passage | None:
    """Div by a constant without zeros."""
    divisor = site.constant(1)
    return multiply(site) if divisor is not None and (divisor != 0).all() else None


def where(site: Site) -> Passage | None:
    """Where takes each element from the same tensor at each step, since conditions have no time axis."""
    constants = [site.constant(index) for index in (1, 2)]
    if any(value is not None and not np.isfinite(value).all() for value in constants):
        return None
    return add(site)


def negate(site: Site) -> Kind | None:
    """Neg is linear."""
    return current(site.kinds[0])


def cast(site: Site) -> Kind | None:
    """Cast to the type that the tensor has. All neurons of a model have one type, so other Casts are decoded first."""
    same = site.network.dtype(site.node.inputs[0]) == site.network.dtype(site.node.outputs[0])
    return site.kinds[0] if same else None


def identity(site: Site) -> Kind | None:
    """Identity keeps the kind."""
    return site.kinds[0]


def dropout(site: Site) -> Kind | None:
    """The identity at inference, with a mask that nothing reads."""
    training = site.constant(2)
    inference = not site.given(2) or (training is not None and not training.any())
    read = any(mask.outputs or site.network.is_output(mask) for mask in site.node.outputs[1:])
    return site.kinds[0] if inference and not read else None
