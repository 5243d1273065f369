"""Runs each command with its arguments, and gives its answer."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from pconv_onnx.answers import printing
from pconv_onnx.answers.lines import (
    benchmark_lines,
    calibration_lines,
    calibrations_lines,
    deployment_lines,
    evaluation_lines,
    installation_lines,
    nir_lines,
    plan_lines,
    rewriting_lines,
    stats_lines,
    verification_lines,
)
from pconv_onnx.basics.choices import CODINGS, NEURONS, NIR_MODES, PROVIDERS
from pconv_onnx.basics.errors import PconvError, WrongArguments, warn
from pconv_onnx.basics.places import PLACE_OF_STEPS, for_steps
from pconv_onnx.cli.spelling import spelled

if TYPE_CHECKING:
    from pconv_onnx.engine.shards import Engine


DONE, ANSWER_IS_NO, WRONG_ARGUMENTS, INTERRUPTED = 0, 1, 2, 130


class Answer(NamedTuple):
    """A command's answer: a JSON document, the function that turns it into lines, and an exit status."""

    document: dict[str, Any]
    lines: printing.Answer
    status: int = DONE


def _axes(options: argparse.Namespace) -> dict[str, int | None]:
    """Batch axes as functions take them: by name, with the empty name for all others."""
    return dict(options.batch_axis)


@contextlib.contextmanager
def _engine(options: argparse.Namespace) -> Iterator[Engine | None]:
    """The engine that the options name, running; None for the default."""
    for given in ("address", "workers"):
        _needs(options, given, "engine", "all runs in this process")
    if options.engine is None:
        yield None
        return
    from pconv_onnx.engine.ray import RayEngine

    with RayEngine(options.address, options.workers) as engine:
        yield engine


def _needs(options: argparse.Namespace, given: str, needed: str, told: str) -> None:
    """Raise if an option is given that has no effect without another.

    Raises:
        WrongArguments: it is; `told` says why it has none.
    """
    if getattr(options, given) and not getattr(options, needed):
        flag = "-o/--output" if given == "output" else f"--{given.replace('_', '-')}"
        raise WrongArguments(f"argument {flag}: {told} without --{needed}")


