"""`calibrate`: from a network and data to the same network with levels, in activations and in front of products."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from typing import Any, cast

import onnx

from pconv_onnx.answers.lines import calibration_lines
from pconv_onnx.answers.printing import Part, Printed
from pconv_onnx.basics.arguments import each_number
from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.choices import CODINGS as CODING_NAMES
from pconv_onnx.basics.choices import METHODS, NEURONS, READOUTS, REFIT, TUNE, CodingName, NeuronsName, ReadoutsName
from pconv_onnx.basics.errors import PconvError, WrongArguments
from pconv_onnx.basics.places import PLACE_OF_STEPS, for_steps, require_writable
from pconv_onnx.basics.progress import Progress, shows_progress
from pconv_onnx.calibration.cache import RESULT, SWEEP, digest_of, restore, store
from pconv_onnx.calibration.functions import becomes_thresholds
from pconv_onnx.calibration.holding import few, held_out
from pconv_onnx.calibration.keeping import Kept, keeping
from pconv_onnx.calibration.mixing import MOST_MIXING, allotments
from pconv_onnx.calibration.outcome import Outcome, finite, outcomes_of, sensitivities
from pconv_onnx.calibration.passes import BATCH, Passes
from pconv_onnx.calibration.places import NORMALISED
from pconv_onnx.calibration.rules import output_errors, shares
from pconv_onnx.calibration.settings import RULES, Settings, most_steps, require_neurons
from pconv_onnx.calibration.subjects import Told, outlined, quantisable, require, to_calibrate
from pconv_onnx.calibration.sweep import Found, Task, sweep
from pconv_onnx.calibration.writing import Quantised, quantised_model
from pconv_onnx.data.reading import open_samples, random_samples
from pconv_onnx.data.samples import BatchAxis, Data, DataSource
from pconv_onnx.engine.shards import Crew, Engine, InProcess, shards_of
from pconv_onnx.graph import ModelSource, Network, refuse_to_overwrite, require_own_file, save
from pconv_onnx.neuron.coding import CODINGS, Rate, reach_of
from pconv_onnx.plan.plan import Plan
from pconv_onnx.plan.planning import make_plan
from pconv_onnx.recognise import Activation
from pconv_onnx.recognise.ascending import ascends
from pconv_onnx.runtime.entrance import prepared
from pconv_onnx.runtime.side_by_side import open_session

# Instead of data: draw them.
RANDOM = "random"


@dataclass(frozen=True, eq=False)
class Calibration(Printed):
    """What `calibrate` did.

    Attributes:
        model: the quantised network.
        steps: number of time-steps, T; where they are mixed, the mean that was asked for.
        settings: the arguments of the calibration.
        samples: number of samples on which it was calibrated.
        random: whether samples were drawn at random, so that the result is good only for measuring time.
        found: staircases and corrected weights.
        left: activations that stay as they are, each with the reason.
        from_cache: whether `found` comes from an earlier run.
        outcome: how the outputs changed; None for random data.
    """

    model: onnx.ModelProto = field(repr=False)
    steps: int
    settings: Settings
    samples: int
    random: bool
    found: Found = field(repr=False)
    left: Sequence[Told] = field(repr=False)
    from_cache: bool = False
    outcome: Outcome | None = None

    def provenance(self) -> dict[str, Any]:
        """The entry in the record of a spiking network; `outputs` are the activations that differ from the source's."""
        outputs = [entry.activation.output.name for entry in self.found.activations]
        return {"method": self.settings.method, "samples": self.samples, "random": self.random, "outputs": outputs}

    def why_it_stays(self, pre_activation: str, op_types: Sequence[str]) -> str:
        """Why an activation of the quantised network still has no levels; empty for other activations.

        It is found by its input and its operators, since its name may have changed.
        """
        entries = [entry.activation for entry in self.found.activations if entry.activation_stays]
        stay = [(activation, self._stays(activation)) for activation in entries]
        for one, reason in (*stay, *self.left):
            if one.input.name == pre_activation and one.op_types == list(op_types):
                return reason
        return ""

    def _told(self, entry: Quantised) -> str:
        """A remark on the replacement of an activation; may be empty."""
        if entry.activation_stays:
            return self._stays(entry.activation)
        return NORMALISED if entry.activation.reason.endswith(NORMALISED) else ""

    def _stays(self, activation: Activation) -> str:
        operators = " ".join(activation.op_types)
        many = ascends(activation) and not becomes_thresholds(activation, self.settings.of(activation).levels)
        why = "has more levels than thresholds are written for" if many else "does not ascend throughout"
        return f"{operators} {why}: it stays, on the temporal mean, and a neuron encodes its output"

    def summary(self) -> dict[str, Any]:
        """The JSON document of `pconv-onnx calibrate`."""
        return {**self.found_summary(), "spike_driven": self._plan().spike_driven.summary()}

    def _answer(self, document: dict[str, Any]) -> Iterator[Part]:
        return calibration_lines(document)

    def found_summary(self) -> dict[str, Any]:
        """What was found: its part of that of `pconv-onnx rewrite`, which has a plan of its own."""
        sensitivity = {} if self.outcome is None else self.outcome.sensitivity
        rows = [
            {
                "name": entry.activation.name,
                "encoding": entry.activation.encoding,
                "steps": self.settings.coding.steps_for(reach_of(entry.staircase.steps, entry.staircase.zero)),
                "channels": len(entry.staircase.threshold),
                "silent_channels": int(entry.staircase.silent.sum()),
                "threshold": _range(entry.staircase.threshold[~entry.staircase.silent]),
                "relative_error": error,
                "sensitivity": finite(sensitivity.get(entry.activation.name)),
                "status": "calibrated",
                "reason": self._told(entry),
            }
            for entry, error in zip(self.found.activations, self.found.errors, strict=True)
        ]
        rows += [
            {
                "name": activation.name,
                "encoding": activation.encoding,
                "steps": None,
                "channels": None,
                "silent_channels": None,
                "threshold": None,
                "relative_error": None,
                "sensitivity": None,
                "status": activation.status,
                "reason": reason,
            }
            for activation, reason in self.left
        ]
        return {
            "activations": rows,
            "steps": self.steps,
            "mixed": self.settings.mixed,
            "coding": self.settings.coding.name,
            "neurons": self.settings.neurons,
            "readouts": self.settings.readouts,
            "levels": self.settings.levels,
            "method": self.settings.method,
            "scale_rule": self.found.rule,
            "scale_errors": {rule: finite(error) for rule, error in self.found.rule_errors.items()},
            "tuning_errors": {name: finite(error) for name, error in self.found.tuning_errors.items()},
            "samples": self.samples,
            "outcome": None if self.outcome is None else self.outcome.summary(),
            "random": self.random,
            "from_cache": self.from_cache,
            "corrected_layers": len(self.found.corrections),
            "uncorrected_layers": list(self.found.uncorrected),
            "silent_activations": [
                entry.activation.name for entry in self.found.activations if entry.staircase.silent.all()
            ],
        }

    def _plan(self) -> Plan:
        """What `rewrite` makes of the quantised network in its coding."""
        steps = None if self.settings.mixed else self.steps
        return make_plan(prepared(self.model), steps=steps, coding=cast(CodingName, self.settings.coding.name))


