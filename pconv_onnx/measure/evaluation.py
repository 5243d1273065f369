"""`evaluate`: how accurate is a network, and its spiking form at each number of time-steps?"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx

from pconv_onnx.answers.lines import evaluation_lines
from pconv_onnx.answers.printing import Part, Printed
from pconv_onnx.basics.arguments import each_number
from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.choices import NEURONS, CodingName, ModeName, NeuronsName, WeightsName
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.basics.progress import Progress, shows_progress, track
from pconv_onnx.calibration import RANDOM
from pconv_onnx.data.parts import LABELS
from pconv_onnx.data.reading import load_samples, mixed_labels, open_samples
from pconv_onnx.data.samples import BatchAxis, Data, DataSource, LabelKind, Samples
from pconv_onnx.engine.shards import Engine, InProcess, merged, shards_of
from pconv_onnx.graph import ModelSource, Network
from pconv_onnx.graph.record import Record
from pconv_onnx.measure.proportions import Z95, standard_error, wilson
from pconv_onnx.measure.targets import TargetError, target_output
from pconv_onnx.measure.tokens import TokenScore, is_logits, require_classes, token_output
from pconv_onnx.operators.contents import contents_of
from pconv_onnx.report import curve
from pconv_onnx.rewriting import rewrite
from pconv_onnx.runtime.axes import by_sample, classes, sample_axes
from pconv_onnx.runtime.entrance import runnable
from pconv_onnx.runtime.likeness import Likeness, mask_of, same_answers
from pconv_onnx.runtime.side_by_side import Sessions, batch_size, batches, open_session, run_session

_FLOATS = ("tensor(float)", "tensor(double)", "tensor(float16)")
_TOP = 5


@dataclass
class Score:
    """The answers of one network, added up batch by batch.

    Attributes:
        steps: its time-steps T; None for an ANN, and where neurons have different ones.
        mode: `parallel`, `folded` or `serial`; None for an ANN.
        coding: how its trains carry spike counts; None for an ANN, and where neurons have different ones.
        correct: samples whose label has the largest logit (of equal ones the first, as in argmax).
        among_top: samples whose label has one of the five largest.
        agreeing: samples on which the ANN has the same top-1.
        squared_error: squared differences from the ANN's outputs, summed.
        values: how many values were compared with the ANN's; 0 without one.
        target: differences of an output from its targets, where the labels are floats.
        tokens: answers to tokens, where these have labels.
        alike: how alike each output is to the ANN's; empty without one.
    """

    steps: int | None = None
    mode: str | None = None
    coding: str | None = None
    correct: int = 0
    among_top: int = 0
    agreeing: int = 0
    squared_error: float = 0.0
    values: int = 0
    target: TargetError = TargetError()
    tokens: TokenScore = TokenScore()
    alike: tuple[Likeness, ...] = ()

    def __add__(self, other: Score) -> Score:
        """That of the same network on the samples of both."""
        names = ("correct", "among_top", "agreeing", "squared_error", "values", "target", "tokens", "alike")
        return replace(self, **{name: merged((getattr(self, name), getattr(other, name))) for name in names})

    def judge(self, logits: Array, labels: Array) -> None:
        """Take in the logits `[B, classes]` and the labels `[B]` of one batch."""
        column = labels.astype(np.int64)[:, np.newaxis]
        own = np.take_along_axis(logits, column, axis=1)
        before = (logits > own) | ((logits == own) & (np.arange(logits.shape[1]) < column))
        # Among NaNs nothing is largest.
        rank = np.where(np.isnan(logits).any(axis=1), logits.shape[1], before.sum(axis=1))
        self.correct += int((rank < 1).sum())
        self.among_top += int((rank < _TOP).sum())

    def compare(self, outputs: list[Array], expected: list[Array], index: int | None, batch: Samples) -> None:
        """Take in the outputs of one batch and the ANN's; those numbered `index` are logits."""
        for ours, theirs in zip(outputs, expected, strict=True):
            with np.errstate(invalid="ignore", over="ignore"):
                self.squared_error += float(np.square(ours.astype(np.float64) - theirs).sum())
            self.values += theirs.size
        if index is not None:
            self.agreeing += int(same_answers(outputs[index], expected[index]).sum())
        mask = mask_of(batch)
        found = tuple(Likeness.of(*pair, len(batch), mask) for pair in zip(outputs, expected, strict=True))
        self.alike = merged((self.alike, found)) if self.alike else found


