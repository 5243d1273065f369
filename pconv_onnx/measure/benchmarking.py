"""`bench`: how fast is the spiking form of a network, in every mode, at each number of steps and each batch size?"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from pconv_onnx.answers.lines import benchmark_lines
from pconv_onnx.answers.printing import Part, Printed
from pconv_onnx.basics.arguments import each_number
from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.choices import (
    BATCHES,
    METHODS,
    NEURONS,
    PROVIDERS,
    REPEATS,
    STEPS,
    CodingName,
    ModeName,
    NeuronsName,
    WeightsName,
)
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.basics.progress import Progress, shows_progress, track
from pconv_onnx.calibration import RANDOM, calibrate
from pconv_onnx.data.reading import load_samples, random_samples
from pconv_onnx.data.samples import BatchAxis, DataSource
from pconv_onnx.graph import ModelSource, Network, save
from pconv_onnx.graph.record import Record
from pconv_onnx.measure.candidate import ANN, BODY, QUANTISED, STOCK, Candidate
from pconv_onnx.measure.evaluation import readable_again
from pconv_onnx.measure.gathering import gather
from pconv_onnx.measure.request import Request
from pconv_onnx.measure.rows import Row
from pconv_onnx.measure.stock import quantise
from pconv_onnx.measure.timing import OtherWork, machine, rounds, threads_of
from pconv_onnx.plan.modes import FOLDED, OF_INTEGERS, PARALLEL, SERIAL
from pconv_onnx.plan.spike_driven import SpikeDriven
from pconv_onnx.report import page
from pconv_onnx.runtime.entrance import runnable
from pconv_onnx.runtime.side_by_side import open_session, run_session

_INTERRUPTED = "interrupted"
_WARM_UP = 3
# What each spiking row is, as `rewrite` calls it.
_REWRITTEN: dict[str, ModeName] = {
    BODY: PARALLEL.name, SERIAL.name: SERIAL.name, PARALLEL.name: PARALLEL.name, FOLDED.name: FOLDED.name,
}  # fmt: skip


@dataclass
class Benchmark(Printed):
    """What `bench` found.

    Attributes:
        request: what was to be measured.
        machine: hardware and versions, and how much CPU time other processes took.
        threads: the number of threads on which the ANN ran; None if unknown.
        rows: what was measured, or why it was not, in order of batch sizes, then of steps.
        quantised: the networks that calibration made from the source, by T.
        spike_driven: which multiply-accumulates have a spike train as an operand, at the last T; None if nothing was
            rewritten.
        stopped: why it ended before everything was measured; None if it did not.
        analysis: the other parts of a report, by name; empty without a report.
    """

    request: Request
    machine: dict[str, Any] = field(default_factory=machine)
    threads: int | None = None
    rows: list[Row] = field(default_factory=list, repr=False)
    quantised: dict[int, onnx.ModelProto] = field(default_factory=dict, repr=False)
    spike_driven: SpikeDriven | None = None
    stopped: str | None = None
    analysis: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def interrupted(self) -> bool:
        """Whether the user ended it."""
        return self.stopped == _INTERRUPTED

    def interrupt(self) -> None:
        """Note that the user ended it."""
        self.stopped = _INTERRUPTED

    def summary(self) -> dict[str, Any]:
        """The JSON document of `pconv-onnx bench`."""
        asked = self.request
        rows = [row for row in self.rows if row.seconds or row.error]
        return {
            "model": asked.name,
            "machine": self.machine,
            "threads": self.threads,
            "random_inputs": asked.random_inputs,
            "coding": asked.coding,
            "neurons": asked.neurons,
            "calibration": asked.method if asked.calibration is not None else None,
            "random_calibration": isinstance(asked.calibration, str) and asked.calibration == RANDOM,
            "complete": self.stopped is None,
            "stopped": self.stopped,
            "spike_driven": None if self.spike_driven is None else self.spike_driven.summary(),
            "rows": [{"model": asked.name, "provider": asked.provider, **row.summary()} for row in rows],
            **self.analysis,
        }

    def _answer(self, document: dict[str, Any]) -> Iterator[Part]:
        return benchmark_lines(document)

    @shows_progress
    def write(self, output: str | os.PathLike[str], *, progress: Progress = None) -> Path:
        """Write a report: a page, its figures, and the JSON document with all parts of the report.

        It first measures accuracy, firing rates, operations and spike-count mismatches, on the same samples. An
        interruption (Ctrl-C) leaves out what has not been measured by then.

        Args:
            output: a directory; it is made if it does not exist.
            progress: as `calibrate` takes it.

        Returns:
            The page.

        Raises:
            PconvError: jinja2 or matplotlib is missing, or the files cannot be written.
        """
        folder = page.destination(output)
        self.analyse()
        return page.write(self.summary(), folder)

    def analyse(self) -> None:
        """Measure, once, what a report has besides timings, into `analysis`; Ctrl-C leaves out the rest."""
        if not self.analysis:
            self.analysis, interrupted = gather(self.request, self.quantised, self.interrupted)
            if interrupted:
                self.interrupt()


@shows_progress
def bench(
    source: ModelSource,
    *,
    steps: int | Sequence[int] = STEPS,
    batches: int | Sequence[int] | None = None,
    provider: str = "cpu",
    data: DataSource | None = None,
    batch_axis: BatchAxis = 0,
    calibration: DataSource | None = None,
    method: str | None = None,
    signed: bool = False,
    coding: CodingName = "auto",
    neurons: NeuronsName = NEURONS[0],
    weights: WeightsName | None = None,
    input_bits: int | None = None,
    input_range: tuple[float, float] | None = None,
    repeats: int = REPEATS,
    progress: Progress = None,
) -> Benchmark:
    """Time a network against its spiking forms: function body, serial, parallel and folded, at each T and batch size.

    With `weights`, modes `integer` and `integer-parallel` are timed too, and the ANN after onnxruntime's own static
    quantisation (`int8 ANN`).

    All networks of one T and batch size are measured in turns. The ratio to the ANN is the median of the ratios within
    each round. If something cannot be measured, its row says why. An interruption (Ctrl-C) ends the measuring and
    returns the results so far.

    Args:
        source: path of an ONNX file with an ANN, or such a model in memory.
        steps: one number of time-steps or several, each 1 to 256; the ANN is rewritten at each.
        batches: one batch size or several; by default 1 and 32, or the size that the model fixes.
        provider: `cpu`, or `cuda` (without TF32).
        data: samples as `calibrate` takes them, repeated if a batch needs more; by default seeded random inputs.
        batch_axis: the axis of the model's inputs that counts samples, as `calibrate` takes it; also for `calibration`.
        calibration: as `rewrite` takes it, for a network without levels; the quantised ANN is then timed too, at each
            T.
        method: of the calibration; `refit` by default.
        signed: as `rewrite` takes it.
        coding: as `rewrite` takes it.
        neurons: as `rewrite` takes it.
        weights: as `rewrite` takes it; mode `serial` takes no integer weights, so it is then not measured.
        input_bits: as `rewrite` takes it.
        input_range: as `rewrite` takes it.
        repeats: number of rounds to measure.
        progress: as `calibrate` takes it.

    Raises:
        PconvError: a file cannot be read, nothing can be converted, the data do not fit, or there is no room for
            temporary files.
    """
    if calibration is None and method is not None:
        raise PconvError(f"there is no calibration for the method '{method}'", "pass data as `calibration=`")
    if provider not in PROVIDERS:
        raise PconvError(f"there is no provider '{provider}'", f"choose {' or '.join(PROVIDERS)}")
    counts = each_number(steps)
    sizes = each_number(batches)
    if not counts:
        raise PconvError("there is no number of time-steps to measure at", "pass one or more as `steps=`")
    for what, numbers in (("batch size", sizes), ("number of rounds", (repeats,))):
        for number in numbers:
            if not isinstance(number, int) or number < 1:
                raise PconvError(f"{number!r} is not a {what}", "choose 1 or more")
    network = runnable(source)
    inputs = open_session(network.proto, network.name, folder=network.folder)
    if data is None:
        samples = random_samples(inputs, batch_axis=batch_axis)
    else:
        samples = load_samples(data, inputs, batch_axis)
    request = Request(
        source,
        "the model" if isinstance(source, onnx.ModelProto) else os.path.basename(source),
        samples,
        data is None,
        batch_axis,
        readable_again(calibration, inputs, batch_axis),
        method or METHODS[0],
        signed,
        coding,
        neurons,
        weights,
        input_bits,
        input_range,
        provider,
        counts,
    )
    result = Benchmark(request)
    with tempfile.TemporaryDirectory() as folder:
        measuring = _Measuring(result, Path(folder), repeats)
        measuring.make(network)
        sizes = sizes or ((samples.fixed_batch,) if samples.fixed_batch else BATCHES)
        work = OtherWork()
        total = len(sizes) * len(counts) * (_WARM_UP + repeats + len(measuring.modes))
        try:
            for _ in track(measuring.run(sizes), "measuring", total):
                pass
        except KeyboardInterrupt:
            result.interrupt()
        except (PconvError, OSError) as error:
            result.stopped = str(error)
        result.machine |= work.summary()
    return result


class _Measuring:
    """The networks of a benchmark, as files, and how they are measured."""

    def __init__(self, result: Benchmark, folder: Path, repeats: int) -> None:
        self.result, self.request = result, result.request
        self.folder = folder
        self.repeats = repeats
        # With integer weights, layers of integers are measured too, and onnxruntime's quantised ANN.
        integers = self.request.weights is not None
        self.rewritten = _REWRITTEN | ({mode.name: mode.name for mode in OF_INTEGERS} if integers else {})
        # Without a T.
        self.anns = [ANN, *([STOCK] if integers else [])]
        self.modes = [*self.anns, *([QUANTISED] if self.request.calibration is not None else []), *self.rewritten]
        # A file or the reason that there is none, by mode and T; the ANN's T is None.
        self.files: dict[tuple[str, int | None], str | PconvError] = {}
        # How trains carry spike counts there, by file.
        self.codings: dict[str, str | None] = {}

    def make(self, ann: Network) -> None:
        """Write every network.

        Raises:
            PconvError: nothing can be converted, or a file cannot be written.
        """
        self.files[ANN, None] = self._write(ann.proto, ann.folder)
        if STOCK in self.anns:
            self.files[STOCK, None] = self._stock(self._write(ann.proto, ann.folder))
        for count in self.request.steps:
            source, fault = self.request.source, None
            if self.request.calibration is not None:
                method = self.request.method
                try:
                    source = calibrate(
                        source,
                        self.request.calibration,
                        batch_axis=self.request.batch_axis,
                        steps=count,
                        coding=self.request.coding,
                        neurons=self.request.neurons,
                        signed=self.request.signed,
                        # Mode serial, and layers of integers, are measured as well.
                        readouts="spiking",
                        method=method,
                    ).model
                    self.result.quantised[count] = source
                except PconvError as error:
                    fault = error
                self.files[QUANTISED, count] = fault or self._write(source)
            made: dict[str, str | PconvError] = {}
            for mode, rewritten in self.rewritten.items():
                if rewritten not in made:
                    made[rewritten] = fault or self._rewritten(source, count, rewritten)
                self.files[mode, count] = made[rewritten]
        spiking = [self.files[mode, count] for count in self.request.steps for mode in self.rewritten]
        if all(isinstance(file, PconvError) for file in spiking):
            raise next(file for file in spiking if isinstance(file, PconvError))

    def _stock(self, path: str) -> str | PconvError:
        """Quantise the file of an ANN to 8 bits, by onnxruntime."""
        try:
            quantise(path, path, self.request.samples)
        except PconvError as error:
            return error
        return path

    def _rewritten(self, source: ModelSource, count: int, mode: ModeName) -> str | PconvError:
        try:
            rewriting = self.request.rewritten(source, mode, self.request.coding, count)
        except PconvError as error:
            return error
        assert rewriting.model is not None  # only a dry run gives none
        if mode == PARALLEL.name:
            self.result.spike_driven = rewriting.plan.spike_driven
        file = self._write(rewriting.model, rewriting.plan.network.folder)
        self.codings[file] = Record.read(rewriting.model).coding
        return file

    def _write(self, model: Any, folder: Path | None = None) -> str:
        path = self.folder / f"{len(list(self.folder.iterdir()))}.onnx"
        save(model, path, folder)
        return str(path)

    def run(self, sizes: Sequence[int]) -> Iterator[None]:
        """Measure; yields after each round, and after each process that measures memory."""
        for size in sizes:
            rows: dict[tuple[str, int | None], Row] = {(ann, None): Row(ann, None, size) for ann in self.anns}
            others = self.modes[len(self.anns) :]
            for count in self.request.steps:
                rows |= {(mode, count): Row(mode, count, size, self._coding(mode, count)) for mode in others}
            self.result.rows += rows.values()
            fixed = self.request.samples.fixed_batch
            if fixed not in (None, size):
                for row in rows.values():
                    row.error = f"the model takes batches of {fixed} only"
                continue
            feed = self.request.samples.feed(np.arange(size) % len(self.request.samples))
            file = self.folder / f"{size}.npz"
            np.savez(file, *feed.values())
            for count in self.request.steps:
                group = {mode: rows[mode, None if mode in self.anns else count] for mode in self.modes}
                yield from self._time(group, feed)
                for row in group.values():
                    if row.seconds and row.peak_memory is None:
                        row.peak_memory = self._candidate(row).peak_memory(list(feed), str(file))
                        yield

    def _coding(self, mode: str, count: int) -> str | None:
        return self.codings.get(str(self.files[mode, count]))

    def _candidate(self, row: Row) -> Candidate:
        file = self.files[row.mode, row.steps]
        if isinstance(file, PconvError):
            raise file
        return Candidate(row.mode, file, self.request.provider)

    def _time(self, group: dict[str, Row], feed: dict[str, Array]) -> Iterator[None]:
        """Measure the networks of one T and batch size in turns; their sessions live as long as this."""
        runners = {}
        for mode, row in group.items():
            try:
                runners[mode], threads = threads_of(self._candidate(row).open)
                if mode == ANN:
                    self.result.threads = threads
                run_session(runners[mode], feed)
            except PconvError as error:
                row.error = str(error)
                runners.pop(mode, None)
        candidates = {mode: lambda runner=runner: run_session(runner, feed) for mode, runner in runners.items()}
        for index, seconds in enumerate(rounds(candidates, _WARM_UP + self.repeats if candidates else 0)):
            if index >= _WARM_UP:
                for mode, value in seconds.items():
                    group[mode].seconds.append(value)
                    if ANN in seconds:
                        group[mode].ann_seconds.append(seconds[ANN])
            yield