@shows_progress
def calibrate(
    source: ModelSource,
    data: DataSource,
    output: str | os.PathLike[str] | None = None,
    *,
    batch_axis: BatchAxis = 0,
    steps: int,
    coding: CodingName = "auto",
    neurons: NeuronsName = NEURONS[0],
    signed: bool = False,
    readouts: ReadoutsName = READOUTS[0],
    method: str = METHODS[0],
    mixed: bool = False,
    sensitivity: bool = False,
    cache: str | os.PathLike[str] | None = None,
    force: bool = False,
    engine: Engine | None = None,
    progress: Progress = None,
) -> Calibration:
    """Replace each ReLU by a quantised activation whose levels T time-steps carry, which `rewrite` converts losslessly.

    Some samples are held out to compare the outputs of both networks on them: see `outcome` of the result.

    A Clip from zero on (ReLU6) counts as a ReLU. For other element-wise activations the output is quantised: an
    activation that ascends becomes thresholds on its input, any other stays in front of thresholds on its output. Zero
    is a level; on each side of it there are at most as many levels as T time-steps carry.

    Args:
        source: path of an ONNX file, or a model in memory.
        data: samples (docs/data.md). The path of an `.npz` with arrays named as the inputs, of a Parquet file with such
            columns, of a folder with such files, or of a recipe for pictures; a mapping of arrays by the names of
            inputs; one array for a model with one input, or a tuple of arrays for all inputs, with labels behind them;
            a Dataset of PyTorch or of Hugging Face; or an iterable of batches, such as a DataLoader or an object with
            onnxruntime's `get_next()`. The first axis of each array counts samples. Labels are ignored. `random` draws
            samples, for benchmarks.
        batch_axis: the axis of the model's inputs that counts samples: a number for all inputs, or a mapping by name,
            in which the empty name stands for all others (by default 0). None means an input without such an axis.
            Outputs may be named as well.
        output: where to write the quantised model; None only returns it. `{steps}` in the name stands for T.
        steps: number of time-steps T: 1 to 256 in coding `rate`, for T levels; 1 to 16 in `radix`, for 2^T − 1 levels.
        coding: the coding in which the network will be rewritten; `auto` is `rate`.
        neurons: `products` also quantises the tensors that products would otherwise read without spikes: residual sums,
            linear bottlenecks, averages, gates. Tensors made from the network's inputs alone are left out.
        signed: give levels an offset instead of a zero in the middle, as mode `serial` and `rewrite(..., signed=True)`
            need them.
        readouts: `analog` leaves activations as they are of which nothing is multiplied any more: only outputs read
            them, so spikes would save nothing there, and levels would cost accuracy. The layer in front is corrected as
            others are. `spiking` gives them levels too, as mode `serial`, outputs at each step and layers of integers
            need them.
        method: `refit` also corrects weights and biases; `tune` goes on from there by gradients, and needs PyTorch;
            `fit`, `da-qcfs`, `mse+da-qcfs`, `percentile+da-qcfs`, `mse`, `percentile` and `max` change only activations
            (docs/calibration.md).
        mixed: give each activation a number of time-steps of its own, from T/2 to 8·T, and more where the outputs lose
            more; with as many time-steps times multiply-accumulates as T has everywhere, or fewer. Pass the same
            `coding=` to `rewrite` then, and no `steps=`.
        sensitivity: measure for each activation what the outputs lose if it alone is quantised; this takes a few runs
            of the network for each.
        cache: keep the calibration in this file, and reuse it if the model, the data and the settings are the same.
            What a run found that was interrupted, or failed, is kept as well, and the next one continues there.
        force: allow `output` to replace the source.
        engine: where the networks run, a `RayEngine`; by default this process.
        progress: True shows progress on stderr, as the command line does: a bar on a terminal, elsewhere a line every
            half minute. A function is called with a description, such as 'calibrating', the number of parts done, and
            the number of all parts. By default nothing is shown.

    Raises:
        PconvError: the model or the data cannot be read or do not fit, no activation can be calibrated, `steps` or
            `method` is not a valid choice, or a file to write has another use too.
    """
    (found,) = calibrate_each(
        source,
        data,
        output,
        batch_axis=batch_axis,
        steps=(steps,),
        coding=coding,
        neurons=neurons,
        signed=signed,
        readouts=readouts,
        method=method,
        mixed=mixed,
        sensitivity=sensitivity,
        cache=cache,
        force=force,
        engine=engine,
    ).values()
    return found