def _integers(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments for integer weights and inputs, as functions take them."""
    given = options.input_range
    return {
        "weights": options.weights,
        "input_bits": options.input_bits,
        "input_range": None if given is None else tuple(given),
    }


def inspect(options: argparse.Namespace) -> Answer:
    """`pconv-onnx inspect`."""
    from pconv_onnx.rewriting import inspect

    summary = inspect(options.model, neurons=options.neurons or NEURONS[0])
    return Answer(summary, plan_lines)


def rewrite(options: argparse.Namespace) -> Answer:
    """`pconv-onnx rewrite`."""
    if options.model.endswith(".nir"):
        return _read_nir(options)
    if options.dt is not None:
        raise WrongArguments("argument --dt: it is for NIR graphs, whose names end in .nir")
    if not options.weights:
        _needs(options, "calibration", "steps", "there are no levels to calibrate to")
    for given in ("method", "batch_axis"):
        _needs(options, given, "calibration", "nothing is calibrated")
    from pconv_onnx.rewriting import rewrite

    output = options.output or f"{options.model.removesuffix('.onnx')}.snn.onnx"
    result = rewrite(
        options.model,
        output,
        steps=options.steps,
        coding=options.coding or CODINGS[0],
        neurons=options.neurons or NEURONS[0],
        mode=options.mode,
        precision=options.precision,
        signed=options.signed,
        calibration=options.calibration,
        batch_axis=_axes(options),
        method=options.method,
        **_integers(options),
        include=options.include,
        exclude=options.exclude,
        per_step_outputs=options.per_step_outputs,
        strict=options.strict,
        dry_run=options.dry_run,
        force=options.force,
    )
    summary = {**result.summary(), "output": None if options.dry_run else output}
    return Answer(summary, rewriting_lines)


# What an ANN is rewritten by: a NIR graph is a spiking network already.
_OF_ANNS = (
    "coding", "neurons", "precision", "signed", "calibration", "method", "batch_axis", "weights", "input_bits",
    "input_range", "include", "exclude", "per_step_outputs", "strict",
)  # fmt: skip


def _read_nir(options: argparse.Namespace) -> Answer:
    """`pconv-onnx rewrite` of a NIR graph."""
    given = [name for name in _OF_ANNS if getattr(options, name)]
    if options.mode not in NIR_MODES:
        given.append("mode")
    if given:
        raise WrongArguments(f"argument --{given[0].replace('_', '-')}: a NIR graph becomes a serial network as it is")
    from pconv_onnx.deployment import from_nir

    output = options.output or f"{options.model.removesuffix('.nir')}.snn.onnx"
    result = from_nir(options.model, None if options.dry_run else output, steps=options.steps, dt=options.dt)
    return Answer({**result.summary(), "output": None if options.dry_run else output}, nir_lines)


def calibrate(options: argparse.Namespace) -> Answer:
    """`pconv-onnx calibrate`."""
    from pconv_onnx.calibration import calibrate_each

    several = len(set(options.steps)) > 1
    ending = f".quantised-{PLACE_OF_STEPS}.onnx" if several else ".quantised.onnx"
    output = options.output or options.model.removesuffix(".onnx") + ending
    with _engine(options) as engine:
        results = calibrate_each(
            options.model,
            options.data,
            output,
            batch_axis=_axes(options),
            steps=options.steps,
            coding=options.coding or CODINGS[0],
            neurons=options.neurons or NEURONS[0],
            signed=options.signed,
            readouts=options.readouts,
            method=options.method,
            mixed=options.mixed,
            sensitivity=options.sensitivity,
            cache=options.cache,
            force=options.force,
            engine=engine,
        )
    summaries = [{**result.summary(), "output": for_steps(output, steps)} for steps, result in results.items()]
    if several:
        return Answer({"calibrations": summaries}, calibrations_lines)
    return Answer(summaries[0], calibration_lines)


def verify(options: argparse.Namespace) -> Answer:
    """`pconv-onnx verify`."""
    from pconv_onnx.measure.verification import verify

    result = verify(
        options.ann,
        options.snn,
        options.data,
        batch_axis=_axes(options),
        atol=options.atol,
        providers=PROVIDERS[options.provider],
        memory=options.memory,
    )
    summary = result.summary()
    return Answer(summary, verification_lines, ANSWER_IS_NO if result.verdict == "different" else DONE)


def evaluate(options: argparse.Namespace) -> Answer:
    """`pconv-onnx evaluate`."""
    _needs(options, "output", "steps", "there is no curve")
    for given in ("mode", "coding", "neurons", "signed", "weights", "input_bits", "input_range"):
        _needs(options, given, "steps", "nothing is rewritten")
    _needs(options, "calibration", "steps", "there are no levels to calibrate to")
    _needs(options, "method", "calibration", "nothing is calibrated")
    from pconv_onnx.measure.evaluation import evaluate
    from pconv_onnx.report import curve

    path = curve.destination(options.output) if options.output else None
    with _engine(options) as engine:
        result = evaluate(
            options.model,
            options.data,
            batch_axis=_axes(options),
            steps=options.steps,
            coding=options.coding or CODINGS[0],
            neurons=options.neurons or NEURONS[0],
            mode=options.mode or "folded",
            signed=options.signed,
            calibration=options.calibration,
            method=options.method,
            **_integers(options),
            engine=engine,
        )
    summary = result.summary()
    if path:
        result.draw(options.output)
    summary["output"] = str(path) if path else None
    return Answer(summary, evaluation_lines)


def stats(options: argparse.Namespace) -> Answer:
    """`pconv-onnx stats`."""
    from pconv_onnx.measure.statistics import stats

    result = stats(
        options.model,
        options.data,
        batch_axis=_axes(options),
        energy_mac=options.energy_mac,
        energy_ac=options.energy_ac,
        memory=options.memory,
    )
    summary = result.summary()
    return Answer(summary, stats_lines)


def bench(options: argparse.Namespace) -> Answer:
    """`pconv-onnx bench`."""
    _needs(options, "method", "calibration", "nothing is calibrated")
    from pconv_onnx.measure.benchmarking import bench
    from pconv_onnx.report import page

    folder = page.destination(options.output) if options.output else None
    result = bench(
        options.model,
        steps=options.steps,
        coding=options.coding or CODINGS[0],
        neurons=options.neurons or NEURONS[0],
        batches=options.batch,
        provider=options.provider,
        data=options.data,
        batch_axis=_axes(options),
        calibration=options.calibration,
        method=options.method,
        signed=options.signed,
        **_integers(options),
        repeats=options.repeats,
    )
    written = None
    if folder:
        result.analyse()
        try:
            written = str(page.write(spelled(result.summary()), folder))
        except PconvError as error:  # what was measured is printed all the same
            warn(f"no report: {error}")
    summary = {**result.summary(), "output": written}
    done = summary["complete"] and any(row["repetitions"] for row in summary["rows"])
    status = DONE if done and bool(written) == bool(folder) else ANSWER_IS_NO
    return Answer(summary, benchmark_lines, INTERRUPTED if result.interrupted else status)


def deploy(options: argparse.Namespace) -> Answer:
    """`pconv-onnx deploy`."""
    from pconv_onnx.deployment import deploy

    target, gpu, allow_lossy = options.target, options.gpu, options.allow_lossy
    summary = deploy(options.model, options.output, target=target, gpu=gpu, allow_lossy=allow_lossy).summary()
    return Answer(summary, deployment_lines)


def doctor(options: argparse.Namespace) -> Answer:
    """`pconv-onnx doctor`."""
    from pconv_onnx.runtime.installation import doctor

    summary = doctor()
    return Answer(summary, installation_lines, ANSWER_IS_NO if summary["problems"] else DONE)
