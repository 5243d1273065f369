"""The command line: one subcommand a function of the same name."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# Argument parsing imports nothing heavy, so that --help and faults in the arguments answer at once.
from pconv_onnx.errors import PconvError

DONE, ANSWER_IS_NO = 0, 1
_MODES = ("parallel", "folded")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status: 0 done, 1 the answer is no or a user error, 2 wrong arguments."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except PconvError as error:
        if options.json:
            print(json.dumps({"error": {"message": error.message, "hint": error.hint}}))
        else:
            print(f"pconv-onnx: {error}", file=sys.stderr)
        return ANSWER_IS_NO
    except KeyboardInterrupt:
        print("pconv-onnx: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of a pipe went away (`| head`); what it has is all it wants.
        sys.stderr.close()
        return ANSWER_IS_NO


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pconv-onnx",
        description="Rewrite pretrained ANNs in ONNX as parallel spiking networks in ONNX.",
        epilog="exit status: 0 done; 1 the answer is no, or an error told in one line; 2 wrong arguments",
    )
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, command: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        sub.add_argument("--json", action="store_true", help="print one JSON document on stdout and nothing else there")
        sub.set_defaults(command=command)
        return sub

    sub = add("inspect", _inspect, "list a model's activations and what rewrite would do with each")
    sub.add_argument("model", metavar="MODEL", help="ONNX file")

    sub = add("rewrite", _rewrite, "replace quantised activations by parallel spiking neurons")
    sub.add_argument("model", metavar="MODEL", help="ONNX file")
    sub.add_argument("-o", "--output", metavar="FILE", help="where to write (default: MODEL with .snn.onnx as its end)")
    sub.add_argument(
        "--steps", type=_steps, metavar="T", help="time-steps, 1 to 256 (default: each activation's levels, lossless)"
    )
    sub.add_argument(
        "--mode", choices=_MODES, default="parallel",
        help="parallel: spike trains flow (default); folded: their temporal means do, in one step",
    )  # fmt: skip
    sub.add_argument("--include", action="append", default=[], metavar="PATTERN", help="convert only these activations")
    sub.add_argument("--exclude", action="append", default=[], metavar="PATTERN", help="leave these activations")
    sub.add_argument("--strict", action="store_true", help="fail where any activation is not converted")
    sub.add_argument("--dry-run", action="store_true", help="only say what would be done")
    sub.add_argument("--force", action="store_true", help="allow the output to be the input")

    sub = add("verify", _verify, "compare a spiking network with its source, layer by layer and end to end")
    sub.add_argument("ann", metavar="ANN", help="the ONNX file that was rewritten")
    sub.add_argument("snn", metavar="SNN", help="the ONNX file that rewrite wrote")
    sub.add_argument(
        "--data", metavar="FILE",
        help=".npz with arrays named as the model's inputs, and labels if there are any; or a directory of such files "
        "(default: seeded random inputs)",
    )  # fmt: skip
    sub.add_argument("--atol", type=float, metavar="A", help="fail where an output differs by more than this")

    add("doctor", _doctor, "show versions, providers and the native library, and what is missing")
    return parser


def _steps(text: str) -> int:
    steps = int(text)
    if not 1 <= steps <= 256:
        raise argparse.ArgumentTypeError(f"{text} time-steps are not possible; choose 1 to 256")
    return steps


class _Version(argparse.Action):
    def __init__(self, **arguments: Any) -> None:
        super().__init__(nargs=0, default=argparse.SUPPRESS, help="show the version", **arguments)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        print(f"pconv-onnx {version('pconv-onnx')}")
        parser.exit(DONE)


def _inspect(options: argparse.Namespace) -> int:
    from pconv_onnx.rewriting import inspect

    summary = inspect(options.model)
    if options.json:
        print(json.dumps(summary))
    else:
        _print_activations(summary)
        _print_counts(summary)
    return DONE


def _rewrite(options: argparse.Namespace) -> int:
    from pconv_onnx.rewriting import rewrite

    output = options.output or Path(options.model).with_suffix(".snn.onnx")
    result = rewrite(
        options.model,
        output,
        steps=options.steps,
        mode=options.mode,
        include=options.include,
        exclude=options.exclude,
        strict=options.strict,
        dry_run=options.dry_run,
        force=options.force,
    )
    summary = result.summary()
    if options.json:
        print(json.dumps({**summary, "output": None if options.dry_run else str(output)}))
        return DONE
    if options.dry_run:
        _print_activations(summary)
    _print_counts(summary)
    for row in summary["activations"]:
        if row["status"] != "converted" and not options.dry_run:
            print(f"not converted: {row['name']}: {row['reason']}")
    changed = sorted({(row["levels"], row["steps"]) for row in summary["activations"] if row["steps"]})
    for levels, steps in changed:
        if steps != levels:
            print(f"T = {steps} is not the source's L = {levels}: not lossless, outputs will differ from the source's")
    if not options.dry_run:
        print(f"{output}: mode {summary['mode']}, T = {summary['steps'] or 'different for each neuron'}")
    return DONE


def _verify(options: argparse.Namespace) -> int:
    from pconv_onnx.verify import verify

    result = verify(options.ann, options.snn, options.data, atol=options.atol)
    summary = result.summary()
    if options.json:
        print(json.dumps(summary))
    else:
        _print_verification(summary)
    return DONE if result.passed else ANSWER_IS_NO


def _doctor(options: argparse.Namespace) -> int:
    from pconv_onnx.doctor import doctor

    summary = doctor()
    if options.json:
        print(json.dumps(summary))
    else:
        library = summary["library"]
        for name in ("pconv_onnx", "python", "onnx", "numpy", "onnxruntime"):
            print(f"{name:<12} {summary[name] or 'missing'}")
        print(f"{'providers':<12} {', '.join(summary['providers']) or 'none'}")
        print(f"{'library':<12} {library['path'] or 'missing'}")
        print(f"{'kernels':<12} CPU: {'works' if library['cpu'] else 'no'}, CUDA: {'works' if library['cuda'] else 'no'}")
        for problem in summary["problems"]:
            print(f"problem: {problem}")
        if not summary["problems"]:
            print("no problems found")
    return ANSWER_IS_NO if summary["problems"] else DONE


def _print_activations(summary: dict[str, Any]) -> None:
    header = ["activation", "encoding", "levels", "steps", "status", "operators"]
    rows = [
        [row["name"], row["encoding"], row["levels"] or "-", row["steps"] or "-", row["status"], " ".join(row["op_types"])]
        for row in summary["activations"]
    ]
    table = [header, *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    reasons: dict[str, list[str]] = {}
    for entry in summary["activations"]:
        if entry["reason"]:
            reasons.setdefault(entry["reason"], []).append(entry["name"])
    for reason, names in reasons.items():
        print(f"\n{names[0] if len(names) == 1 else f'{names[0]} and {len(names) - 1} more'}: {reason}")


def _print_counts(summary: dict[str, Any]) -> None:
    counts = summary["counts"]
    print(
        f"{counts['converted']} convertible, {counts['needs_calibration']} without levels, {counts['refused']} refused"
        if summary["activations"]
        else "no activations found"
    )


def _print_verification(summary: dict[str, Any]) -> None:
    layers = summary["layers"]
    wrong = [layer for layer in layers if layer["count_mismatch_rate"]]
    exact = sum(layer["exact"] for layer in layers)
    drawn = " (seeded random inputs; pass --data for real ones)" if summary["random_inputs"] else ""
    print(f"samples: {summary['samples']}{drawn}")
    print(f"layers with the source's spike count on every element, given the same input: {exact - len(wrong)} of {exact}")
    for layer in wrong:
        print(f"  {layer['name']}: {layer['count_mismatch_rate']:.3g} of the elements differ")
    if exact < len(layers):
        print(f"layers with T other than the source's levels, so with nothing to be equal to: {len(layers) - exact}")
    for title, values in (
        ("outputs, as onnxruntime runs them", summary),
        ("outputs, graph optimisations disabled", summary["unoptimised"]),
        ("for comparison, the source against itself with and without them", summary["source_against_itself"]),
    ):
        agreement = values["top1_agreement"]
        top1 = "" if agreement is None else f", top-1 agreement {100 * agreement:.2f} %"
        print(f"{title}: largest difference {values['max_abs_diff']:.3g}{top1}")
    if summary["accuracy"]:
        print("top-1 accuracy: source {ann:.2%}, spiking {snn:.2%}".format(**summary["accuracy"]))
    print("passed" if summary["passed"] else "FAILED")


if __name__ == "__main__":
    sys.exit(main())
