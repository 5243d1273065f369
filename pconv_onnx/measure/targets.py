"""The error of an output against targets, for regression networks: labels are floats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.errors import PconvError, listed
from pconv_onnx.data.parts import LABELS


@dataclass(frozen=True)
class TargetError:
    """Differences of an output from its targets, summed in float64.

    Attributes:
        squared: their squares, summed.
        absolute: their absolute values, summed.
        values: how many there are: samples times values of one.
        samples: how many there are of these.
        mean: of the targets, at each place of a sample: `[values of one]`.
        deviation: squares of what targets differ from that, summed.
    """

    squared: float = 0.0
    absolute: float = 0.0
    values: int = 0
    samples: int = 0
    mean: Array = field(default_factory=lambda: np.zeros(1), compare=False, repr=False)
    deviation: float = 0.0

    @classmethod
    def of(cls, output: Array, targets: Array) -> TargetError:
        """That of one batch: an output `[B, …]` and targets that fit it."""
        with np.errstate(invalid="ignore", over="ignore"):
            difference = output.astype(np.float64).reshape(targets.shape) - targets
            rows = targets.astype(np.float64).reshape(len(targets), -1)
            mean = rows.mean(axis=0)
            return cls(
                float(np.square(difference).sum()),
                float(np.abs(difference).sum()),
                difference.size,
                len(rows),
                mean,
                float(np.square(rows - mean).sum()),
            )

    def __add__(self, other: TargetError) -> TargetError:
        """That of the samples of both."""
        samples, between = self.samples + other.samples, other.mean - self.mean
        share = other.samples / max(samples, 1)
        return TargetError(
            self.squared + other.squared,
            self.absolute + other.absolute,
            self.values + other.values,
            samples,
            self.mean + share * between,
            self.deviation + other.deviation + self.samples * share * float(np.square(between).sum()),
        )

    def summary(self) -> dict[str, float | None]:
        """`rmse`, the root of the mean square, `mae`, the mean absolute value, and `r2`, the share that is explained.

        The former two are in the unit of the output. `r2`, the coefficient of determination, is 1 less the squared
        errors over the squared differences of targets from their mean, each summed over all values of a sample.

        None where there are no targets, and where the output has a NaN or an infinity; `r2` where targets are all one.
        """
        if not self.values:
            return {"rmse": None, "mae": None, "r2": None}
        found = {
            "rmse": math.sqrt(self.squared / self.values),
            "mae": self.absolute / self.values,
            "r2": 1 - self.squared / self.deviation if self.deviation else math.nan,
        }
        return {name: value if math.isfinite(value) else None for name, value in found.items()}


def target_output(names: Sequence[str], outputs: Sequence[Array], targets: Array, network: str) -> int:
    """Index of the output that targets belong to: the float output with their shape, apart from axes of length one.

    Args:
        names: of the outputs.
        outputs: of one batch, samples along the first axis.
        targets: of the same samples.
        network: how to call the network in messages.

    Raises:
        PconvError: none fits, or several do.
    """
    fitting = [
        index
        for index, output in enumerate(outputs)
        if output.dtype.kind == "f" and len(output) == len(targets) and _of_a_sample(output) == _of_a_sample(targets)
    ]
    if len(fitting) == 1:
        return fitting[0]
    given = f"'{LABELS}' are floats {shape_of(targets)}"
    if fitting:
        told = " and ".join(f"'{names[index]}'" for index in fitting)
        raise PconvError(
            f"{given}, a shape that several outputs of {network} have: {told}",
            "keep the one that they are targets of (onnx.utils.extract_model)",
        )
    raise PconvError(
        f"{given}, a shape that no output of {network} has: {shapes_of(names, outputs)}",
        "give targets of the shape of an output, class numbers as integers, or no labels",
    )


def shapes_of(names: Sequence[str], outputs: Sequence[Array]) -> str:
    """The names of outputs and their shapes, for messages."""
    return listed([f"'{name}' {shape_of(output)}" for name, output in zip(names, outputs, strict=True)])


def shape_of(values: Array) -> str:
    """The shape of values of N samples, for messages."""
    return f"[{', '.join(['N', *map(str, values.shape[1:])])}]"


def _of_a_sample(values: Array) -> list[int]:
    return [size for size in values.shape[1:] if size != 1]
