"""The command line: one subcommand a function of the same name."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from pconv_onnx.basics.choices import (
    ENERGY_AC,
    ENERGY_MAC,
    ENGINES,
    MAX_STEPS,
    METHODS,
    MODES,
    PRECISIONS,
    PROVIDERS,
    REPEATS,
    STEPS,
    TARGETS,
)

# Argument parsing imports nothing heavy, so that --help and faults in the arguments answer at once.
from pconv_onnx.basics.errors import PconvError, WrongArguments, printable

if TYPE_CHECKING:
    from pconv_onnx.engine.shards import Engine

DONE, ANSWER_IS_NO, WRONG_ARGUMENTS, INTERRUPTED = 0, 1, 2, 130
_BAR = 40
_DATA = (
    ".npz or .parquet with arrays named as the model's inputs, and labels if there are any; a directory of such files; "
    "or a .json recipe for pictures"
)
_DATA_OR_RANDOM = f"{_DATA} (default: seeded random inputs)"


class _Answer(NamedTuple):
    """What a command has to say: as a JSON document, how that reads as lines of text, and as an exit status."""

    document: dict[str, Any]
    lines: Callable[[dict[str, Any]], Iterator[str]]
    status: int = DONE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status: 0 done, 1 the answer is no or a user error, 2 wrong arguments."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    as_json = "--json" in arguments
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            options = _parser().parse_args(arguments)
            # stdout is for the answer alone, whatever a library prints on the way to it.
            with contextlib.redirect_stdout(sys.stderr):
                answer = options.command(options)
                document = answer.document
                text = json.dumps(document, allow_nan=False) if as_json else "\n".join(answer.lines(_shown(document)))
        return _print(text, answer.status)
    except PconvError as error:
        status = WRONG_ARGUMENTS if isinstance(error, WrongArguments) else ANSWER_IS_NO
        if as_json:
            return _print(json.dumps({"error": {"message": error.message, "hint": error.hint}}), status)
        print(f"pconv-onnx: {error}", file=sys.stderr)
        return status
    except KeyboardInterrupt:
        print("pconv-onnx: interrupted", file=sys.stderr)
        return INTERRUPTED


def _print(text: str, status: int) -> int:
    """Print an answer on stdout and return its status, or 1 where it cannot be printed."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names in a model may have letters that the terminal's encoding has not.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        print(text, flush=True)
    except OSError as error:
        # The interpreter writes what is left in the buffer when it exits; that must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        # The reader of a pipe that went away (`| head`) has all it wants.
        if not isinstance(error, BrokenPipeError):
            print(f"pconv-onnx: cannot write the answer to stdout: {error.strerror}", file=sys.stderr)
            return ANSWER_IS_NO
    return status