@dataclass
class Evaluation(Printed):
    """What `evaluate` found.

    Attributes:
        samples: samples evaluated.
        labels: whether they have labels that are classes.
        classes: number of classes; None where no output has any.
        targets: the output that their labels, floats, are targets of; None where they are not.
        ann: the source; None where it is a spiking network itself.
        rows: its spiking form at each T, or the spiking network that was given.
        coding: that was asked for; None where nothing was rewritten.
        outputs: names of the outputs that were compared.
        tokens: the output whose tokens have labels; None where no labels are of tokens.
    """

    samples: int
    labels: bool
    classes: int | None
    targets: str | None
    ann: Score | None
    rows: list[Score]
    coding: CodingName | None = None
    outputs: tuple[str, ...] = ()
    tokens: str | None = None

    def summary(self) -> dict[str, Any]:
        """The JSON document of `pconv-onnx evaluate`; None where something is not defined."""
        scores = [*([self.ann] if self.ann else []), *self.rows]
        return {
            "samples": self.samples,
            "labels": self.labels,
            "targets": self.targets,
            "tokens": self.tokens,
            "labelled_tokens": scores[0].tokens.tokens if self.tokens else None,
            "coding": self.coding,
            "ann": self._quality(self.ann) if self.ann else None,
            "rows": [
                {
                    "steps": row.steps,
                    "coding": row.coding,
                    "mode": row.mode,
                    **self._quality(row),
                    **self._likeness(row),
                }
                for row in self.rows
            ],
        }

    def _answer(self, document: dict[str, Any]) -> Iterator[Part]:
        return evaluation_lines(document)

    def draw(self, output: str | os.PathLike[str]) -> Path:
        """Draw the curve against time-steps: accuracy or error against targets, or without labels agreement or error.

        Args:
            output: a .png, .svg or .pdf file, or a directory, which gets `curve.png`.

        Returns:
            The file written.

        Raises:
            PconvError: there is nothing to draw, matplotlib is missing, or the file cannot be written.
        """
        path = curve.destination(output)
        curve.draw(self.summary(), path)
        return path

    def _quality(self, score: Score) -> dict[str, Any]:
        return {**self._accuracy(score), **score.target.summary(), **score.tokens.summary()}

    def _accuracy(self, score: Score) -> dict[str, Any]:
        if not self.labels:
            return dict.fromkeys(["top1", "top1_standard_error", "top1_interval", "top5"])
        return {
            "top1": score.correct / self.samples,
            "top1_standard_error": standard_error(score.correct, self.samples),
            "top1_interval": list(wilson(score.correct, self.samples, Z95)),
            "top5": score.among_top / self.samples if self.classes and self.classes > _TOP else None,
        }

    def _likeness(self, score: Score) -> dict[str, Any]:
        mse = score.squared_error / score.values if score.values else None
        outputs = self._by_output(score)
        cosines = ({"output": name, **found["cosine"]} for name, found in outputs.items() if found["cosine"])
        agreements = (found["token_agreement"] for found in outputs.values())
        return {
            "agreement": score.agreeing / self.samples if self.classes and score.values else None,
            "mse": mse if mse is not None and math.isfinite(mse) else None,
            "cosine": next(cosines, None),
            "token_agreement": next((share for share in agreements if share is not None), None),
            "outputs": outputs,
        }

    def _by_output(self, score: Score) -> dict[str, dict[str, Any]]:
        """How alike each output is to the ANN's: those that have a row for each sample in every batch."""
        found = {}
        for name, alike in zip(self.outputs, score.alike, strict=False):
            whole = alike.samples == self.samples
            # Whether an output of such a shape has logits, or something else of tokens, its values do not tell.
            answers = name == self.tokens if self.tokens else is_logits(name)
            found[name] = {
                "cosine": alike.cosine() if whole else None,
                "token_agreement": alike.agreement() if whole and answers else None,
            }
        return found


