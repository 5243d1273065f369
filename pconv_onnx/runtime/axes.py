"""Finds the axis of each output that counts samples, and the output with classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.errors import PconvError, warn
from pconv_onnx.data.samples import Samples, to_first
from pconv_onnx.runtime.side_by_side import run_session


def axes_told_by_runs(run: Callable[[dict[str, Array]], list[tuple[int, ...]]], samples: Samples) -> list[set[int]]:
    """Which axes of some tensors may count samples: those as long as the batch, in a run of one and in one of two.

    Args:
        run: from a feed to the shapes of the tensors.
        samples: those of the network. With a batch size of its own, or without any axis for samples, there is one run;
            of axes of length one it does not matter which.
    """
    only = 1 if samples.one_by_one else samples.model_batch
    sizes = (only,) if only else (1, 2)
    shapes = [run(samples.feed(np.zeros(size, int))) for size in sizes]
    result = []
    for found in zip(*shapes, strict=True):
        same_rank = len({len(shape) for shape in found}) == 1
        axes = [axis for axis, lengths in enumerate(zip(*found, strict=same_rank)) if same_rank and lengths == sizes]
        result.append(set(axes[:1] if only == 1 else axes))
    return result


def sample_axes(runner: Any, samples: Samples, names: list[str]) -> list[int | None] | None:
    """The axis of each of these outputs that counts samples; None if there is none, or it cannot be found out.

    Where samples lie along the first axis of every input they are taken to do so in the outputs, and no axes are given.
    Elsewhere it is what was told of an output, or what two runs tell. A warning says where that is not one axis.

    Raises:
        PconvError: samples do not lie along an axis of which it was told, or onnxruntime cannot run the network.
    """
    if samples.first_everywhere:
        return None
    counting = axes_told_by_runs(lambda feed: [output.shape for output in run_session(runner, feed, names)], samples)
    return [_axis(name, axes, samples) for name, axes in zip(names, counting, strict=True)]


def _axis(name: str, counting: set[int], samples: Samples) -> int | None:
    if name in samples.axes:
        axis = samples.axes[name]
        if axis is not None and axis not in counting:
            told = " or ".join(map(str, sorted(counting))) or "none"
            raise PconvError(f"samples do not lie along axis {axis} of output '{name}'", f"its batch axis is {told}")
        return axis
    if len(counting) == 1:
        return next(iter(counting))
    # Only of two axes could one be that of classes.
    if counting == {0, 1}:
        warn(
            f"it is not known which axis of output '{name}' counts samples, so it is compared value by value, "
            f"without classes; say it by `batch_axis={{'{name}': 0}}` or `batch_axis={{'{name}': 1}}`"
        )
    return None


def by_sample(outputs: list[Array], axes: list[int | None] | None) -> list[Array]:
    """Outputs with samples along the first axis, from where `sample_axes` found them.

    One without such an axis is that of one sample, or of none in particular: it gets a first axis of length one.
    """
    return outputs if axes is None else [to_first(*pair) for pair in zip(outputs, axes, strict=True)]


def classes(outputs: list[Array], samples: int) -> int | None:
    """Index of the first output that looks like logits: floats `[samples, classes]`, of two classes or more."""
    fitting = (i for i, output in enumerate(outputs) if output.ndim == 2 and output.shape[1] > 1)
    return next((i for i in fitting if outputs[i].dtype.kind == "f" and len(outputs[i]) == samples), None)