def _shown(value: Any) -> Any:
    """A document whose texts, names of a model's tensors among them, may go to a terminal."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {key: _shown(entry) for key, entry in value.items()}
    return [_shown(entry) for entry in value] if isinstance(value, list | tuple) else value


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"pconv-onnx: warning: {printable(str(message))}", file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    """Faults in the arguments are told as every other fault is: in one line, or as a JSON document."""

    def parse_known_args(self, *arguments: Any, **options: Any) -> Any:  # type: ignore[override]
        """What a command does not know is told by it, not by the program, whose help does not list its options."""
        found, unknown = super().parse_known_args(*arguments, **options)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        raise WrongArguments(message, f"see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="pconv-onnx",
        description="Rewrite pretrained ANNs in ONNX as parallel spiking networks in ONNX.",
        epilog="exit status: 0 done; 1 the answer is no, or an error told in one line; 2 wrong arguments",
    )
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, command: Callable[[argparse.Namespace], _Answer], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)
        sub.add_argument("--json", action="store_true", help="print one JSON document on stdout and nothing else there")
        sub.set_defaults(command=command)
        return sub

    sub = add("inspect", _inspect, "list a model's activations and what rewrite would do with each")
    sub.add_argument("model", metavar="MODEL", help="ONNX file")

    sub = add("rewrite", _rewrite, "replace quantised activations by parallel spiking neurons")
    sub.add_argument("model", metavar="MODEL", help="ONNX file")
    sub.add_argument("-o", "--output", metavar="FILE", help="where to write (default: MODEL with .snn.onnx as its end)")
    sub.add_argument(
        "--steps", type=_steps, metavar="T",
        help=f"time-steps, 1 to {MAX_STEPS} (default: each activation's levels, lossless)",
    )  # fmt: skip
    sub.add_argument(
        "--mode", choices=MODES, default="parallel",
        help="parallel: spike trains flow (default); folded: their temporal means do, in one step; serial: one "
        "time-step a run, with membrane potentials as inputs and outputs",
    )  # fmt: skip
    sub.add_argument(
        "--precision", choices=PRECISIONS,
        help="compute in this type; inputs and outputs stay as they are (default: the source's type)",
    )  # fmt: skip
    sub.add_argument(
        "--signed", action="store_true",
        help="convert activations whose lowest value is not zero too: their neurons emit it while silent, so no "
        "operations are saved",
    )  # fmt: skip
    sub.add_argument("--include", action="append", default=[], metavar="PATTERN", help="convert only these activations")
    sub.add_argument("--exclude", action="append", default=[], metavar="PATTERN", help="leave these activations")
    sub.add_argument(
        "--per-step-outputs", action="store_true",
        help="add outputs NAME_per_step [T, B, ...]: the means over the first t of T steps (steps are not causal)",
    )  # fmt: skip
    sub.add_argument("--strict", action="store_true", help="fail where any activation is not converted")
    sub.add_argument("--dry-run", action="store_true", help="only say what would be done")
    sub.add_argument("--force", action="store_true", help="allow the output to be the input")

    sub.add_argument(
        "--calibration", metavar="FILE",
        help=f"give activations without levels --steps of them first, on these data: {_DATA}; or random: good for "
        "measuring time alone",
    )  # fmt: skip
    _add_batch_axis(sub)
    sub.add_argument("--method", choices=METHODS, help="how to calibrate (default: refit)")

    sub = add("calibrate", _calibrate, "give a model's ReLUs and other activations levels, on data, without training")
    sub.add_argument("model", metavar="MODEL", help="ONNX file")
    sub.add_argument(
        "--data", required=True, metavar="FILE",
        help=f"{_DATA}; or random",
    )  # fmt: skip
    _add_batch_axis(sub)
    _add_engine(sub)
    sub.add_argument("--steps", type=_steps, required=True, metavar="T", help=f"levels, 1 to {MAX_STEPS}")
    sub.add_argument(
        "-o", "--output", metavar="FILE", help="where to write (default: MODEL with .quantised.onnx as its end)"
    )
    sub.add_argument(
        "--method", choices=METHODS, default=METHODS[0],
        help="refit: weights, biases and activations (default); the others change activations alone",
    )  # fmt: skip
    sub.add_argument(
        "--cache", metavar="FILE", help="keep the calibration there, and take it from there if nothing has changed"
    )
    sub.add_argument("--force", action="store_true", help="allow the output to be the input")

    sub = add("verify", _verify, "compare a spiking network with its source, layer by layer and end to end")
    sub.add_argument("ann", metavar="ANN", help="the ONNX file that was rewritten")
    sub.add_argument("snn", metavar="SNN", help="the ONNX file that rewrite wrote")
    sub.add_argument("--data", metavar="FILE", help=_DATA_OR_RANDOM)
    _add_batch_axis(sub)
    sub.add_argument("--atol", type=_tolerance, metavar="A", help="fail where an output differs by more than this")
    sub.add_argument(
        "--provider", choices=PROVIDERS, default="cpu", help="where to run the networks; on CUDA without TF32 (cpu)"
    )

    sub = add(
        "evaluate", _evaluate, "count right answers of a network, and of its spiking form at each number of steps"
    )
    sub.add_argument("model", metavar="MODEL", help="ONNX file: an ANN; or, without --steps, a spiking network")
    sub.add_argument("--data", metavar="FILE", required=True, help=_DATA)
    _add_batch_axis(sub)
    _add_engine(sub)
    sub.add_argument(
        "--steps", type=_steps, nargs="+", default=[], metavar="T",
        help="rewrite the ANN at each of these T, and evaluate that (steps are not causal: no run at one T tells of "
        "another)",
    )  # fmt: skip
    sub.add_argument(
        "--mode", choices=MODES,
        help="how to rewrite; folded (default) computes at the price of one step what parallel does, but for "
        "rounding; serial steps through time",
    )  # fmt: skip
    _add_rewriting(sub)
    sub.add_argument(
        "-o", "--output", metavar="PLACE",
        help="draw the curve against time-steps: a .png, .svg or .pdf file, or a directory, which gets curve.png",
    )  # fmt: skip

    sub = add("stats", _stats, "count spikes, and the operations and energy that they leave of the ANN's")
    sub.add_argument("model", metavar="SNN", help="an ONNX file that rewrite wrote, in mode parallel or folded")
    sub.add_argument("--data", metavar="FILE", help=_DATA_OR_RANDOM)
    _add_batch_axis(sub)
    sub.add_argument(
        "--energy-mac", type=_energy, default=ENERGY_MAC, metavar="PJ",
        help=f"energy of a multiply-accumulate ({ENERGY_MAC}: 32-bit floats in 45 nm CMOS)",
    )  # fmt: skip
    sub.add_argument(
        "--energy-ac", type=_energy, default=ENERGY_AC, metavar="PJ", help=f"energy of an accumulate ({ENERGY_AC})"
    )

    sub = add("bench", _bench, "time a network against its spiking forms, at each number of steps and batch size")
    sub.add_argument("model", metavar="MODEL", help="ONNX file: an ANN")
    sub.add_argument(
        "--steps", type=_steps, nargs="+", default=STEPS, metavar="T", help="rewrite at these T (default: 4 8 16)"
    )
    sub.add_argument(
        "--batch", type=_positive, nargs="+", metavar="B",
        help="samples a run (default: 1 32, or the one that the model insists on)",
    )  # fmt: skip
    sub.add_argument("--provider", choices=PROVIDERS, default="cpu", help="where to run; on CUDA without TF32 (cpu)")
    sub.add_argument("--data", metavar="FILE", help=_DATA_OR_RANDOM)
    _add_batch_axis(sub)
    _add_rewriting(sub)
    sub.add_argument("--repeats", type=_positive, default=REPEATS, metavar="N", help="rounds to measure (20)")
    sub.add_argument(
        "-o", "--output", metavar="FOLDER",
        help="write a report there: accuracy, firing rates, operations and mismatches as well, with figures",
    )  # fmt: skip

    sub = add("deploy", _deploy, "write a spiking network into a folder that runs without pconv-onnx")
    sub.add_argument("model", metavar="SNN", help="an ONNX file that rewrite wrote, in any mode")
    sub.add_argument("-o", "--output", metavar="FOLDER", required=True, help="a new folder")
    sub.add_argument(
        "--target", choices=TARGETS, required=True,
        help="bundle: model, library, hashes and programs in Python and C++; triton: a model repository for its "
        "onnxruntime backend; nir: a serial network in the Neuromorphic Intermediate Representation",
    )  # fmt: skip
    sub.add_argument("--gpu", action="store_true", help="have Triton run it on a GPU")
    sub.add_argument(
        "--allow-lossy", action="store_true", help="write what NIR can express, and tell what that leaves out"
    )

    add("doctor", _doctor, "show versions, providers and the native library, and what is missing")
    return parser


def _add_batch_axis(sub: argparse.ArgumentParser) -> None:
    """The option of commands that take data."""
    sub.add_argument(
        "--batch-axis", type=_batch_axis, action="append", default=[], metavar="[NAME=]AXIS",
        help="along which axis of the model's inputs, or of the one of that name, samples lie (default: 0), or none; "
        "may be given several times, for outputs too. In the data they are along the first axis all the same",
    )  # fmt: skip


def _axes(options: argparse.Namespace) -> dict[str, int | None]:
    """Batch axes as functions take them: by name, that of all others by the empty one."""
    return dict(options.batch_axis)


def _add_engine(sub: argparse.ArgumentParser) -> None:
    """The options of commands that run over many samples."""
    sub.add_argument(
        "--engine", choices=ENGINES,
        help="ray: have workers on Ray run the networks, each on its own part of the data (default: this process)",
    )  # fmt: skip
    sub.add_argument(
        "--address", metavar="HOST:PORT", help="of the head of a running Ray cluster (default: start Ray here)"
    )
    sub.add_argument("--workers", type=_positive, metavar="N", help="how many at most (default: one for each CPU)")


@contextlib.contextmanager
def _engine(options: argparse.Namespace) -> Iterator[Engine | None]:
    """The engine that was asked for, running; None is the default."""
    for given in ("address", "workers"):
        _needs(options, given, "engine", "all runs in this process")
    if options.engine is None:
        yield None
        return
    from pconv_onnx.engine.ray import RayEngine

    with RayEngine(options.address, options.workers) as engine:
        yield engine


def _add_rewriting(sub: argparse.ArgumentParser) -> None:
    """The options of commands that rewrite at several T."""
    sub.add_argument("--calibration", metavar="FILE", help="as rewrite takes it, anew at each T")
    sub.add_argument("--method", choices=METHODS, help="how to calibrate (default: refit)")
    sub.add_argument("--signed", action="store_true", help="as rewrite takes it")


def _steps(text: str) -> int:
    with contextlib.suppress(ValueError):
        if 1 <= int(text) <= MAX_STEPS:
            return int(text)
    raise argparse.ArgumentTypeError(f"'{text}' is not a number of time-steps from 1 to {MAX_STEPS}")


def _batch_axis(text: str) -> tuple[str, int | None]:
    name, _, axis = text.rpartition("=")
    with contextlib.suppress(ValueError):
        return name, None if axis == "none" else int(axis)
    raise argparse.ArgumentTypeError(f"'{text}' is not a batch axis; give a number or none, or NAME= and that")


def _positive(text: str) -> int:
    with contextlib.suppress(ValueError):
        if int(text) >= 1:
            return int(text)
    raise argparse.ArgumentTypeError(f"'{text}' is not a number from 1 on")


def _tolerance(text: str) -> float:
    return _not_negative(text, "a tolerance")


def _energy(text: str) -> float:
    return _not_negative(text, "an energy")


def _not_negative(text: str, what: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"'{text}' is not {what}; choose a finite number that is not negative")


class _Version(argparse.Action):
    def __init__(self, **arguments: Any) -> None:
        super().__init__(nargs=0, default=argparse.SUPPRESS, help="show the version", **arguments)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        print(f"pconv-onnx {version('pconv-onnx')}")
        parser.exit(DONE)


def _needs(options: argparse.Namespace, given: str, needed: str, told: str) -> None:
    """Raise where an option is given that has no effect without another.

    Raises:
        WrongArguments: it is; what is `told` is how things are without the other.
    """
    if getattr(options, given) and not getattr(options, needed):
        flag = "-o/--output" if given == "output" else f"--{given.replace('_', '-')}"
        raise WrongArguments(f"argument {flag}: {told} without --{needed}")


def _inspect(options: argparse.Namespace) -> _Answer:
    from pconv_onnx.rewriting import inspect

    summary = inspect(options.model)
    return _Answer(summary, _plan_lines)


def _rewrite(options: argparse.Namespace) -> _Answer:
    _needs(options, "calibration", "steps", "there are no levels to calibrate to")
    for given in ("method", "batch_axis"):
        _needs(options, given, "calibration", "nothing is calibrated")
    from pconv_onnx.rewriting import rewrite

    output = options.output or f"{options.model.removesuffix('.onnx')}.snn.onnx"
    result = rewrite(
        options.model,
        output,
        steps=options.steps,
        mode=options.mode,
        precision=options.precision,
        signed=options.signed,
        calibration=options.calibration,
        batch_axis=_axes(options),
        method=options.method,
        include=options.include,
        exclude=options.exclude,
        per_step_outputs=options.per_step_outputs,
        strict=options.strict,
        dry_run=options.dry_run,
        force=options.force,
    )
    summary = {**result.summary(), "output": None if options.dry_run else output}
    return _Answer(summary, _rewriting_lines)


def _calibrate(options: argparse.Namespace) -> _Answer:
    from pconv_onnx.calibration import calibrate

    output = options.output or f"{options.model.removesuffix('.onnx')}.quantised.onnx"
    with _engine(options) as engine:
        result = calibrate(
            options.model,
            options.data,
            output,
            batch_axis=_axes(options),
            steps=options.steps,
            method=options.method,
            cache=options.cache,
            force=options.force,
            engine=engine,
        )
    summary = {**result.summary(), "output": output}
    return _Answer(summary, _calibration_lines)


def _verify(options: argparse.Namespace) -> _Answer:
    from pconv_onnx.measure.verification import verify

    result = verify(
        options.ann,
        options.snn,
        options.data,
        batch_axis=_axes(options),
        atol=options.atol,
        providers=PROVIDERS[options.provider],
    )
    summary = result.summary()
    return _Answer(summary, _verification_lines, DONE if result.passed else ANSWER_IS_NO)


def _evaluate(options: argparse.Namespace) -> _Answer:
    _needs(options, "output", "steps", "there is no curve")
    for given in ("mode", "signed"):
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
            mode=options.mode or "folded",
            signed=options.signed,
            calibration=options.calibration,
            method=options.method,
            engine=engine,
        )
    summary = result.summary()
    if path:
        result.draw(options.output)
    summary["output"] = str(path) if path else None
    return _Answer(summary, _evaluation_lines)


def _stats(options: argparse.Namespace) -> _Answer:
    from pconv_onnx.measure.statistics import stats

    result = stats(
        options.model,
        options.data,
        batch_axis=_axes(options),
        energy_mac=options.energy_mac,
        energy_ac=options.energy_ac,
    )
    summary = result.summary()
    return _Answer(summary, _stats_lines)


def _bench(options: argparse.Namespace) -> _Answer:
    _needs(options, "method", "calibration", "nothing is calibrated")
    from pconv_onnx.measure.benchmarking import bench
    from pconv_onnx.report import page

    if options.output:
        page.destination(options.output)
    result = bench(
        options.model,
        steps=options.steps,
        batches=options.batch,
        provider=options.provider,
        data=options.data,
        batch_axis=_axes(options),
        calibration=options.calibration,
        method=options.method,
        signed=options.signed,
        repeats=options.repeats,
    )
    written = None
    if options.output:
        try:
            written = str(result.write(options.output))
        except PconvError as error:  # what was measured is printed all the same
            warnings.warn(f"no report: {error}", stacklevel=1)
    summary = {**result.summary(), "output": written}
    done = summary["complete"] and any(row["repetitions"] for row in summary["rows"])
    status = DONE if done and bool(written) == bool(options.output) else ANSWER_IS_NO
    return _Answer(summary, _benchmark_lines, INTERRUPTED if result.interrupted else status)


def _deploy(options: argparse.Namespace) -> _Answer:
    from pconv_onnx.deployment import deploy

    target, gpu, allow_lossy = options.target, options.gpu, options.allow_lossy
    summary = deploy(options.model, options.output, target=target, gpu=gpu, allow_lossy=allow_lossy).summary()
    return _Answer(summary, _deployment_lines)


def _doctor(options: argparse.Namespace) -> _Answer:
    from pconv_onnx.runtime.installation import doctor

    summary = doctor()
    return _Answer(summary, _installation_lines, ANSWER_IS_NO if summary["problems"] else DONE)


def _plan_lines(summary: dict[str, Any]) -> Iterator[str]:
    if not summary["activations"]:
        yield "no activations found"
        return
    header = ["activation", "encoding", "levels", "steps", "status", "operators"]
    table = [header]
    for row in summary["activations"]:
        levels, steps = (str(row[key] or "-") for key in ("levels", "steps"))
        table.append([row["name"], row["encoding"], levels, steps, row["status"], " ".join(row["op_types"])])
    yield from _columns(table)
    yield from (f"\n{line}" for line in _by_reason(summary["activations"]))
    yield "{converted} convertible, {needs_calibration} without levels, {refused} refused".format(**summary["counts"])
    yield from _hybrid_line(summary)


def _by_reason(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Activations that something is said of, those of which the same is said in one line."""
    names: dict[str, list[str]] = {}
    for row in rows:
        if row["reason"]:
            names.setdefault(row["reason"], []).append(row["name"])
    for reason, those in names.items():
        yield f"{_first_of(those)}: {reason}"