@shows_progress
def evaluate(
    source: ModelSource,
    data: DataSource,
    *,
    batch_axis: BatchAxis = 0,
    steps: int | Sequence[int] = (),
    coding: CodingName = "auto",
    neurons: NeuronsName = NEURONS[0],
    mode: ModeName = "folded",
    signed: bool = False,
    calibration: DataSource | None = None,
    method: str | None = None,
    weights: WeightsName | None = None,
    input_bits: int | None = None,
    input_range: tuple[float, float] | None = None,
    quantised: Mapping[int, onnx.ModelProto] | None = None,
    engine: Engine | None = None,
    progress: Progress = None,
) -> Evaluation:
    """Accuracy of a network, or its error against targets, and that of its spiking form at each number of time-steps.

    The source is rewritten at each T, since steps are not causal: the first t steps of a network are not the network
    with t steps. Every network runs as a user would run it.

    Args:
        source: an ANN or, without `steps`, a spiking network: path of an ONNX file, or a model in memory.
        data: samples as `calibrate` takes them. Without labels, spiking forms are only compared with the ANN. Labels
            may be integers `[N]`, classes of samples; integers `[N, tokens]`, classes of tokens, for an output of
            logits `[B, tokens, classes]`, in which tokens with a negative label are left out; or floats, targets of the
            output with their shape (axes of length one do not count). An input `attention_mask` `[B, tokens]` of
            integers or bools is zero for tokens at which outputs are not compared.
        batch_axis: the axis of the model's inputs that counts samples, as `calibrate` takes it; also for `calibration`.
        steps: one number of time-steps or several, each 1 to 256 (1 to 16 if calibrated in coding `radix`); the ANN is
            rewritten at each.
        coding: as `rewrite` takes it.
        neurons: as `rewrite` takes it.
        mode: as `rewrite` takes it. `folded` computes what `parallel` does, apart from rounding, at the price of one
            step. `serial` runs T time-steps one after another.
        signed: as `rewrite` takes it.
        calibration: as `rewrite` takes it, for a network without levels; it is calibrated anew at each T.
        method: as `rewrite` takes it.
        weights: as `rewrite` takes it.
        input_bits: as `rewrite` takes it.
        input_range: as `rewrite` takes it.
        quantised: networks that `calibrate` has made from the source already, by T.
        engine: where networks run, a `RayEngine`; by default this process.
        progress: as `calibrate` takes it.

    Raises:
        PconvError: a file cannot be read or run, nothing can be converted, the data or their labels do not fit, or
            there is nothing to evaluate.
    """
    counts = each_number(steps)
    if not counts and (calibration is not None or method is not None):
        raise PconvError("a calibration without time-steps would change nothing", "pass `steps=`")

    def spiking(count: int) -> onnx.ModelProto:
        has_levels = quantised is not None and count in quantised
        model = rewrite(
            quantised[count] if has_levels and quantised is not None else source,
            steps=count,
            coding=coding,
            neurons=NEURONS[0] if has_levels else neurons,
            mode=mode,
            signed=signed,
            calibration=given if weights is not None or not has_levels else None,
            batch_axis=batch_axis,
            method=None if has_levels else method,
            weights=weights,
            input_bits=input_bits,
            input_range=input_range,
        ).model
        assert model is not None  # only a dry run gives none
        return model

    engine = engine or InProcess()
    network = runnable(source)
    is_spiking = contents_of(network.proto).neurons
    runner = open_session(network.proto, network.name, folder=network.folder)
    names = [output.name for output in runner.get_outputs() if output.type in _FLOATS]
    if not names:
        raise PconvError(f"no output of {network.name} is a tensor of floats, so there is nothing to evaluate")
    samples = open_samples(data, runner, batch_axis)
    given = readable_again(calibration, runner, batch_axis)
    # What does not fit is mostly told by a first sample.
    first = samples.part(slice(0, 1))
    axes = sample_axes(runner, first, names)
    del runner
    if first.labelled is None and not counts:
        other = "compare it with its ANN by verify" if is_spiking else "pass `steps=` to compare spiking forms with it"
        raise PconvError(f"the data have no '{LABELS}' to count right answers by", f"add them, or {other}")
    blank = [Score(*_recorded(network.proto)) if is_spiking else Score()]
    models = {network.name: network.proto}
    # All are rewritten before any is run, so that no fault is told late.
    for count in track(counts, "rewriting", len(counts)):
        model = models[f"{network.name} at T = {count}"] = spiking(count)
        blank.append(Score(count, mode, Record.read(model).coding))

    in_flight = max(contents_of(model).steps_in_flight for model in models.values())
    shards = shards_of(len(samples), samples.fixed_batch or batch_size(in_flight))
    scorer = partial(_Scorer, network, models, names, axes, blank, samples, in_flight, first.labelled)
    found = engine.map(scorer, shards, "evaluating")
    scores = list(merged(shard.scores for shard in found))
    ann, rows = (None, scores) if is_spiking else (scores[0], scores[1:])
    targets, tokens = (None if index is None else names[index] for index in (found[0].targets, found[0].tokens))
    return Evaluation(
        len(samples),
        first.labels is not None,
        found[0].classes,
        targets,
        ann,
        rows,
        coding if counts else None,
        tuple(names),
        tokens,
    )


