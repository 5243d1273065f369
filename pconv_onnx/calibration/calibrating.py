"""`calibrate`: from a network with ReLUs and data to the same network with QCFS activations."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import numpy as np
import onnx

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.choices import CODINGS as CODING_NAMES
from pconv_onnx.basics.choices import MAX_STEPS, METHODS, CodingName
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.basics.places import require_writable
from pconv_onnx.basics.reasons import by_reason
from pconv_onnx.calibration.cache import digest_of, restore, store
from pconv_onnx.calibration.channels import Channels
from pconv_onnx.calibration.functions import becomes_thresholds, clip_of
from pconv_onnx.calibration.passes import BATCH, Passes
from pconv_onnx.calibration.staircases import Staircase
from pconv_onnx.calibration.sweep import Found, sweep
from pconv_onnx.calibration.writing import Quantised, quantised_model
from pconv_onnx.data.reading import open_samples, random_samples
from pconv_onnx.data.samples import BatchAxis, DataSource
from pconv_onnx.engine.shards import Engine, InProcess, shards_of
from pconv_onnx.graph import ModelSource, Network, load, refuse_to_overwrite, require_own_file, save
from pconv_onnx.graph.passes.pipeline import in_standard_operators
from pconv_onnx.graph.tensors import references
from pconv_onnx.neuron.coding import CODINGS, Rate
from pconv_onnx.neuron.parallel import MAX_LEVELS
from pconv_onnx.plan.plan import Plan
from pconv_onnx.plan.planning import make_plan
from pconv_onnx.plan.selection import refuse_spiking
from pconv_onnx.recognise import Activation, recognise
from pconv_onnx.recognise.ascending import ascends
from pconv_onnx.recognise.calibratable import why_not_calibrated
from pconv_onnx.runtime.entrance import prepared
from pconv_onnx.runtime.side_by_side import open_session

# Instead of data: draw them.
RANDOM = "random"


@dataclass(frozen=True, eq=False)
class Calibration:
    """What `calibrate` did.

    Attributes:
        model: the quantised network.
        steps: T.
        coding: in which T steps have the levels.
        levels: how many there are above the lowest.
        method: one of `METHODS`.
        samples: how many samples it saw.
        random: whether they were drawn, so that the result is good for measuring time alone.
        found: staircases and corrected weights.
        left: activations that stay as they are, each with the reason.
        from_cache: whether that was found by an earlier run.
    """

    model: onnx.ModelProto = field(repr=False)
    steps: int
    coding: str
    levels: int
    method: str
    samples: int
    random: bool
    found: Found = field(repr=False)
    left: Sequence[tuple[Activation, str]] = field(repr=False)
    from_cache: bool = False

    def provenance(self) -> dict[str, Any]:
        """What a spiking network made of it keeps: `outputs` are the activations that differ from the source's."""
        outputs = [entry.activation.output.name for entry in self.found.activations]
        return {"method": self.method, "samples": self.samples, "random": self.random, "outputs": outputs}

    def why_it_stays(self, pre_activation: str, op_types: Sequence[str]) -> str:
        """What to tell of an activation of the quantised network that has no levels all the same; empty of others.

        Its name may be another there; the tensor that it reads and its operators are not.
        """
        entries = [entry.activation for entry in self.found.activations if entry.activation_stays]
        stay = [(activation, self._stays(activation)) for activation in entries]
        for one, reason in (*stay, *self.left):
            if one.input.name == pre_activation and one.op_types == list(op_types):
                return reason
        return ""

    def _stays(self, activation: Activation) -> str:
        operators = " ".join(activation.op_types)
        many = ascends(activation) and not becomes_thresholds(activation, self.levels)
        why = "has more levels than thresholds are written for" if many else "does not ascend throughout"
        return f"{operators} {why}: it stays, on the temporal mean, and a neuron encodes its output"

    def summary(self) -> dict[str, Any]:
        """The JSON document of `pconv-onnx calibrate`."""
        rows = [
            {
                "name": entry.activation.name,
                "channels": len(entry.staircase.threshold),
                "silent_channels": int(entry.staircase.silent.sum()),
                "threshold": _range(entry.staircase.threshold[~entry.staircase.silent]),
                "relative_error": error,
                "status": "calibrated",
                "reason": self._stays(entry.activation) if entry.activation_stays else "",
            }
            for entry, error in zip(self.found.activations, self.found.errors, strict=True)
        ]
        rows += [
            {
                "name": activation.name,
                "channels": None,
                "silent_channels": None,
                "threshold": None,
                "relative_error": None,
                "status": activation.status,
                "reason": reason,
            }
            for activation, reason in self.left
        ]
        return {
            "activations": rows,
            "steps": self.steps,
            "coding": self.coding,
            "levels": self.levels,
            "method": self.method,
            "samples": self.samples,
            "random": self.random,
            "from_cache": self.from_cache,
            "corrected_layers": len(self.found.corrections),
            "uncorrected_layers": list(self.found.uncorrected),
            "silent_activations": [
                entry.activation.name for entry in self.found.activations if entry.staircase.silent.all()
            ],
            "spike_driven": self._plan().spike_driven.summary(),
        }

    def _plan(self) -> Plan:
        """What `rewrite` makes of the quantised network in its coding."""
        return make_plan(prepared(self.model), steps=self.steps, coding=cast(CodingName, self.coding))