def _first_of(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _hybrid_line(summary: dict[str, Any]) -> Iterator[str]:
    names = summary["hybrid"]
    if names:
        stay = "1 activation stays" if len(names) == 1 else f"{len(names)} activations stay"
        yield f"hybrid: {stay} analog between spiking layers"


def _calibration_lines(summary: dict[str, Any]) -> Iterator[str]:
    rows = [row for row in summary["activations"] if row["status"] == "calibrated"]
    table = [["activation", "channels", "silent", "threshold", "squared error"]]
    for row in rows:
        threshold = " … ".join(f"{value:.3g}" for value in row["threshold"] or ()) or "-"
        channels, silent = str(row["channels"]), str(row["silent_channels"])
        table.append([row["name"], channels, silent, threshold, _percent(row["relative_error"])])
    yield from _columns(table)
    yield from (f"stays analog: {line}" for line in _by_reason(rows))
    left = [row for row in summary["activations"] if row["status"] != "calibrated"]
    yield from (f"not calibrated: {line}" for line in _by_reason(left))
    if summary["random"]:
        yield "the data were random: the network is good for measuring time, and its accuracy means nothing"
    for name in summary["silent_activations"]:
        yield f"silent: no channel of {name} fires on these data, so that it gives a constant"
    for name in summary["uncorrected_layers"]:
        yield f"too wide to be corrected: {name}"
    corrected = f", corrected layers: {summary['corrected_layers']}" if summary["method"] == "refit" else ""
    where = f"{summary['output']}: " if "output" in summary else ""
    kept = ", found by an earlier run (--cache)" if summary["from_cache"] else ""
    yield f"{where}T = {summary['steps']}, method {summary['method']}, {summary['samples']} samples{corrected}{kept}"


def _columns(table: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows of cells under each other."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for cells in table:
        yield "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _rewriting_lines(summary: dict[str, Any]) -> Iterator[str]:
    if summary["calibration"] is not None:
        yield from _calibration_lines(summary["calibration"])
    if summary["output"] is None:
        yield from _plan_lines(summary)
    else:
        yield "{converted} converted, {needs_calibration} without levels, {refused} refused".format(**summary["counts"])
        yield from (f"not converted: {line}" for line in _by_reason(summary["activations"]))
        yield from _hybrid_line(summary)
    converted = [row for row in summary["activations"] if row["steps"]]
    signed = sum(row["signed"] for row in converted)
    if signed:
        yield (
            f"{signed} signed: where silent their neurons emit their lowest value instead of zero, so their trains are "
            "dense and save no operations"
        )
    if summary["mode"] == "serial":
        yield "serial: outputs depend on when spikes arrive, so they are not the source's; evaluate tells the accuracy"
    # With T = L there is no error to tell; that of uneven thresholds is not even known.
    lossy = {(row["levels"], row["steps"], row["rms_error"]) for row in converted if row["steps"] != row["levels"]}
    for levels, steps, error in sorted(lossy):
        yield (
            f"T = {steps} is not the source's L = {levels}: not lossless; for inputs spread evenly a neuron's "
            f"error is {'zero in the mean and ' if steps < levels else ''}{error:.2g} θ as root mean square"
        )
    if summary["output"] is not None:
        if summary["per_step_outputs"]:
            yield f"added outputs: {', '.join(summary['per_step_outputs'])}"
        steps = summary["steps"] or "different for each neuron"
        yield f"{summary['output']}: mode {summary['mode']}, T = {steps}, {summary['precision']}"


def _verification_lines(summary: dict[str, Any]) -> Iterator[str]:
    layers = summary["layers"]
    wrong = [layer for layer in layers if layer["count_mismatch_rate"]]
    exact = [layer for layer in layers if layer["exact"]]
    calibrated = sum(layer["calibrated"] for layer in layers)
    others = len(layers) - len(exact) - calibrated
    compared = summary["layers_compared"]
    yield _samples_line(summary)
    if compared:
        right = f"{compared - len(wrong)} of {compared}"
        yield f"layers with the source's spike count on every element, given the same input: {right}"
    else:
        yield "no layer was compared with the source, outputs were only measured; --atol bounds them"
    for layer in wrong:
        yield f"  {layer['name']}: {100 * layer['count_mismatch_rate']:.3g} % of the elements differ"
    if compared < len(exact):
        yield f"layers in branches that no sample got to, so not compared: {len(exact) - compared}"
    if calibrated:
        yield f"layers with levels of a calibration (the source has a ReLU), with nothing to be equal to: {calibrated}"
    if others:
        yield f"layers with T other than the source's levels, so with nothing to be equal to: {others}"
    unloaded = summary["load_errors"]
    for title, values, networks in (
        ("outputs, graph optimisations disabled", summary["unoptimised"], ""),
        ("outputs, as onnxruntime runs them", summary, "ann snn"),
        ("for comparison, the source against itself with and without them", summary["source_against_itself"], "ann"),
        ("for comparison, the spiking network likewise", summary["spiking_against_itself"], "snn"),
    ):
        if unloaded.keys().isdisjoint(networks.split()):
            agreement = values["top1_agreement"]
            top1 = "" if agreement is None else f", top-1 agreement {100 * agreement:.2f} %"
            yield f"{title}: largest difference {_difference(values)}{top1}"
    for reason in unloaded.values():
        yield f"compared only with graph optimisations disabled: {reason}"
    if len(summary["outputs_differ"]) == 1 and not unloaded:
        settings = ["with graph optimisations disabled", "as run"]
        agree, differ = settings if summary["outputs_differ"] == ["as_run"] else settings[::-1]
        yield (
            f"outputs agree {agree} and differ {differ}: onnxruntime's optimisation changes the source by "
            f"{_difference(summary['source_against_itself'])} and the spiking network by "
            f"{_difference(summary['spiking_against_itself'])}"
        )
    if summary["accuracy"]:
        yield "top-1 accuracy: source {ann:.2%}, spiking {snn:.2%}".format(**summary["accuracy"])
    within = "only measured" if summary["atol"] is None else f"within {summary['atol']:g}"
    alone = "" if compared else f", with no layer compared and outputs {within}"
    yield f"passed{alone}" if summary["passed"] else "FAILED"


def _samples_line(summary: dict[str, Any]) -> str:
    drawn = " (seeded random inputs; pass --data for real ones)" if summary["random_inputs"] else ""
    return f"samples: {summary['samples']}{drawn}"


def _difference(outputs: dict[str, Any]) -> str:
    difference = outputs["max_abs_diff"]
    return "without bound (a NaN, an infinity or another shape)" if difference is None else f"{difference:.3g}"


def _evaluation_lines(summary: dict[str, Any]) -> Iterator[str]:
    rows = summary["rows"] if summary["ann"] is None else [{"steps": "ANN", **summary["ann"]}, *summary["rows"]]
    ruler = "top1" if summary["labels"] else "agreement"
    table = [["T", "top-1", "top-5", "agreement", "mse", ""]]
    for row in rows:
        top1, error, top5, agreement, mse = (
            row.get(key) for key in ("top1", "top1_standard_error", "top5", "agreement", "mse")
        )
        table.append(
            [
                str(row["steps"] or "-"),
                "-" if top1 is None else f"{100 * top1:.2f} ± {100 * error:.2f} %",
                _percent(top5),
                _percent(agreement),
                "-" if mse is None else f"{mse:.3g}",
                "#" * round(_BAR * (row.get(ruler) or 0)),
            ]
        )
    yield f"samples: {summary['samples']}{'' if summary['labels'] else ', without labels'}"
    yield from _columns(table)
    if summary["output"]:
        yield f"{summary['output']}: the curve"


def _stats_lines(summary: dict[str, Any]) -> Iterator[str]:
    yield _samples_line(summary)
    yield f"mode {summary['mode']}, T = {summary['steps'] or 'different for each layer'}\n"
    table = [["layer", "T", "neurons", "channels", "silent", "saturated", "firing rate"]]
    for row in summary["layers"]:
        numbers = (row[key] for key in ("steps", "neurons", "channels", "silent_channels", "saturated_channels"))
        table.append([row["name"], *map(str, numbers), _percent(row["firing_rate"])])
    totals, energy = summary["totals"], summary["energy"]
    table.append(["all", "", "", "", "", "", _percent(totals["firing_rate"])])
    yield from _columns(table)
    columns = ("macs", "synaptic_operations", "multiply_accumulates")
    table = [["operator", "type", "input", "MACs of the ANN", "synaptic operations", "MACs that remain"]]
    for row in summary["operators"]:
        table.append([row["name"], row["op_type"], row["input"], *(_whole(row[key]) for key in columns)])
    table.append(["all", "", "", *(_whole(totals[key]) for key in ("ann_macs", *columns[1:]))])
    yield ""
    yield from _columns(table)
    yield f"\nenergy of a sample: ANN {energy['ann_nj']:,.3f} nJ, spiking network {energy['snn_nj']:,.3f} nJ"
    if energy["ratio"] is not None:
        more = "costs more than its ANN" if energy["ratio"] > 1 else "costs no more than its ANN"
        yield f"the spiking network {more}: {energy['ratio']:.3g} times the energy"
    for row in summary["operators"]:
        if row["macs"] is None:
            yield f"not counted: {row['name']} ({row['op_type']})"
    for assumption in energy["assumptions"]:
        yield f"assumed: {assumption}"


def _whole(operations: float | None) -> str:
    return "-" if operations is None else f"{operations:,.0f}"


def _benchmark_lines(summary: dict[str, Any]) -> Iterator[str]:
    machine = summary["machine"]
    drawn = "seeded random inputs" if summary["random_inputs"] else "the data given"
    yield f"{summary['model']} on {machine['cpu']}, {summary['threads'] or '?'} threads, {drawn}"
    table = [["batch", "mode", "T", "median", "10 % … 90 %", "images/s", "× ANN", "peak memory"]]
    for row in summary["rows"]:
        if row["repetitions"]:
            table.append(
                [
                    str(row["batch"]),
                    row["mode"],
                    str(row["steps"] or "-"),
                    f"{row['median_ms']:.2f} ms",
                    f"{row['p10_ms']:.2f} … {row['p90_ms']:.2f} ms",
                    f"{row['images_per_s']:.4g}",
                    "-" if row["ratio_to_ann"] is None else f"{row['ratio_to_ann']:.2f}",
                    "-" if row["peak_memory_mib"] is None else f"{row['peak_memory_mib']:.0f} MiB",
                ]
            )
    if len(table) > 1:
        yield from _columns(table)
    failed: dict[str, list[str]] = {}
    for row in summary["rows"]:
        if row["error"]:
            at = f" at T = {row['steps']}" if row["steps"] else ""
            failed.setdefault(row["error"], []).append(f"{row['mode']}{at}, batch {row['batch']}")
    for error, rows in failed.items():
        yield f"not measured: {_first_of(rows)}: {error}"
    if machine["quiet"] is False:
        yield f"the machine was not quiet: other processes took {_percent(machine['other_work'])} of the CPU time"
    if not summary["complete"]:
        yield f"incomplete: {summary['stopped']}"
    if summary["output"]:
        yield f"{summary['output']}: the report"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"


def _deployment_lines(summary: dict[str, Any]) -> Iterator[str]:
    yield from summary["notes"]
    yield from (f"lost: {loss}" for loss in summary["losses"])
    kernels = f", with kernels for {', '.join(summary['providers'])}" if summary["providers"] else ""
    yield f"{summary['output']}: {summary['target']} of {len(summary['files'])} files{kernels}"


def _installation_lines(summary: dict[str, Any]) -> Iterator[str]:
    library = summary["library"]
    for name in ("pconv_onnx", "python", "onnx", "numpy", "onnxruntime"):
        yield f"{name:<12} {summary[name] or 'missing'}"
    yield f"{'providers':<12} {', '.join(summary['providers']) or 'none'}"
    yield f"{'library':<12} {library['path'] or 'missing'}"
    built_in = "built in" if library["cuda"] else "no"
    yield f"{'kernels':<12} CPU: {'works' if library['cpu'] else 'no'}, CUDA: {built_in}"
    for problem in summary["problems"]:
        yield f"problem: {problem}"
    if not summary["problems"]:
        yield "no problems found"


if __name__ == "__main__":
    sys.exit(main())
