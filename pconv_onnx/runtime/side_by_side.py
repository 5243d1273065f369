"""Networks run side by side on samples: faults told by name, batches that fit in memory, the output with classes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.domain import DOMAIN, MIN_OPSET
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.data.samples import Samples, to_first
from pconv_onnx.graph import Network
from pconv_onnx.graph.passes.folding import fold
from pconv_onnx.graph.passes.inlining import inlined
from pconv_onnx.graph.passes.upgrading import upgraded
from pconv_onnx.graph.qonnx import standardised
from pconv_onnx.graph.tensors import references
from pconv_onnx.operators.domain import is_serial
from pconv_onnx.runtime.opening import EXTERNAL_DATA_FOLDER, import_onnxruntime, session
from pconv_onnx.runtime.serial_session import SerialSession

_BATCH = 50
# Rows of T·B that networks are run on at most, but for one sample: of many steps the tensors are large, and each
# session keeps its own.
_ROWS = 512
# Threads of each session that is opened from now on; 0 is onnxruntime's own choice, all cores.
_threads = 0


def limit_threads(count: int) -> None:
    """Have the sessions of this process use so many threads each: it is one of several on its machine."""
    global _threads
    _threads = count


def runnable(network: Network) -> Network:
    """The network in operators that onnxruntime has: functions and the operators of QONNX are written out."""
    network = inlined(network, DOMAIN)
    if standardised(network.proto) is network.proto:
        return network
    # As rewrite does: operators of the opset that they are written in, bit widths that are computed from constants.
    network = fold(upgraded(network, MIN_OPSET))
    return replace(network, proto=standardised(network.proto))


def open_session(
    model: onnx.ModelProto,
    name: str,
    level: Any = None,
    providers: Sequence[Any] | None = None,
    folder: Path | None = None,
) -> Any:
    """An onnxruntime session that takes turns with others; a `SerialSession` for a serial network.

    Args:
        model: the network.
        name: what to call it in messages.
        level: onnxruntime's level of graph optimisation; None leaves it as users have it.
        providers: execution providers as `session` takes them.
        folder: where the files of tensors lie that the network keeps in others.

    Raises:
        PconvError: onnxruntime refuses the model.
    """
    options = import_onnxruntime().SessionOptions()
    options.log_severity_level = 4  # errors are raised; logged as well they would be told twice
    # Threads that spin while they wait would take the cores of the session whose turn it is.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.intra_op_num_threads = _threads
    if folder is not None and references(model):
        options.add_session_config_entry(EXTERNAL_DATA_FOLDER, str(folder))
    if level is not None:
        options.graph_optimization_level = level
    opened = SerialSession if any(map(is_serial, model.graph.node)) else session
    try:
        return opened(model, options=options, providers=providers)
    except PconvError as error:
        raise PconvError(f"{name}: {error.message}", error.hint) from error


class Sessions:
    """Sessions of networks that run side by side, by name.

    All stay open; of networks too large for one file only the last one used, and others are opened again.
    """

    def __init__(self, networks: Iterable[Network]) -> None:
        """Sessions of what is made of these networks."""
        self._one_at_a_time = any(references(network.proto) for network in networks)
        self._openers: dict[str, Callable[[], Any]] = {}
        self._open: dict[str, Any] = {}

    def add(self, name: str, opener: Callable[[], Any]) -> None:
        """Open one; what the opener raises is raised, and the session is not there."""
        self._reopen(name, opener)
        self._openers[name] = opener

    def __getitem__(self, name: str) -> Any:
        """The session of that name, open."""
        if name not in self._open:
            self._reopen(name, self._openers[name])
        return self._open[name]

    def __iter__(self) -> Iterator[str]:
        """Names, in the order in which they were added."""
        return iter(self._openers)

    def _reopen(self, name: str, opener: Callable[[], Any]) -> None:
        if self._one_at_a_time:
            self._open.clear()
        self._open[name] = opener()


def run_session(runner: Any, feed: dict[str, Array], names: list[str] | None = None) -> list[Array]:
    """The outputs of a session, all or those named.

    Raises:
        PconvError: onnxruntime fails while it runs.
    """
    try:
        return list(runner.run(names, feed))
    except PconvError:  # of a serial session
        raise
    except Exception as error:  # onnxruntime raises its own types, without a common base
        raise PconvError(f"onnxruntime cannot run the model: {error}", "") from error


def batch_size(steps: int, most: int = _BATCH) -> int:
    """Samples, up to `most`, that networks of up to that many time-steps are run on at once."""
    return max(1, min(_BATCH, _ROWS // steps, most))


def batches(samples: Samples, steps: int, most: int = _BATCH) -> list[tuple[slice, dict[str, Array]]]:
    """Feeds of up to `most` samples for networks of up to that many time-steps, and where each comes from."""
    return list(samples.batches(batch_size(steps, most)))


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
    """Along which axis of each of these outputs samples lie; None where along none, or where it cannot be told.

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
        warnings.warn(
            f"along which axis of output '{name}' samples lie cannot be told, so it is compared value by value, "
            f"without classes; give its batch axis as {name}=0 or {name}=1",
            stacklevel=2,
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
