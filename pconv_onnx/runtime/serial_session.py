"""Sessions of serial networks: each run is one time-step, and membrane potentials are kept between runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.errors import PconvError, listed
from pconv_onnx.basics.foreign_errors import reason_of
from pconv_onnx.graph import ModelSource
from pconv_onnx.graph.record import Record
from pconv_onnx.neuron.theory import SUM_TYPES, temporal_mean
from pconv_onnx.runtime.device_memory import dtype_of, place_of, zeros
from pconv_onnx.runtime.opening import inference_session

if TYPE_CHECKING:
    import onnxruntime


class SerialSession:
    """A network that `rewrite` wrote in mode `serial`, stepped through time.

    Membrane potentials stay on the device on which the network computes: a time-step reads and writes them there.
    Several threads may share a session; their runs take turns, and `step` continues from the last step of any thread.

    Attributes:
        session: the onnxruntime session of one time-step.
        steps: T, the number of time-steps that the network was rewritten for.
    """

    def __init__(
        self,
        model: ModelSource,
        *,
        providers: Sequence[Any] | None = None,
        options: onnxruntime.SessionOptions | None = None,
    ) -> None:
        """Open a serial network; the arguments are those of `session`.

        Raises:
            PconvError: onnxruntime is missing, or refuses the model or the providers; the model is not a serial
                network.
        """
        self.session = inference_session(model, providers=providers, options=options, potentials_stay=True)
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        self._potentials: Mapping[str, str] = {}
        with suppress(ValueError):
            record = Record.of(self.session.get_modelmeta().custom_metadata_map)
            if record.steps is not None:
                self._potentials, self.steps = record.potentials, record.steps
        kept = set(self._potentials.values())
        # Other tools may have renamed what is recorded, or dropped the record.
        there = self._potentials.keys() <= {info.name for info in inputs} and kept <= {info.name for info in outputs}
        if not self._potentials or not there:
            raise PconvError(
                "the model is not a serial network as rewrite writes it", "write one with rewrite, mode 'serial'"
            )
        self._place = place_of(self.session)
        self._inputs = [info for info in inputs if info.name not in self._potentials]
        self._outputs = [info for info in outputs if info.name not in kept]
        self._memory: _Memory | None = None
        self._lock = Lock()

    def get_inputs(self) -> list[Any]:
        """The inputs of the network, without membrane potentials, as onnxruntime describes them."""
        return list(self._inputs)

    def get_outputs(self) -> list[Any]:
        """The outputs of the network, without membrane potentials, as onnxruntime describes them."""
        return list(self._outputs)

    def reset(self) -> None:
        """Set every membrane potential back to its initial value."""
        with self._lock:
            self._memory = None

    def step(self, output_names: Sequence[str] | None, feed: Mapping[str, Array]) -> list[Array]:
        """Run one time-step, from the membrane potentials of the last one.

        Args:
            output_names: the outputs wanted; None for all.
            feed: the inputs of this time-step, by name; they may change from step to step.

        Raises:
            PconvError: an input is missing, its shape is not that of the last time-step, there is no output of that
                name, or the network cannot be run.
        """
        with self._lock:
            return self._steps(output_names, feed, 1)[0]

    def run(
        self, output_names: Sequence[str] | None, feed: Mapping[str, Array], steps: int | None = None
    ) -> list[Array]:
        """The temporal means of the outputs over T time-steps on the same inputs, from the initial potentials.

        Args:
            output_names: the outputs wanted; None for all.
            feed: the inputs, by name.
            steps: number of time-steps T; by default that of the network, for which its initial potentials were chosen.

        Raises:
            PconvError: as `step`.
        """
        by_step = self.run_per_step(output_names, feed, steps)
        # Outputs that are not floats do not depend on spikes, and are the same at each step.
        return [temporal_mean(output) if output.dtype in SUM_TYPES else output[-1] for output in by_step]

    def run_per_step(
        self, output_names: Sequence[str] | None, feed: Mapping[str, Array], steps: int | None = None
    ) -> list[Array]:
        """The outputs of each time-step, `[T, B, …]`, of which `run` takes the means; arguments are those of `run`."""
        count = self.steps if steps is None else steps
        if count < 1:
            raise PconvError(f"{count} is not a number of time-steps", "choose 1 or more")
        with self._lock:
            self._memory = None
            by_step = self._steps(output_names, feed, count)
        return [np.stack(outputs) for outputs in zip(*by_step, strict=True)]

    def _steps(self, output_names: Sequence[str] | None, feed: Mapping[str, Array], count: int) -> list[list[Array]]:
        """The outputs of so many time-steps on the same inputs."""
        names = [info.name for info in self._outputs]
        for name in output_names or ():
            if name not in names:
                raise PconvError(f"there is no output '{name}'", f"the network has {listed(names)}")
        wanted = [names.index(name) for name in output_names or names]
        for info in self._inputs:
            if info.name not in feed:
                raise PconvError(f"the input '{info.name}' is missing", "pass an array for it")
        if self._memory is None:
            self._memory = _Memory(self.session, self._potentials, self._place, feed)
        self._memory.fill(feed)
        try:
            by_step = []
            for _ in range(count):
                self.session.run_with_iobinding(self._memory.binding)
                outputs = self._memory.binding.get_outputs()
                # Of memory on the CPU it would be a view, which the next time-step writes.
                by_step.append([outputs[index].numpy().copy() for index in wanted])
        except Exception as error:  # onnxruntime raises its own types, without a common base
            self._memory = None
            raise PconvError(f"onnxruntime cannot run the network: {reason_of(error)}", "") from error
        return by_step


class _Memory:
    """Where the inputs and potentials of runs of one size lie, and the binding of the session to them."""

    def __init__(
        self, session: Any, potentials: Mapping[str, str], place: tuple[str, int], feed: Mapping[str, Array]
    ) -> None:
        """Give them memory, potentials of zero; the feed tells sizes.

        Raises:
            PconvError: a size cannot be told, or is more than there is memory for.
        """
        infos = session.get_inputs()
        own = [info for info in infos if info.name not in potentials]
        shapes = {info.name: np.shape(feed[info.name]) for info in own}
        # A dimension without a name is None, and says nothing of others.
        sizes = {
            size: given
            for info in own
            for size, given in zip(info.shape, shapes[info.name], strict=False)
            if size is not None
        }
        rows = next((shape[0] for shape in shapes.values() if shape), None)
        self.inputs = {info.name: zeros(shapes[info.name], info.type, place) for info in own}
        self.potentials = {
            info.name: _silent(info, _shape(info, sizes, rows), place) for info in infos if info.name in potentials
        }
        self.binding = session.io_binding()
        for name, value in (self.inputs | self.potentials).items():
            self.binding.bind_ortvalue_input(name, value)
        for info in session.get_outputs():
            if info.name not in potentials.values():
                self.binding.bind_output(info.name, *place)
        for before, after in potentials.items():
            # In one place: a neuron reads its potential before it writes it.
            self.binding.bind_ortvalue_output(after, self.potentials[before])

    def fill(self, feed: Mapping[str, Array]) -> None:
        """Write the inputs of a time-step.

        Raises:
            PconvError: one has another shape or type than there is room for.
        """
        for name, memory in self.inputs.items():
            value, dtype = np.asarray(feed[name], order="C"), dtype_of(memory.data_type())
            if value.dtype != dtype:
                raise PconvError(f"the input '{name}' is {value.dtype}; the network takes {dtype}", "convert it")
            if list(value.shape) != memory.shape():
                raise PconvError(
                    f"the input '{name}' has shape {list(value.shape)}, potentials are for {memory.shape()}",
                    "reset() the session before other sizes",
                )
            memory.update_inplace(value)


def _silent(info: Any, shape: list[int], place: tuple[str, int]) -> Any:
    """A potential of zero.

    Raises:
        PconvError: no memory has room for it.
    """
    try:
        return zeros(shape, info.type, place)
    except (MemoryError, ValueError) as error:  # NumPy has both of what is too large
        raise PconvError(f"there is no room for '{info.name}' of shape {shape}", "rewrite the ANN again") from error


def _shape(info: Any, sizes: Mapping[Any, int], rows: int | None) -> list[int]:
    """The shape of a potential, where dimensions of that name have these sizes and the first counts rows.

    Raises:
        PconvError: a size is not known.
    """
    known = [size if isinstance(size, int) else sizes.get(size) for size in info.shape]
    if known[:1] == [None]:
        known[0] = rows
    shape = [size for size in known if size is not None]
    if len(shape) < len(known):
        raise PconvError(
            f"the shape of '{info.name}', {info.shape}, does not follow from the inputs",
            "give the inputs of the ANN fixed sizes, and rewrite it again",
        )
    return shape