@shows_progress
def calibrate_each(
    source: ModelSource,
    data: DataSource,
    output: str | os.PathLike[str] | None = None,
    *,
    batch_axis: BatchAxis = 0,
    steps: Sequence[int],
    coding: CodingName = "auto",
    neurons: NeuronsName = NEURONS[0],
    signed: bool = False,
    readouts: ReadoutsName = READOUTS[0],
    method: str = METHODS[0],
    mixed: bool = False,
    sensitivity: bool = False,
    cache: str | os.PathLike[str] | None = None,
    force: bool = False,
    engine: Engine | None = None,
    progress: Progress = None,
) -> dict[int, Calibration]:
    """Calibrate for several numbers of time-steps at once.

    Each result is bit for bit that of `calibrate`. The data are read once, and the source runs once for all.

    Args:
        source: as `calibrate` takes it.
        data: as `calibrate` takes it.
        output: where to write the quantised models; `{steps}` in it stands for T.
        batch_axis: as `calibrate` takes it.
        steps: numbers of time-steps.
        coding: as `calibrate` takes it.
        neurons: as `calibrate` takes it.
        signed: as `calibrate` takes it.
        readouts: as `calibrate` takes it.
        method: as `calibrate` takes it.
        mixed: as `calibrate` takes it.
        sensitivity: as `calibrate` takes it.
        cache: keep each calibration in such a file; `{steps}` in it stands for T.
        force: as `calibrate` takes it.
        engine: as `calibrate` takes it.
        progress: as `calibrate` takes it.

    Returns:
        What was done, by T.

    Raises:
        PconvError: as `calibrate`; or a name has no place for T and there are several.
    """
    numbers = each_number(steps)
    jobs = [
        _Job(
            number,
            _settings(number, coding, method, neurons, signed, readouts, mixed),
            _named(output, numbers, number),
            _named(cache, numbers, number),
        )
        for number in numbers
    ]
    if not jobs:
        raise WrongArguments("there is no number of time-steps to calibrate for", "name some with `steps=`")
    if method == TUNE:
        _require_torch()
    for job in jobs:
        job.require_places(source, data, force=force)
    random = isinstance(data, str) and data == RANDOM
    if random and (sensitivity or mixed):
        unwanted = [f"`{name}=`" for name, asked in {"sensitivity": sensitivity, "mixed": mixed}.items() if asked]
        raise WrongArguments(
            "random data do not tell what the outputs lose",
            f"pass real `data=`, or leave out {' and '.join(unwanted)}",
        )
    network, chosen, left = to_calibrate(quantisable(source), jobs[0].settings)
    runner = open_session(network.proto, network.name)
    samples = random_samples(runner, batch_axis=batch_axis) if random else open_samples(data, runner, batch_axis)
    del runner
    engine, digest = engine or InProcess(), b""
    if cache is not None:
        with _crew(engine, network, samples) as crew:
            digest = crew.call("digest")
    for job in jobs:
        job.restore(network, digest, chosen)
    parts = None if random else held_out(samples)
    seen, judges = parts or (samples, samples)
    with keeping([job.kept for job in jobs]):
        new = [job for job in jobs if not job.from_cache]
        _sweep(network, chosen, seen, engine, new, random=random)
        for job in new if method == TUNE and not random else ():
            job.found = job.kept.get(TUNE) or _tuned(network, job.found, seen)
            job.kept.put(TUNE, job.found)
        models = {}
        for job in jobs:
            job.left = [*left, *((one, job.found.left[one.name]) for one in chosen if one.name in job.found.left)]
            require(job.found.activations, job.left, network)
            models[job.steps] = quantised_model(network, job.found.activations, job.found.corrections)
        if not random:
            outcomes = outcomes_of(network, [models[job.steps] for job in new], judges, held_out=parts is not None)
            for job, outcome in zip(new, outcomes, strict=True):
                job.outcome = outcome
        for job in jobs:
            if job.outcome is not None and sensitivity and not job.outcome.sensitivity:
                alone = sensitivities(network, job.found.activations, judges, len(seen))
                job.outcome = replace(job.outcome, sensitivity=alone)
    for job in jobs:
        job.write(models[job.steps])
    return {
        job.steps: Calibration(
            models[job.steps],
            job.steps,
            job.settings.with_steps(job.found.steps),
            len(samples),
            random,
            job.found,
            job.left,
            job.from_cache,
            job.outcome,
        )
        for job in jobs
    }


