"""Serial networks: one time-step a run, with the membrane potentials kept between runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from pconv_onnx.device_memory import place_of, zeros
from pconv_onnx.errors import PconvError
from pconv_onnx.graph import ModelSource
from pconv_onnx.neuron import SUM_TYPES, Array, temporal_mean
from pconv_onnx.provenance import own, potentials
from pconv_onnx.runtime import inference_session

if TYPE_CHECKING:
    import onnxruntime


class SerialSession:
    """A network that `rewrite` wrote in mode `serial`, stepped through time.

    Potentials stay where the network computes, in memory of their own: a time-step reads and writes them there. Several
    threads may share a session; their runs take turns, and `step` continues whoever stepped last.

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
        """Open it; the arguments are those of `session`.

        Raises:
            PconvError: onnxruntime is missing, or refuses the model or the providers; the model is no serial network.
        """
        self.session = inference_session(model, providers=providers, options=options, potentials_stay=True)
        entries = own(self.session.get_modelmeta().custom_metadata_map)
        self._potentials = potentials(entries)
        if not self._potentials:
            raise PconvError("the model is no serial network", "write one with rewrite, mode 'serial'")
        self.steps = int(entries["steps"])
        self._place = place_of(self.session)
        self._inputs = [info for info in self.session.get_inputs() if info.name not in self._potentials]
        kept = set(self._potentials.values())
        self._outputs = [info for info in self.session.get_outputs() if info.name not in kept]
        self._state: dict[str, Any] = {}
        self._lock = Lock()

    def get_inputs(self) -> list[Any]:
        """The inputs of the network, without the potentials, as onnxruntime describes them."""
        return list(self._inputs)

    def get_outputs(self) -> list[Any]:
        """The outputs of the network, without the potentials."""
        return list(self._outputs)

    def reset(self) -> None:
        """Put every membrane potential back to its initial charge."""
        with self._lock:
            self._state.clear()

    def step(self, output_names: Sequence[str] | None, feed: Mapping[str, Array]) -> list[Array]:
        """One time-step, from the potentials that the last one left.

        Args:
            output_names: the outputs wanted; None for all.
            feed: the inputs of this time-step, by name; they may be others at each.

        Raises:
            PconvError: an input is missing, its shape is not that of the last time-step, or the network cannot be run.
        """
        with self._lock:
            return self._steps(output_names, feed, 1)[0]

    def run(
        self, output_names: Sequence[str] | None, feed: Mapping[str, Array], steps: int | None = None
    ) -> list[Array]:
        """The temporal means of T time-steps on the same inputs from the initial charge; the potentials stay there.

        Args:
            output_names: the outputs wanted; None for all.
            feed: the inputs, by name.
            steps: T; by default what the network was rewritten for, which its initial charge is best for.

        Raises:
            PconvError: as `step`.
        """
        by_step = self.run_per_step(output_names, feed, steps)
        # What is no float does not depend on spikes, and is the same at each step.
        return [temporal_mean(output) if output.dtype in SUM_TYPES else output[-1] for output in by_step]

    def run_per_step(
        self, output_names: Sequence[str] | None, feed: Mapping[str, Array], steps: int | None = None
    ) -> list[Array]:
        """What `run` takes the means of: the outputs of each time-step, `[T, B, …]`."""
        count = self.steps if steps is None else steps
        if count < 1:
            raise PconvError(f"{count} is not a number of time-steps", "choose 1 or more")
        with self._lock:
            self._state.clear()
            by_step = self._steps(output_names, feed, count)
        return [np.stack(outputs) for outputs in zip(*by_step, strict=True)]

    def _steps(self, output_names: Sequence[str] | None, feed: Mapping[str, Array], count: int) -> list[list[Array]]:
        """The outputs of so many time-steps on the same inputs."""
        from onnxruntime import OrtValue

        self._fit_potentials(feed)
        names = [info.name for info in self._outputs] if output_names is None else list(output_names)
        try:
            binding = self.session.io_binding()
            for name, value in feed.items():
                array = np.ascontiguousarray(value)
                binding.bind_ortvalue_input(name, OrtValue.ortvalue_from_numpy(array, *self._place))
            for before, after in self._potentials.items():
                # In one place: a neuron reads its potential before it writes it.
                binding.bind_ortvalue_input(before, self._state[before])
                binding.bind_ortvalue_output(after, self._state[before])
            by_step = []
            for _ in range(count):
                for name in names:
                    binding.bind_output(name)
                self.session.run_with_iobinding(binding)
                by_step.append([value.numpy().copy() for value in binding.get_outputs()[len(self._potentials) :]])
        except Exception as error:  # onnxruntime raises its own types, without a common base
            self._state.clear()
            raise PconvError(f"onnxruntime cannot run the network: {error}", "") from error
        return by_step

    def _fit_potentials(self, feed: Mapping[str, Array]) -> None:
        """Give each potential its memory, at the first time-step; at later ones that memory has to fit."""
        sizes: dict[Any, int] = {}
        for info in self._inputs:
            if info.name not in feed:
                raise PconvError(f"the input '{info.name}' is missing", "pass an array for it")
            sizes.update(zip(info.shape, np.shape(feed[info.name]), strict=False))
        rows = next((np.shape(feed[info.name])[0] for info in self._inputs if info.shape), None)
        for info in self.session.get_inputs():
            if info.name not in self._potentials:
                continue
            known = [size if isinstance(size, int) else sizes.get(size) for size in info.shape]
            if known[:1] == [None]:
                known[0] = rows
            shape = [size for size in known if size is not None]
            if len(shape) < len(known):
                raise PconvError(
                    f"the shape of '{info.name}', {info.shape}, does not follow from the inputs", "fix it in the ANN"
                )
            if info.name not in self._state:
                self._state[info.name] = zeros(shape, info.type, self._place)
            elif self._state[info.name].shape() != shape:
                raise PconvError(
                    f"the inputs of this time-step need potentials of shape {shape}, and those of '{info.name}' are "
                    f"{self._state[info.name].shape()}",
                    "reset() the session before other sizes",
                )
