"""The arguments of each command, one function a command."""

from __future__ import annotations

import argparse
import contextlib
import difflib
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
    READOUTS,
    REPEATS,
    STEPS,
    TARGETS,
    WEIGHTS,
)
from pconv_onnx.basics.errors import PconvError, WrongArguments
from pconv_onnx.basics.version import own_version
from pconv_onnx.cli import commands
from pconv_onnx.cli.commands import DONE

_DATA = (
    "a .npz or .parquet file with arrays named as the model's inputs, and labels if there are any (integers are "
    "classes of samples or of tokens, floats are targets); a directory of such files; or a .json recipe for pictures "
    "(docs/data.md)"
)
_DATA_OR_RANDOM = f"{_DATA} (default: seeded random inputs)"

# The word that argparse does not know, in its messages.
_UNKNOWN = re.compile(r"(?:unrecognized arguments: |invalid choice: ')([^\s']+)")
# Shells that completions can be printed for.
_SHELLS = ("bash", "zsh", "tcsh")

# What sizes of memory are given in.
_UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


class _Parser(argparse.ArgumentParser):
    """Reports wrong arguments like every other error: in one line, or as a JSON document."""

    def parse_known_args(self, *arguments: Any, **options: Any) -> Any:  # type: ignore[override]
        """Let a command report options that it does not know, since the program's help does not list its options."""
        found, unknown = super().parse_known_args(*arguments, **options)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        meant = self._meant(message)
        raise WrongArguments(message, f"{f'did you mean {meant}? See' if meant else 'see'} {self.prog} --help")

    def _meant(self, message: str) -> str:
        """The command, option or choice that is spelled almost like an unknown word; empty if there is none."""
        word = _UNKNOWN.search(message)
        known = [*self._option_string_actions, *(str(choice) for one in self._actions for choice in one.choices or ())]
        return next(iter(difflib.get_close_matches(word[1], known, 1)), "") if word else ""


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; `command` of what it finds is one of `commands`."""
    program = _Parser(
        prog="pconv-onnx",
        description="Turn pretrained ONNX networks into spiking ones; check, measure and deploy them.",
        epilog="exit status: 0 done; 1 the answer is no, or an error, printed in one line; 2 wrong arguments",
    )
    program.add_argument("--version", action=_Version)
    program.add_argument("--print-completion", choices=_SHELLS, action=_Completion)
    subparsers = program.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, (add_arguments, command, text) in _COMMANDS.items():
        sub = subparsers.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)
        sub.add_argument("--json", action="store_true", help="print one JSON document on stdout, and nothing else")
        talk = sub.add_mutually_exclusive_group()
        talk.add_argument(
            "-v", "--verbose", action="store_true", help="also print on stderr what is done, and how long it takes"
        )
        talk.add_argument(
            "-q",
            "--quiet",
            action="store_true",
            help="print no progress and no notes on stderr; warnings and errors stay",
        )
        sub.set_defaults(command=command)
        add_arguments(sub)
    return program


def _inspect(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("model", metavar="MODEL", help="ONNX file")
    _add_neurons(sub)


def _rewrite(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("model", metavar="MODEL", help="ONNX file, or a NIR graph (.nir), which becomes a serial network")
    sub.add_argument("-o", "--output", metavar="FILE", help="file to write (default: MODEL with the ending .snn.onnx)")
    sub.add_argument(
        "--dt", type=float, metavar="LENGTH",
        help="for a NIR graph: length of a time-step, in the unit of its time constants",
    )  # fmt: skip
    sub.add_argument(
        "--steps", type=_steps, metavar="T",
        help=f"number of time-steps, 1 to {MAX_STEPS} (default: as many as each activation's levels need; lossless)",
    )  # fmt: skip
    _add_coding(sub)
    _add_neurons(sub)
    sub.add_argument(
        "--mode", choices=MODES, default="parallel",
        help="what flows through the network. parallel: spike trains (default); folded: their temporal means, in one "
        "step; serial: one time-step in each run, with membrane potentials as inputs and outputs; integer: spike "
        "counts, between layers with integer weights (int8, or what --weights says); integer-parallel: spike trains, "
        "between the same layers",
    )  # fmt: skip
    sub.add_argument(
        "--precision", choices=PRECISIONS,
        help="compute in this type; inputs and outputs keep theirs (default: the type of MODEL)",
    )  # fmt: skip
    sub.add_argument(
        "--signed", action="store_true",
        help="carry values below zero with an offset instead of signed spikes, and also convert activations without a "
        "level at zero. A silent neuron then emits its lowest value, so it saves no operations",
    )  # fmt: skip
    sub.add_argument(
        "--include",
        action="append",
        default=[],
        metavar="PATTERN",
        help="convert only activations whose name fits this shell pattern; repeatable",
    )
    sub.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="PATTERN",
        help="leave activations whose name fits as they are; repeatable",
    )
    sub.add_argument(
        "--per-step-outputs", action="store_true",
        help="for each output NAME that has time-steps, add NAME_per_step [T, B, ...]: the means over the first t of T "
        "steps (steps are not causal)",
    )  # fmt: skip
    sub.add_argument("--strict", action="store_true", help="fail if any activation is not converted")
    sub.add_argument("--dry-run", action="store_true", help="say what would be done, and write nothing")
    sub.add_argument("--force", action="store_true", help="allow the output to replace MODEL")

    sub.add_argument(
        "--calibration", metavar="FILE",
        help="data on which activations without levels get them first, as many as --steps time-steps can carry in "
        f"--coding: {_DATA}; or 'random', which is good only for measuring time",
    )  # fmt: skip
    _add_batch_axis(sub)
    sub.add_argument("--method", choices=METHODS, help="how to calibrate (default: refit)")
    _add_integers(sub)


def _calibrate(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("model", metavar="MODEL", help="ONNX file")
    sub.add_argument(
        "--data", required=True, metavar="FILE",
        help=f"{_DATA}; or 'random'",
    )  # fmt: skip
    _add_batch_axis(sub)
    _add_engine(sub)
    sub.add_argument(
        "--steps", type=_steps, nargs="+", required=True, metavar="T",
        help="number of time-steps, which sets the number of levels: T in coding rate "
        f"(T from 1 to {MAX_STEPS}), 2^T - 1 in coding radix (T from 1 to 16). Of several, each gets a file of its own",
    )  # fmt: skip
    _add_coding(sub)
    _add_neurons(sub)
    sub.add_argument(
        "--signed", action="store_true",
        help="give levels below zero an offset, as rewrite needs for --signed and for --mode serial",
    )  # fmt: skip
    sub.add_argument(
        "--readouts", choices=READOUTS, default=READOUTS[0],
        help="what becomes of activations that only outputs read, and no product. analog (default): they stay, since "
        "levels would cost accuracy and spikes save nothing; spiking: they get levels too, as rewrite needs for --mode "
        "serial and integer, and for --per-step-outputs",
    )  # fmt: skip
    sub.add_argument(
        "-o", "--output", metavar="FILE",
        help="file to write; {steps} in its name stands for T (default: MODEL with the ending .quantised.onnx, of "
        "several T .quantised-T.onnx)",
    )  # fmt: skip
    sub.add_argument(
        "--method", choices=METHODS, default=METHODS[0],
        help="how to calibrate. refit (default): change weights, biases, activations; others: change only activations",
    )  # fmt: skip
    sub.add_argument(
        "--mixed", action="store_true",
        help="give each activation a number of time-steps of its own, from T/2 to 8 T, more where the outputs lose "
        "more; with no more time-steps times multiply-accumulates than T everywhere. Pass the same --coding to rewrite",
    )  # fmt: skip
    sub.add_argument(
        "--sensitivity", action="store_true",
        help="measure for each activation what the outputs lose where it alone is quantised (a few runs for each)",
    )  # fmt: skip
    sub.add_argument(
        "--cache",
        metavar="FILE",
        help="keep the calibration in this file, also that of an interrupted run; continue or reuse it if nothing has "
        "changed. {steps} in its name stands for T",
    )
    sub.add_argument("--force", action="store_true", help="allow the output to replace MODEL")


def _verify(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("ann", metavar="ANN", help="the ONNX file that was rewritten")
    sub.add_argument("snn", metavar="SNN", help="the ONNX file that rewrite wrote")
    sub.add_argument("--data", metavar="FILE", help=_DATA_OR_RANDOM)
    _add_batch_axis(sub)
    sub.add_argument("--atol", type=_tolerance, metavar="A", help="fail if an output differs by more than this")
    _add_memory(sub)
    sub.add_argument(
        "--provider",
        choices=PROVIDERS,
        default="cpu",
        help="where to run the networks; on CUDA without TF32 (default: cpu)",
    )


def _evaluate(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "model", metavar="MODEL", help="ONNX file with an ANN, or without --steps also with a spiking network"
    )
    sub.add_argument("--data", metavar="FILE", required=True, help=_DATA)
    _add_batch_axis(sub)
    _add_engine(sub)
    sub.add_argument(
        "--steps", type=_steps, nargs="+", default=[], metavar="T",
        help="also rewrite the ANN at each of these numbers of time-steps, and evaluate that (steps are not causal: "
        "each T needs a run of its own)",
    )  # fmt: skip
    sub.add_argument(
        "--mode", choices=MODES,
        help="mode of the spiking networks. folded (default) computes what parallel does, apart from rounding, at the "
        "price of one step; serial steps through time; integer and integer-parallel compute on bytes",
    )  # fmt: skip
    _add_rewriting(sub)
    sub.add_argument(
        "-o", "--output", metavar="PLACE",
        help="draw accuracy against time-steps in this .png, .svg or .pdf file, or as curve.png in this directory",
    )  # fmt: skip


def _stats(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("model", metavar="SNN", help="an ONNX file that rewrite wrote, in any mode but serial")
    sub.add_argument("--data", metavar="FILE", help=_DATA_OR_RANDOM)
    _add_batch_axis(sub)
    sub.add_argument(
        "--energy-mac", type=_energy, default=ENERGY_MAC, metavar="PJ",
        help=f"energy of a multiply-accumulate, in pJ (default: {ENERGY_MAC}, 32-bit floats in 45 nm CMOS)",
    )  # fmt: skip
    sub.add_argument(
        "--energy-ac", type=_energy, default=ENERGY_AC, metavar="PJ",
        help=f"energy of an accumulate, in pJ (default: {ENERGY_AC})",
    )  # fmt: skip
    _add_memory(sub)


def _bench(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("model", metavar="MODEL", help="ONNX file with an ANN")
    sub.add_argument(
        "--steps", type=_steps, nargs="+", default=STEPS, metavar="T", help="numbers of time-steps (default: 4 8 16)"
    )
    sub.add_argument(
        "--batch", type=_positive, nargs="+", metavar="B",
        help="batch sizes (default: 1 32, or the size that the model fixes)",
    )  # fmt: skip
    sub.add_argument(
        "--provider", choices=PROVIDERS, default="cpu", help="where to run; on CUDA without TF32 (default: cpu)"
    )
    sub.add_argument("--data", metavar="FILE", help=_DATA_OR_RANDOM)
    _add_batch_axis(sub)
    _add_rewriting(sub)
    sub.add_argument("--repeats", type=_positive, default=REPEATS, metavar="N", help="rounds to measure (default: 20)")
    sub.add_argument(
        "-o", "--output", metavar="FOLDER",
        help="write a report to this folder: also accuracy, firing rates, operations and mismatches, with figures",
    )  # fmt: skip


def _deploy(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("model", metavar="SNN", help="an ONNX file that rewrite wrote, in any mode")
    sub.add_argument("-o", "--output", metavar="FOLDER", required=True, help="a new or empty folder")
    sub.add_argument(
        "--target", choices=TARGETS, required=True,
        help="bundle: model, native library, hashes, and programs in Python and C++; triton: a model repository for "
        "Triton's onnxruntime backend; nir: a serial network in the Neuromorphic Intermediate Representation; c: a "
        "network in mode integer as plain C99",
    )  # fmt: skip
    sub.add_argument("--gpu", action="store_true", help="for triton: run the model on a GPU")
    sub.add_argument(
        "--allow-lossy", action="store_true", help="for nir: write what NIR can express, and print what is lost"
    )


def _doctor(sub: argparse.ArgumentParser) -> None:
    """It has none."""


def _add_batch_axis(sub: argparse.ArgumentParser) -> None:
    """The option of commands that take data."""
    sub.add_argument(
        "--batch-axis", type=_batch_axis, action="append", default=[], metavar="[NAME=]AXIS",
        help="the axis that counts samples in the model's inputs, or in the input or output NAME: a number, or none "
        "(default: 0); repeatable. In the data it is always the first axis",
    )  # fmt: skip


def _add_engine(sub: argparse.ArgumentParser) -> None:
    """The options of commands that run over many samples."""
    sub.add_argument(
        "--engine", choices=ENGINES,
        help="ray: run the networks in Ray workers, each on its own part of the data (default: in this process)",
    )  # fmt: skip
    sub.add_argument(
        "--address", metavar="HOST:PORT", help="head of a running Ray cluster (default: start Ray on this machine)"
    )
    sub.add_argument("--workers", type=_positive, metavar="N", help="Ray workers at most (default: one for each CPU)")


def _add_rewriting(sub: argparse.ArgumentParser) -> None:
    """The options of commands that rewrite at several T."""
    _add_coding(sub)
    _add_neurons(sub)
    sub.add_argument("--calibration", metavar="FILE", help="data to calibrate on, anew at each T (see rewrite --help)")
    sub.add_argument("--method", choices=METHODS, help="how to calibrate (default: refit)")
    sub.add_argument(
        "--signed", action="store_true", help="carry values below zero with an offset (see rewrite --help)"
    )
    _add_integers(sub)


def _add_coding(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--coding", choices=CODINGS,
        help="how T time-steps carry a spike count. rate: as the number of steps that fire; radix: as binary digits, "
        "so 8 steps carry 255 levels; auto (default): radix for activations with more than 16 levels if nothing sets "
        "the number of steps, else rate",
    )  # fmt: skip


def _add_neurons(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--neurons", choices=NEURONS,
        help="where to put neurons. activations: in place of activations (default); products: also in front of "
        "convolutions, matrix products and gates that would otherwise read no spikes; calibration gives these neurons "
        "their levels",
    )  # fmt: skip


def _add_integers(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--weights", choices=WEIGHTS,
        help="round weights to integers, so that modes parallel and folded give the same bits, in any batch and with "
        "any number of threads (not for mode serial). Each weight becomes the nearest integer or, with --calibration, "
        "the one that loses least on those data. Except in modes integer and integer-parallel, the integers lie in "
        "float tensors",
    )  # fmt: skip
    sub.add_argument(
        "--input-bits", type=int, choices=INPUT_BITS,
        help="with --weights: also round the network's inputs, to 256 values; without this option the layers that read "
        "them compute on floats",
    )  # fmt: skip
    sub.add_argument(
        "--input-range", type=float, nargs=2, metavar=("LOW", "HIGH"),
        help="with --input-bits: lowest and highest value of the inputs (default: those of the --calibration data)",
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
        help="memory for activations, which sets how many samples run together, as far as shapes are known (default: "
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
        super().__init__(nargs=0, default=argparse.SUPPRESS, help="print the version", **arguments)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(f"pconv-onnx {own_version()}")
        parser.exit(DONE)


class _Completion(argparse.Action):
    def __init__(self, **arguments: Any) -> None:
        told = "print a script that completes commands and options in this shell"
        super().__init__(default=argparse.SUPPRESS, help=told, metavar="SHELL", **arguments)

    def __call__(self, parser: argparse.ArgumentParser, _: argparse.Namespace, shell: Any, *__: Any) -> None:
        try:
            import shtab
        except ImportError as error:
            raise PconvError(f"shtab cannot be imported: {error}", "pip install 'pconv-onnx[completion]'") from error
        print(shtab.complete(parser, shell))
        parser.exit(DONE)


# One row a command, in the order in which help lists them: its arguments, and what it does.
_COMMANDS: dict[
    str, tuple[Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], commands.Answer], str]
] = {
    "inspect": (_inspect, commands.inspect, "list the activations of a model, and what rewrite would do with each"),
    "rewrite": (_rewrite, commands.rewrite, "replace quantised activations by parallel spiking neurons"),
    "calibrate": (
        _calibrate,
        commands.calibrate,
        "give ReLUs and other activations levels, from data, without training",
    ),
    "verify": (_verify, commands.verify, "compare a spiking network with its source, layer by layer and end to end"),
    "evaluate": (
        _evaluate,
        commands.evaluate,
        "measure the accuracy or error of a network, and of its spiking form at each T",
    ),
    "stats": (
        _stats,
        commands.stats,
        "count spikes, operations and energy of a spiking network, and compare them with its ANN's",
    ),
    "bench": (
        _bench,
        commands.bench,
        "compare the speed of a network and of its spiking forms, at each number of time-steps and batch size",
    ),
    "deploy": (_deploy, commands.deploy, "write a spiking network into a folder that runs without pconv-onnx"),
    "doctor": (_doctor, commands.doctor, "show versions, providers and the native library, and say what is missing"),
}
