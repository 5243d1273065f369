"""The modes of a rewritten network: what each asks of its neurons, refuses, and keeps in time. One class a mode."""

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
        name: what users call it.
        codes: whether its spikes may have weights and signs.
        keeps_time: whether tensors in time have a time axis in the graph, and trains flow.
        one_step: whether the graph is one time-step, which a `SerialSession` repeats: what it gives depends on when
            spikes arrive, and is not the source's.
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
        """Of the tensors in time that have a time axis in the graph their time-steps, by name."""
        return {name: kind.steps for name, kind in kinds.items()} if self.keeps_time else {}

    def neuron(self, spec: QuantizerSpec, wanted: Wanted) -> Neuron:
        """The neuron of a quantiser, as it is wanted.

        Raises:
            ValueError: there is none, or nothing carries its values; why, in words that a user can act on.
        """
        raise NotImplementedError

    def why_not(self, activation: Activation, network: Network) -> str:
        """Why an activation that has levels has no neuron in this mode; empty where that is not known of it."""
        return ""

    def refuse_neurons(self, network: Network, neurons: Mapping[str, Neuron]) -> None:
        """Raise where these neurons, by the names of their activations, cannot be in one network.

        Raises:
            PconvError: they cannot.
        """

    def refuse_nodes(
        self,
        network: Network,
        activations: Sequence[Activation],
        replaced: Collection[str],
        passages: Mapping[str, Passage],
        kinds: Mapping[str, Kind],
    ) -> None:
        """Raise where a node that stays cannot be run.

        Raises:
            PconvError: one cannot.
        """


class _OfTrains(Mode):
    """Spike trains flow, all time-steps at once."""

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
    """They do so as floats."""

    name = "parallel"
    keeps_time = True


class _OfMeans(Mode):
    """What stands for trains flows, in one step."""

    def neuron(self, spec: QuantizerSpec, wanted: Wanted) -> Neuron:
        return _parallel_neuron(spec, wanted, next(wanted.codings(spec)))


class _Folded(_OfMeans):
    """Temporal means of trains flow."""

    name = "folded"


class _Integer(_OfMeans):
    """Spike counts flow, between layers of integer weights."""

    name = "integer"


class _IntegerParallel(_OfTrains):
    """They do so as digits, a byte each, between the same layers; carriers are those of mode `integer`."""

    name = "integer-parallel"


class _Serial(Mode):
    """One time-step flows, and membrane potentials are kept from one to the next."""

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
# Those of layers of integers.
OF_INTEGERS = (INTEGER, INTEGER_PARALLEL)
# One row a mode.
MODES: dict[str, Mode] = {mode.name: mode for mode in (PARALLEL, FOLDED, SERIAL, *OF_INTEGERS)}


def mode_of(name: str) -> Mode:
    """The mode that users call so.

    Raises:
        PconvError: there is none.
    """
    if name not in tuple(MODES):
        raise PconvError(f"there is no mode '{name}'", f"choose one of {', '.join(MODES)}")
    return MODES[name]


def _too_long(steps: int, levels: int) -> str:
    """Why so many time-steps are none of a train of `rate`, the only coding of so many; empty where they are."""
    return (
        f"it has {levels} levels and a train of coding 'rate' has up to {MAX_STEPS} steps" if steps > MAX_STEPS else ""
    )


def _parallel_neuron(spec: QuantizerSpec, wanted: Wanted, coding: type[Coding]) -> ParallelNeuron:
    neuron = spec.neuron(wanted.steps, coding, wanted.zero(spec))
    dtype = _asked_for(spec, wanted.precision)
    return neuron if dtype is None else neuron.astype(dtype)


def _asked_for(spec: QuantizerSpec, precision: Precision | None) -> np.dtype | None:
    """The type that neurons are to compute in; None leaves them that of their source."""
    if precision is not None and spec.dtype != np.float32:
        raise ValueError(f"it computes in {spec.dtype}; precision {precision} is for what computes in float32")
    return None if precision is None else np.dtype(precision)
