"""Networks run side by side on samples: faults told by name, batches that fit in memory, the output with classes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.basics.foreign_errors import reason_of
from pconv_onnx.data.samples import Samples
from pconv_onnx.graph import Network
from pconv_onnx.graph.tensors import references
from pconv_onnx.operators.contents import contents_of
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


def open_session(
    model: onnx.ModelProto,
    name: str,
    level: Any = None,
    providers: Sequence[Any] | None = None,
    folder: Path | None = None,
    keeps_memory: bool = True,
) -> Any:
    """An onnxruntime session that takes turns with others; a `SerialSession` for a serial network.

    Args:
        model: the network.
        name: what to call it in messages.
        level: onnxruntime's level of graph optimisation; None leaves it as users have it.
        providers: execution providers as `session` takes them.
        folder: where the files of tensors lie that the network keeps in others.
        keeps_memory: whether it keeps the most that it ever took for its next run, which is faster. Where many sessions
            take turns, each would have that.

    Raises:
        PconvError: onnxruntime refuses the model.
    """
    options = import_onnxruntime().SessionOptions()
    options.log_severity_level = 4  # errors are raised; logged as well they would be told twice
    # Threads that spin while they wait would take the cores of the session whose turn it is.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.intra_op_num_threads = _threads
    options.enable_cpu_mem_arena = keeps_memory
    if folder is not None and references(model):
        options.add_session_config_entry(EXTERNAL_DATA_FOLDER, str(folder))
    if level is not None:
        options.graph_optimization_level = level
    opened = SerialSession if contents_of(model).serial else session
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


def run_session(
    runner: Any, feed: dict[str, Array], names: list[str] | None = None, options: Any = None
) -> list[Array]:
    """The outputs of a session, all or those named; of one of onnxruntime's own with its options of a run.

    Raises:
        PconvError: onnxruntime fails while it runs.
    """
    try:
        return list(runner.run(names, feed) if options is None else runner.run(names, feed, options))
    except PconvError:  # of a serial session
        raise
    except Exception as error:  # onnxruntime raises its own types, without a common base
        raise PconvError(f"onnxruntime cannot run the model: {reason_of(error)}", "") from error


def batch_size(steps: int, most: int = _BATCH) -> int:
    """Samples, up to `most`, that networks of up to that many time-steps are run on at once."""
    return max(1, min(_BATCH, _ROWS // steps, most))


def batches(samples: Samples, steps: int, most: int = _BATCH) -> list[tuple[slice, dict[str, Array]]]:
    """Feeds of up to `most` samples for networks of up to that many time-steps, and where each comes from."""
    return list(samples.batches(batch_size(steps, most)))