def _named(path: str | os.PathLike[str] | None, numbers: Sequence[int], number: int) -> str | None:
    """The path for one of several numbers of time-steps.

    Raises:
        WrongArguments: it is the same for all.
    """
    if path is None:
        return None
    if len(numbers) > 1 and PLACE_OF_STEPS not in os.fspath(path):
        raise WrongArguments(
            f"'{os.fspath(path)}' is one file for {len(numbers)} numbers of time-steps",
            f"name it with {PLACE_OF_STEPS} in the place of T, such as 'out-{PLACE_OF_STEPS}.onnx'",
        )
    return for_steps(path, number)


@dataclass(eq=False)
class _Job:
    """One of several numbers of time-steps: what is asked for, and what there is of it.

    Attributes:
        steps: T.
        settings: for that.
        output: where to write the model; None for nowhere.
        cache: file that keeps what is found; None for none.
        key: of that.
        kept: what is found so far.
        found: in the end.
        left: activations that stay as they are.
        from_cache: whether it was all found before.
        outcome: how the outputs changed; None for random data.
    """

    steps: int
    settings: Settings
    output: str | None
    cache: str | None
    key: str = ""
    kept: Kept = field(init=False)
    found: Found = field(init=False)
    left: list[Told] = field(init=False)
    from_cache: bool = False
    outcome: Outcome | None = None

    def require_places(self, source: ModelSource, data: DataSource, *, force: bool) -> None:
        """Raise if a file to write cannot be written, or is used for something else.

        Raises:
            PconvError: it is.
        """
        if self.output is not None and not force:
            refuse_to_overwrite(source, self.output)
        if self.output is not None:
            require_own_file(self.output, {"the data": data})
            require_writable(self.output)
        if self.cache is not None:
            require_own_file(self.cache, {"the model": source, "the data": data, "the output": self.output})
            # A cache that exists may be read-only, and still be the right one.
            if not os.path.exists(self.cache):
                require_writable(self.cache)

    def restore(self, network: Network, samples: bytes, activations: Sequence[Activation]) -> None:
        """Take in what an earlier run found.

        Raises:
            PconvError: the file is not one of `calibrate`.
        """
        known: dict[str, Found] = {}
        if self.cache is not None:
            self.key = digest_of(network.sha256, samples, self.settings)
            known, self.outcome = restore(self.cache, self.key, activations)
        if RESULT in known:
            self.found, self.from_cache = known.pop(RESULT), True
        self.kept = Kept(self.cache, self.key, known, len(activations))

    def write(self, model: onnx.ModelProto) -> None:
        """Write the files.

        Raises:
            PconvError: one cannot be written.
        """
        if self.cache is not None and not self.from_cache:
            store(self.cache, self.key, {RESULT: self.found}, self.outcome)
        if self.output is not None:
            save(model, self.output)