class _Found(NamedTuple):
    """Of a shard.

    Attributes:
        classes: how many there are.
        targets: index of the output that labels are targets of.
        tokens: index of the output whose tokens have labels.
        scores: of each network.
    """

    classes: int | None
    targets: int | None
    tokens: int | None
    scores: tuple[Score, ...]


class _Scorer:
    """Networks that are run side by side on a shard of the samples."""

    def __init__(
        self,
        source: Network,
        models: Mapping[str, onnx.ModelProto],
        names: list[str],
        axes: list[int | None] | None,
        blank: Sequence[Score],
        samples: Data,
        in_flight: int,
        labelled: LabelKind | None,
    ) -> None:
        self.name, self.labelled = source.name, labelled
        self.names, self.axes, self.blank, self.samples, self.in_flight = names, axes, blank, samples, in_flight
        self.sessions = Sessions([source])
        for name, model in models.items():
            self.sessions.add(name, partial(open_session, model, name, folder=source.folder))

    def __call__(self, rows: slice) -> _Found:
        samples = self.samples.part(rows)
        if samples.labelled != self.labelled:
            raise mixed_labels({samples.labelled, self.labelled})
        scores = [replace(score) for score in self.blank]
        found = target = tokens = None
        for part, feed in batches(samples, self.in_flight):
            batch = samples.part(part)
            outputs = [by_sample(run_session(self.sessions[key], feed, self.names), self.axes) for key in self.sessions]
            index = classes(outputs[0], len(batch))
            if part.start == 0:
                found = None if index is None else outputs[0][index].shape[1]
                if samples.labels is not None:
                    _check_labels(samples.labels, found, self.name, rows.start)
                if batch.targets is not None:
                    target = target_output(self.names, outputs[0], batch.targets, self.name)
            if batch.token_labels is not None:
                tokens = token_output(self.names, outputs[0], batch.token_labels, self.name)
                count = outputs[0][tokens].shape[2]
                require_classes(batch.token_labels, count, self.name, rows.start + part.start)
            for score, ours in zip(scores, outputs, strict=True):
                if batch.labels is not None and index is not None:
                    score.judge(ours[index], batch.labels)
                if batch.targets is not None and target is not None:
                    score.target += TargetError.of(ours[target], batch.targets)
                if batch.token_labels is not None and tokens is not None:
                    score.tokens += TokenScore.of(ours[tokens], batch.token_labels)
                if score is not scores[0]:
                    score.compare(ours, outputs[0], index, batch)
        return _Found(found, target, tokens, tuple(scores))


def readable_again(calibration: DataSource | None, session: Any, batch_axis: BatchAxis) -> DataSource | None:
    """Data of a calibration that can be read at each T: a reader of batches can be read once.

    Raises:
        PconvError: the data cannot be read, or do not fit the inputs of the session.
    """
    if calibration is None or (isinstance(calibration, str) and calibration == RANDOM):
        return calibration
    return load_samples(calibration, session, batch_axis)


def _recorded(model: onnx.ModelProto) -> tuple[int | None, str | None, str | None]:
    """T, the mode and the coding of a spiking network, where `rewrite` recorded them in it."""
    try:
        record = Record.read(model)
    except ValueError:
        return None, None, None
    return record.steps, record.mode, record.coding


def _check_labels(labels: Array, classes: int | None, name: str, first: int) -> None:
    """Raise where labels, of the samples from the first on, do not name classes of the network.

    Raises:
        PconvError: they do not.
    """
    if classes is None:
        raise PconvError(
            f"no output of {name} has classes, floats [samples, classes], for '{LABELS}' to name",
            "give classes of tokens as integers [samples, tokens] or targets of a regression as floats, or leave the "
            "labels out and pass `steps=` to compare outputs",
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        raise PconvError(
            f"'{LABELS}' has {labels[wrong[0]]} at sample {first + wrong[0]}; {name} has {classes} classes",
            f"number them from 0 to {classes - 1}",
        )