def calibrate(
    source: ModelSource,
    data: DataSource,
    output: str | os.PathLike[str] | None = None,
    *,
    batch_axis: BatchAxis = 0,
    steps: int,
    coding: CodingName = "auto",
    method: str = METHODS[0],
    cache: str | os.PathLike[str] | None = None,
    force: bool = False,
    engine: Engine | None = None,
) -> Calibration:
    """Replace each ReLU by a quantised activation whose levels T time-steps carry, which `rewrite` converts losslessly.

    A Clip from zero on (ReLU6) is one too. Of any other activation that works element by element the output is
    quantised: it becomes thresholds where it ascends, and stays in front of them where it does not.

    Args:
        source: path of an ONNX file, or a model in memory.
        data: samples as `open_samples` takes them; labels are not looked at. `random` draws them, for benchmarks.
        batch_axis: along which axis of the inputs they lie in the model, as there.
        output: where to write the quantised model; None only returns it.
        steps: T: 1 to 256 in coding `rate`, which has as many levels; 1 to 16 in `radix`, which has 2^T − 1.
        coding: that in which the network is to be rewritten; `auto` is `rate`.
        method: one of `METHODS`; `refit` also corrects weights and biases, the others change activations alone.
        cache: file to keep the calibration in, and to take it from where it is of this model, these data and settings.
        force: allow `output` to be the source.
        engine: where the networks are run; by default in this process.

    Raises:
        PconvError: the model or the data cannot be read or do not fit, no activation can be calibrated, `steps` or
            `method` is not one that there is, or a file to write is one to read, or the other one to write.
    """
    levels, named = _levels(steps, coding), _named(coding)
    if method not in METHODS:
        raise PconvError(f"there is no method '{method}'", f"choose one of {', '.join(METHODS)}")
    if output is not None and not force:
        refuse_to_overwrite(source, output)
    if output is not None:
        require_own_file(output, {"the data": data})
        require_writable(output)
    if cache is not None:
        require_own_file(cache, {"the model": source, "the data": data, "the output": output})
        # One that is there may be only for reading, and what is wanted.
        if not os.path.exists(cache):
            require_writable(cache)
    network = _quantisable(source)
    chosen, left = _activations(network)
    random = isinstance(data, str) and data == RANDOM
    runner = open_session(network.proto, network.name)
    samples = random_samples(runner, batch_axis=batch_axis) if random else open_samples(data, runner, batch_axis)
    del runner
    shards = shards_of(len(samples), samples.fixed_batch or BATCH)
    found = None
    with (engine or InProcess()).crew(partial(Passes, network, samples), shards) as crew:
        if cache is not None:
            key = digest_of(network.sha256, crew.call("digest"), levels, named, method)
            found = restore(cache, key, chosen)
        from_cache = found is not None
        if found is None:
            first, around_zero = samples.part(slice(0, 1)), CODINGS[named].weighted
            found = sweep(network, chosen, first, crew, levels, method, around_zero=around_zero)
            if cache is not None:
                store(cache, key, found)
    left += [(activation, found.left[activation.name]) for activation in chosen if activation.name in found.left]
    _require(found.activations, left, network)
    model = quantised_model(network, found.activations, found.corrections)
    if output is not None:
        save(model, output)
    return Calibration(model, steps, named, levels, method, len(samples), random, found, left, from_cache)