def _crew(engine: Engine, network: Network, samples: Data) -> AbstractContextManager[Crew]:
    shards = shards_of(len(samples), samples.fixed_batch or BATCH)
    return engine.crew(partial(Passes, network, samples), shards)


def _tuned(network: Network, found: Found, samples: Data) -> Found:
    """What gradients make of what was found, unless it is worse on samples that they have not seen."""
    # PyTorch is an extra.
    from pconv_onnx.calibration.tuning.tuning import tuned

    parts = held_out(samples)
    own, judges = parts or (samples, samples)
    both = [found, *tuned(network, found, own)]
    models = [quantised_model(network, one.activations, one.corrections) for one in both]
    lost = [outcome.lost for outcome in outcomes_of(network, models, judges, held_out=parts is not None)]
    told = [loss for loss in lost if loss is not None]
    if len(told) < len(both):
        # Nothing speaks against what was tuned.
        return both[-1]
    best = min(range(1, len(both)), key=told.__getitem__)
    errors = {REFIT: told[0], TUNE: told[best]}
    return replace(found if told[0] <= told[best] else both[best], tuning_errors=errors)


def _sweep(
    network: Network,
    chosen: Sequence[Activation],
    samples: Data,
    engine: Engine,
    jobs: Sequence[_Job],
    *,
    random: bool,
) -> None:
    """Find what each job asks for, by the rule that is best; of random data none is.

    Raises:
        PconvError: it cannot be found for one.
    """
    if not jobs:
        return
    _allot(network, chosen, samples, engine, jobs)
    errors = {} if random else _tried(network, chosen, samples, engine, jobs)
    tasks = []
    for job in jobs:
        begun, own = job.kept.get(SWEEP), errors.get(job.steps, {})
        if begun is None:
            rule = min(own, key=lambda name: own[name]) if own else job.settings.rule
            begun = Found(steps=job.settings.steps, rule=rule, rule_errors=own)
        tasks.append(Task(replace(job.settings, rule=begun.rule), begun, partial(job.kept.put, SWEEP)))
    with _crew(engine, network, samples) as crew:
        results = sweep(network, chosen, samples.part(slice(0, 1)), crew, tasks)
    for job, result in zip(jobs, results, strict=True):
        if isinstance(result, PconvError):
            raise result
        job.found = result


def _allot(network: Network, chosen: Sequence[Activation], samples: Data, engine: Engine, jobs: Sequence[_Job]) -> None:
    """Where T is a mean, give activations time-steps of their own, as an earlier run did or as samples tell.

    Raises:
        PconvError: they do not tell.
    """
    for job in jobs:
        begun = [found for name in (SWEEP, *RULES) if (found := job.kept.get(name)) is not None]
        job.settings = job.settings.with_steps(begun[0].steps if begun else {})
    new = [job for job in jobs if job.settings.mixed and not job.settings.own]
    if not new:
        return
    some = few(samples, MOST_MIXING)
    with _crew(engine, network, some) as crew:
        given = allotments(network, chosen, some.part(slice(0, len(some))), crew, [job.settings for job in new])
    for job, steps in zip(new, given, strict=True):
        job.settings = job.settings.with_steps(steps)


