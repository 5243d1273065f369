"""The arguments of each command, one function a command."""

from __future__ import annotations

import argparse
import contextlib
import math
import re
from collections.abc import Callable
from typing import Any, NoReturn

from pconv_onnx.basics.choices import (
    CODINGS,
    ENERGY_AC,
    ENERGY_MAC,
    ENGINES,
    INPUT_BITS,
    MAX_STEPS,
    MEMORY,
    METHODS,
    MODES,
    NEURONS,
    PRECISIONS,
    PROVIDERS,
    REPEATS,
    STEPS,
    TARGETS,
    WEIGHTS,
)
from pconv_onnx.basics.errors import WrongArguments
from pconv_onnx.cli import commands
from pconv_onnx.cli.commands import DONE

_DATA = (
    ".npz or .parquet with arrays named as the model's inputs, and labels if there are any (integers are classes, "
    "of samples or of their tokens, floats targets); a directory of such files; or a .json recipe for pictures "
    "(docs/data.md)"
)
_DATA_OR_RANDOM = f"{_DATA} (default: seeded random inputs)"

# What sizes of memory are given in.
_UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


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


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; `command` of what it finds is one of `commands`."""
    program = _Parser(
        prog="pconv-onnx",
        description="Rewrite pretrained ANNs in ONNX as parallel spiking networks in ONNX.",
        epilog="exit status: 0 done; 1 the answer is no, or an error told in one line; 2 wrong arguments",
    )
    program.add_argument("--version", action=_Version)
    subparsers = program.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, (add_arguments, command, text) in _COMMANDS.items():
        sub = subparsers.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)
        sub.add_argument("--json", action="store_true", help="print one JSON document on stdout and nothing else there")
        sub.set_defaults(command=command)
        add_arguments(sub)
    return program


def _inspect(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("model", metavar="MODEL", help="ONNX file")
    _add_neurons(sub)


def _rewrite(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("model", metavar="MODEL", help="ONNX file")
    sub.add_argument("-o", "--output", metavar="FILE", help="where to write (default: MODEL with .snn.onnx as its end)")
    sub.add_argument(
        "--steps", type=_steps, metavar="T",
        help=f"time-steps, 1 to {MAX_STEPS} (default: as many as each activation's levels need, lossless)",
    )  # fmt: skip
    _add_coding(sub)
    _add_neurons(sub)
    sub.add_argument(
        "--mode", choices=MODES, default="parallel",
        help="parallel: spike trains flow (default); folded: their temporal means do, in one step; serial: one "
        "time-step a run, with membrane potentials as inputs and outputs; integer: spike counts do, between layers of "
        "integer weights, int8 unless --weights says another; integer-parallel: trains do, between the same layers",
    )  # fmt: skip
    sub.add_argument(
        "--precision", choices=PRECISIONS,
        help="compute in this type; inputs and outputs stay as they are (default: the source's type)",
    )  # fmt: skip
    sub.add_argument(
        "--signed", action="store_true",
        help="carry values below zero with an offset, not with signs, and convert activations whose levels lack zero "
        "too: such neurons emit their lowest value while silent, so no operations are saved",
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
        help="give activations without levels as many as --steps have in --coding first, on these data: "
        f"{_DATA}; or random: good for measuring time alone",
    )  # fmt: skip
    _add_batch_axis(sub)
    sub.add_argument("--method", choices=METHODS, help="how to calibrate (default: refit)")
    _add_integers(sub)


def _calibrate(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("model", metavar="MODEL", help="ONNX file")
    sub.add_argument(
        "--data", required=True, metavar="FILE",
        help=f"{_DATA}; or random",
    )  # fmt: skip
    _add_batch_axis(sub)
    _add_engine(sub)
    sub.add_argument(
        "--steps", type=_steps, required=True, metavar="T",
        help=f"time-steps: as many levels in coding rate, 1 to {MAX_STEPS}; 2^T - 1 in coding radix, 1 to 16",
    )  # fmt: skip
    _add_coding(sub)
    _add_neurons(sub)
    sub.add_argument(
        "--signed", action="store_true",
        help="give levels below zero an offset, as rewrite --signed and mode serial need them",
    )  # fmt: skip
    sub.add_argument(
        "-o", "--output", metavar="FILE", help="where to write (default: MODEL with .quantised.onnx as its end)"
    )
    sub.add_argument(
        "--method", choices=METHODS, default=METHODS[0],
        help="refit: weights, biases and activations (default); the others change activations alone",
    )  # fmt: skip
    sub.add_argument(
        "--sensitivity", action="store_true",
        help="measure for each activation what the outputs lose where it alone is quantised (a few runs for each)",
    )  # fmt: skip
    sub.add_argument(
        "--cache", metavar="FILE", help="keep the calibration there, and take it from there if nothing has changed"
    )
    sub.add_argument("--force", action="store_true", help="allow the output to be the input")


def _verify(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("ann", metavar="ANN", help="the ONNX file that was rewritten")
    sub.add_argument("snn", metavar="SNN", help="the ONNX file that rewrite wrote")
    sub.add_argument("--data", metavar="FILE", help=_DATA_OR_RANDOM)
    _add_batch_axis(sub)
    sub.add_argument("--atol", type=_tolerance, metavar="A", help="fail where an output differs by more than this")
    _add_memory(sub)
    sub.add_argument(
        "--provider", choices=PROVIDERS, default="cpu", help="where to run the networks; on CUDA without TF32 (cpu)"
    )


def _evaluate(sub: argparse.ArgumentParser) -> None:
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
        "rounding; serial steps through time; integer and integer-parallel compute on bytes",
    )  # fmt: skip
    _add_rewriting(sub)
    sub.add_argument(
        "-o", "--output", metavar="PLACE",
        help="draw the curve against time-steps: a .png, .svg or .pdf file, or a directory, which gets curve.png",
    )  # fmt: skip


def _stats(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("model", metavar="SNN", help="an ONNX file that rewrite wrote, in any mode but serial")
    sub.add_argument("--data", metavar="FILE", help=_DATA_OR_RANDOM)
    _add_batch_axis(sub)
    sub.add_argument(
        "--energy-mac", type=_energy, default=ENERGY_MAC, metavar="PJ",
        help=f"energy of a multiply-accumulate ({ENERGY_MAC}: 32-bit floats in 45 nm CMOS)",
    )  # fmt: skip
    sub.add_argument(
        "--energy-ac", type=_energy, default=ENERGY_AC, metavar="PJ", help=f"energy of an accumulate ({ENERGY_AC})"
    )
    _add_memory(sub)


def _bench(sub: argparse.ArgumentParser) -> None:
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


def _deploy(sub: argparse.ArgumentParser) -> None:
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


def _doctor(sub: argparse.ArgumentParser) -> None:
    """It has none."""


def _add_batch_axis(sub: argparse.ArgumentParser) -> None:
    """The option of commands that take data."""
    sub.add_argument(
        "--batch-axis", type=_batch_axis, action="append", default=[], metavar="[NAME=]AXIS",
        help="along which axis of the model's inputs, or of the one of that name, samples lie (default: 0), or none; "
        "may be given several times, for outputs too. In the data they are along the first axis all the same",
    )  # fmt: skip


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


def _add_rewriting(sub: argparse.ArgumentParser) -> None:
    """The options of commands that rewrite at several T."""
    _add_coding(sub)
    _add_neurons(sub)
    sub.add_argument("--calibration", metavar="FILE", help="as rewrite takes it, anew at each T")
    sub.add_argument("--method", choices=METHODS, help="how to calibrate (default: refit)")
    sub.add_argument("--signed", action="store_true", help="as rewrite takes it")
    _add_integers(sub)


def _add_coding(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--coding", choices=CODINGS,
        help="how T spikes carry a count: rate: so many of them fire; radix: its binary digits do, so that 8 carry 255 "
        "levels (auto: rate, but radix for activations of more than 16 levels where no --steps are given)",
    )  # fmt: skip


def _add_neurons(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--neurons", choices=NEURONS,
        help="where neurons are: in place of activations (default), or also in front of products: convolutions, matrix "
        "products and gates that would read no spikes otherwise; a calibration gives these their levels",
    )  # fmt: skip


def _add_integers(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--weights", choices=WEIGHTS,
        help="round weights to integers, carried in float tensors, so that no sum rounds and parallel, folded, any "
        "batch and any number of threads give the same bits (not in mode serial); each to the nearest integer, or "
        "with --calibration as loses least on those data",
    )  # fmt: skip
    sub.add_argument(
        "--input-bits", type=int, choices=INPUT_BITS,
        help="with --weights: round the network's inputs to 256 values as well; without it the layers that read them "
        "compute on floats",
    )  # fmt: skip
    sub.add_argument(
        "--input-range", type=float, nargs=2, metavar=("LOW", "HIGH"),
        help="with --input-bits: least and largest value of the inputs (default: those in --calibration)",
    )  # fmt: skip


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


def _bytes(text: str) -> int:
    found = re.fullmatch(r"([0-9.]+) *([A-Za-z]*)", text.strip())
    with contextlib.suppress(ValueError, KeyError, OverflowError):
        if found is not None:
            return int(float(found[1]) * _UNITS[found[2]])
    raise argparse.ArgumentTypeError(f"'{text}' is not a size; give bytes, or a number of MiB or GiB: 2GiB")


def _add_memory(sub: argparse.ArgumentParser) -> None:
    """The option of commands that hold activations."""
    sub.add_argument(
        "--memory", type=_bytes, default=MEMORY, metavar="SIZE",
        help="what activations may take at once, as far as shapes tell: so many samples run together (default: "
        f"{MEMORY >> 20}MiB)",
    )  # fmt: skip


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


# One row a command, in the order in which help lists them: its arguments, and what it does.
_COMMANDS: dict[
    str, tuple[Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], commands.Answer], str]
] = {
    "inspect": (_inspect, commands.inspect, "list a model's activations and what rewrite would do with each"),
    "rewrite": (_rewrite, commands.rewrite, "replace quantised activations by parallel spiking neurons"),
    "calibrate": (
        _calibrate,
        commands.calibrate,
        "give a model's ReLUs and other activations levels, on data, without training",
    ),
    "verify": (_verify, commands.verify, "compare a spiking network with its source, layer by layer and end to end"),
    "evaluate": (
        _evaluate,
        commands.evaluate,
        "count right answers of a network, or measure its error against targets, and so for its spiking form at each T",
    ),
    "stats": (_stats, commands.stats, "count spikes, and the operations and energy that they leave of the ANN's"),
    "bench": (
        _bench,
        commands.bench,
        "time a network against its spiking forms, at each number of steps and batch size",
    ),
    "deploy": (_deploy, commands.deploy, "write a spiking network into a folder that runs without pconv-onnx"),
    "doctor": (_doctor, commands.doctor, "show versions, providers and the native library, and what is missing"),
}