def outline(source: ModelSource, steps: int, *, coding: CodingName = "auto") -> Calibration:
    """What `calibrate` would do, without data: all is as it would be but for values, so that faults can be told early.

    Data may still be such that more activations stay, or that a clip behind one is none.

    Raises:
        PconvError: as `calibrate`.
    """
    levels = _levels(steps, coding)
    network = _quantisable(source)
    chosen, left = _activations(network)
    # Steps and levels that no type rounds, so small that no clip cuts any off, and different, as θ and a are.
    theta, amplitude = (np.full(1, levels * scale) for scale in (2.0**-12, 2.0**-14))
    staircase = Staircase(theta, np.zeros(1), amplitude, levels)
    entries = []
    for activation in chosen:
        channels = Channels(None, len(network.shape(activation.input) or ()))
        # Data may be such that thresholds of one that ascends are evenly spaced.
        alone = becomes_thresholds(activation, levels) or clip_of(activation).rectifies
        offset = None if alone else np.zeros(1)
        entries.append(Quantised(activation, staircase, channels, offset))
    model = quantised_model(network, entries, {})
    return Calibration(model, steps, _named(coding), levels, "", 0, False, Found(entries), left)


def _named(coding: CodingName) -> str:
    """Calibrated levels are for `rate` unless another coding is named."""
    return Rate.name if coding == "auto" else coding


def _levels(steps: object, coding: CodingName) -> int:
    """How many levels so many time-steps have.

    Raises:
        PconvError: there is no such coding, or it has no staircases in so many steps.
    """
    if coding not in CODING_NAMES:
        raise PconvError(f"there is no coding '{coding}'", f"choose {', '.join(CODING_NAMES)}")
    chosen = CODINGS[_named(coding)]
    most = MAX_STEPS if chosen is Rate else chosen.steps_for(MAX_LEVELS)
    if not isinstance(steps, int) or not 1 <= steps <= most:
        told = "" if chosen is Rate else f" to calibrate to in coding '{coding}'"
        raise PconvError(f"{steps!r} is not a number of time-steps{told}", f"choose 1 to {most}")
    return chosen.most(steps)


def _quantisable(source: ModelSource) -> Network:
    """The network as it is calibrated.

    Raises:
        PconvError: it cannot be read, is too large, or is a spiking one.
    """
    network = load(source)
    if references(network.proto):
        raise PconvError(
            f"{network.name} is too large for one file, and calibration takes models that are not",
            "quantise it where it is trained (QCFS)",
        )
    network = prepared(network)
    refuse_spiking(network)
    return in_standard_operators(network)


def _range(values: Array) -> list[float] | None:
    """Least and largest; None of nothing."""
    return [float(values.min()), float(values.max())] if values.size else None


def _require(chosen: Sequence[object], left: Sequence[tuple[Activation, str]], network: Network) -> None:
    """Raise where no activation can be calibrated.

    Raises:
        PconvError: none can; it tells why.
    """
    if not chosen:
        told = by_reason((activation.name, reason) for activation, reason in left) or "it has no activation"
        raise PconvError(f"nothing to calibrate in {network.name}: {told}")


def _activations(network: Network) -> tuple[list[Activation], list[tuple[Activation, str]]]:
    """Those without levels: the ones that can be calibrated, and the others with the reason.

    Raises:
        PconvError: none can.
    """
    chosen, left = [], []
    found = recognise(network)
    without = [activation for activation in found if activation.spec is None]
    if found and not without:
        told = f"all of its activations ({len(found)}) have levels of their own"
        raise PconvError(f"nothing to calibrate in {network.name}: {told}", "pass it to pconv-onnx rewrite")
    for activation in without:
        reason = why_not_calibrated(network, activation)
        if reason:
            left.append((activation, reason))
        else:
            chosen.append(activation)
    _require(chosen, left, network)
    return chosen, left