def _tried(
    network: Network, chosen: Sequence[Activation], samples: Data, engine: Engine, jobs: Sequence[_Job]
) -> dict[int, dict[str, float]]:
    """The output error of each rule, by T; none where rules do not suit these samples, or one is chosen already."""
    trying = [job for job in jobs if job.kept.get(SWEEP) is None and shares(job.settings, samples) is not None]
    parts = shares(trying[0].settings, samples) if trying else None
    if parts is None:
        return {}
    tried, held = parts
    pairs = [(job, rule) for job in trying for rule in RULES]
    tasks = [
        Task(
            replace(job.settings, rule=rule),
            job.kept.get(rule) or Found(steps=job.settings.steps, rule=rule),
            partial(job.kept.put, rule),
        )
        for job, rule in pairs
    ]
    with _crew(engine, network, tried) as crew:
        results = sweep(network, chosen, tried.part(slice(0, 1)), crew, tasks)
    models: dict[int, dict[str, onnx.ModelProto]] = {job.steps: {} for job in trying}
    for (job, rule), found in zip(pairs, results, strict=True):
        # One that fails is not chosen.
        if isinstance(found, Found):
            models[job.steps][rule] = quantised_model(network, found.activations, found.corrections)
    judged = held.part(slice(0, len(held)))
    return {steps: output_errors(network, by_rule, judged, BATCH) for steps, by_rule in models.items()}


def outline(
    source: ModelSource,
    steps: int,
    *,
    coding: CodingName = "auto",
    neurons: NeuronsName = NEURONS[0],
    signed: bool = False,
    readouts: ReadoutsName = READOUTS[0],
) -> Calibration:
    """What `calibrate` would do, without data and so without real values, to find errors early.

    With data, more activations may stay, and a clip behind one may turn out not to clip.

    Raises:
        PconvError: as `calibrate`.
    """
    settings = _settings(steps, coding, METHODS[0], neurons, signed, readouts)
    network, chosen, left = to_calibrate(quantisable(source), settings)
    model = quantised_model(network, found := outlined(network, chosen, settings), {})
    return Calibration(model, steps, settings, 0, False, Found(found), left)


def _settings(
    steps: object,
    coding: CodingName,
    method: str,
    neurons: NeuronsName,
    signed: bool,
    readouts: ReadoutsName = READOUTS[0],
    mixed: bool = False,
) -> Settings:
    """What is asked for.

    Raises:
        PconvError: there is no such coding, it has no staircases in so many steps, or no such method or readouts.
    """
    if coding not in CODING_NAMES:
        raise PconvError(f"there is no coding '{coding}'", f"choose {', '.join(CODING_NAMES)}")
    # Calibrated levels are for `rate` unless another coding is named.
    chosen = CODINGS[Rate.name if coding == "auto" else coding]
    most = most_steps(chosen)
    if not isinstance(steps, int) or not 1 <= steps <= most:
        told = "" if chosen is Rate else f" to calibrate to in coding '{coding}'"
        raise PconvError(f"{steps!r} is not a number of time-steps{told}", f"choose 1 to {most}")
    if method not in METHODS:
        raise PconvError(f"there is no method '{method}'", f"choose one of {', '.join(METHODS)}")
    if readouts not in READOUTS:
        raise PconvError(f"there are no readouts '{readouts}'", f"choose {' or '.join(READOUTS)}")
    require_neurons(neurons, offsets=signed)
    return Settings(chosen.most(steps), chosen, method, neurons, signed, readouts, mixed=mixed)


def _require_torch() -> None:
    """Raise where PyTorch, an extra, is not there.

    Raises:
        PconvError: it is not.
    """
    if find_spec("torch") is None:
        raise PconvError(
            f"method '{TUNE}' needs PyTorch", f"pip install 'pconv-onnx[torch]', or choose method '{REFIT}'"
        )


def _range(values: Array) -> list[float] | None:
    """The lowest and highest of the values; None if there are none."""
    return [float(values.min()), float(values.max())] if values.size else None
