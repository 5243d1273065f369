"""The modes of a rewritten network: which neurons each has, what it refuses and keeps in time. One class a mode."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from pconv_onnx.basics import choices
from pconv_onnx.basics.choices import MAX_STEPS, Precision
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.graph import Network
from pconv_onnx.graph.record import InTime
from pconv_onnx.neuron.coding import Coding
from pconv_onnx.neuron.parallel import ParallelNeuron
from pconv_onnx.neuron.quantiser import Neuron, QuantizerSpec
from pconv_onnx.plan.one_step import refuse_different_steps, refuse_what_one_step_cannot_do, why_no_potentials
from pconv_onnx.plan.wanted import Wanted
from pconv_onnx.recognise import Activation
from pconv_onnx.temporal.kinds import Kind, Passage


class Mode:
    """What flows in a rewritten network. Modes have no state: there is one object of each, in `MODES`.

    Attributes:
        name: its name for users.
        codes: whether its spikes may have weights and signs.
        keeps_time: whether spike trains flow, so that tensors in time have a time axis in the graph.
        one_step: whether the graph is one time-step, which a `SerialSession` repeats. Its outputs depend on when spikes
            arrive, and differ from the source's.
    """

    name: choices.ModeName
    codes = True
    keeps_time = False
    one_step = False

    def __repr__(self) -> str:
        """Its name."""
        return self.name

    def __reduce__(self) -> tuple[object, tuple[str]]:
        """Pickled by name: there is one object of each mode."""
        return mode_of, (self.name,)

    def time_steps(self, kinds: Mapping[str, Kind | InTime]) -> dict[str, int]:
        """The number of time-steps of the tensors that have a time axis in the graph, by name."""
        return {name: kind.steps for name, kind in kinds.items()} if self.keeps_time else {}

    def neuron(self, spec: QuantizerSpec, wanted: Wanted) -> Neuron:
        """The neuron of a quantiser, with the wanted steps, coding and type.

        Raises:
            ValueError: there is none, or no train carries its values; the text is for users.
        """
        raise NotImplementedError

    def why_not(self, activation: Activation, network: Network) -> str:
        """Why an activation with levels can have no neuron in this mode; empty if it can, as far as is known here."""
        return ""

    def refuse_neurons(self, network: Network, neurons: Mapping[str, Neuron]) -> None:
        """Raise if these neurons, by the names of their activations, cannot be in one network.

        Raises:
            PconvError: they differ in something that all neurons must share.
        """

    def refuse_nodes(
        self,
        network: Network,
        activations: Sequence[Activation],
        replaced: Collection[str],
        passages: Mapping[str, Passage],
        kinds: Mapping[str, Kind],
    ) -> None:
        """Raise if a node that stays cannot run in this mode.

        Raises:
            PconvError: a node cannot run.
        """


class _OfTrains(Mode):
    """Modes in which spike trains flow, all time-steps at once."""

    def neuron(self, spec: QuantizerSpec, wanted: Wanted) -> Neuron:
        reasons = []
        for coding in wanted.codings(spec):
            neuron = _parallel_neuron(spec, wanted, coding)
            too_long = _too_long(neuron.steps, neuron.highest)
            reason = f"{too_long}; coding 'radix' takes fewer" if too_long else neuron.why_not_carried
            if not reason:
                return neuron
            reasons.append(reason)
        raise ValueError(f"{reasons[0]}; mode 'folded' takes it")


class _Parallel(_OfTrains):
    """Spike trains flow as floats."""

    name = "parallel"
    keeps_time = True


class _OfMeans(Mode):
    """Modes in which one value stands for each train."""

    def neuron(self, spec: QuantizerSpec, wanted: Wanted) -> Neuron:
        return _parallel_neuron(spec, wanted, next(wanted.codings(spec)))


class _Folded(_OfMeans):
    """Temporal means of trains flow."""

    name = "folded"


class _Integer(_OfMeans):
    """Spike counts flow, between layers of integer weights."""

    name = "integer"


class _IntegerParallel(_OfTrains):
    """Spike trains flow as digits of one byte, between the same layers as in mode `integer`."""

    name = "integer-parallel"


class _Serial(Mode):
    """One time-step flows, and membrane potentials are kept from each step to the next."""

    name = "serial"
    codes = False
    one_step = True

    def neuron(self, spec: QuantizerSpec, wanted: Wanted) -> Neuron:
        if reason := _too_long(wanted.steps or spec.levels, spec.levels):
            raise ValueError(f"{reason}; `mode='folded'` takes it, as do fewer `steps=`")
        neuron = spec.serial_neuron(wanted.steps)
        dtype = _asked_for(spec, wanted.precision)
        return neuron if dtype is None else neuron.astype(dtype)

    why_not = staticmethod(why_no_potentials)
    refuse_neurons = staticmethod(refuse_different_steps)
    refuse_nodes = staticmethod(refuse_what_one_step_cannot_do)


PARALLEL, FOLDED, SERIAL = _Parallel(), _Folded(), _Serial()
INTEGER, INTEGER_PARALLEL = _Integer(), _IntegerParallel()
# The modes with layers of integers.
OF_INTEGERS = (INTEGER, INTEGER_PARALLEL)
# All modes, by name.
MODES: dict[str, Mode] = {mode.name: mode for mode in (PARALLEL, FOLDED, SERIAL, *OF_INTEGERS)}


def mode_of(name: str) -> Mode:
    """The mode of this name.

    Raises:
        PconvError: there is none.
    """
    if name not in tuple(MODES):
        raise PconvError(f"there is no mode '{name}'", f"choose one of {', '.join(MODES)}")
    return MODES[name]


def _too_long(steps: int, levels: int) -> str:
    """Why a train of `rate` cannot have this number of time-steps; empty if it can. Other codings need fewer."""
    return (
        f"it has {levels} levels and a train of coding 'rate' has up to {MAX_STEPS} steps" if steps > MAX_STEPS else ""
    )


def _parallel_neuron(spec: QuantizerSpec, wanted: Wanted, coding: type[Coding]) -> ParallelNeuron:
    neuron = spec.neuron(wanted.steps, coding, wanted.zero(spec))
    dtype = _asked_for(spec, wanted.precision)
    return neuron if dtype is None else neuron.astype(dtype)


def _asked_for(spec: QuantizerSpec, precision: Precision | None) -> np.dtype | None:
    """The type in which neurons compute; None if it is the source's."""
    if precision is not None and spec.dtype != np.float32:
        raise ValueError(f"it computes in {spec.dtype}; precision {precision} is for networks that compute in float32")
    return None if precision is None else np.dtype(precision)
