"""The sentences and tables of each kind of result, made from its JSON document."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pconv_onnx.answers import energies, spike_driven, tables
from pconv_onnx.answers.printing import Part, Table
from pconv_onnx.basics.choices import CORRECTING, MOST_MIXED_BITS
from pconv_onnx.basics.errors import listed
from pconv_onnx.basics.reasons import of_one_kind

_BAR = 40
# Activations that are named as those that cost the outputs most.
_WORST = 3
_ACCURACIES = {
    "top1": "top-1",
    "top5": "top-5",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R²",
    "token_top1": "token top-1",
    "perplexity": "perplexity",
    "agreement": "agreement",
    "token_agreement": "token agreement",
    "mse": "mse",
    "cosine": "cosine",
    "cosine_05": "cosine 5 %",
}
# What bars are as long as: the first that is defined.
_RULERS = ("top1", "token_top1", "agreement", "token_agreement")
_STYLE = tables.Style(absent="-", space=" ", count=lambda value: f"{value:,.0f}", rate=lambda rate: f"{rate:.4g}")


def plan_lines(summary: dict[str, Any]) -> Iterator[Part]:
    """The answer of `inspect`, and `rewrite` where nothing is written."""
    if summary["activations"]:
        cells = tables.activations(summary["activations"], _STYLE)
        header = ["activation", "encoding", "levels", "steps", "status", "operators"]
        yield Table([header, *tables.of(cells, "name", *header[1:])])
        yield from (f"\n{line}" for line in _by_reason(summary["activations"]))
        counts = "{converted} convertible, {needs_calibration} without levels, {refused} refused"
        yield counts.format(**summary["counts"])
        yield from _analog_lines(summary)
    else:
        yield "no activations found"
    once = ", once calibrated" if summary["spike_driven"].get("once_calibrated") else ""
    yield from _spike_lines(summary, f"expected{once}: ")


def _spike_lines(summary: dict[str, Any], when: str = "") -> Iterator[str]:
    """Which share of the multiply-accumulates reads spikes, why the others do not, and what helps."""
    part = summary["spike_driven"]
    yield f"{when}{spike_driven.sentence(part, _STYLE)}"
    yield from (f"without spikes: {line}" for line in spike_driven.why_not(part))
    yield from spike_driven.on_means(part)
    # The record of a file does not have the option.
    yield from spike_driven.remedy(part, summary["neurons"]) if "neurons" in summary else ()


def _by_reason(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Lines about activations; those with the same text share a line."""
    names: dict[str, list[str]] = {}
    for row in rows:
        if row["reason"]:
            names.setdefault(row["reason"], []).append(row["name"])
    for reason, those in names.items():
        yield f"{_first_of(those)}: {reason}"


def _first_of(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _analog_lines(summary: dict[str, Any]) -> Iterator[str]:
    names = summary["hybrid"]
    if names:
        stay = "1 activation stays" if len(names) == 1 else f"{len(names)} activations stay"
        yield f"hybrid: {stay} analog between spiking layers"
    if summary["bypassed"]:
        yield f"an analog current bypasses the neuron of {_first_of(summary['bypassed'])}"


def calibration_lines(summary: dict[str, Any]) -> Iterator[Part]:
    """The answer of `calibrate`."""
    *lines, last = _calibrated_lines(summary)
    yield from lines
    yield from _spike_lines(summary, "rewritten: ")
    yield last


def calibrations_lines(summary: dict[str, Any]) -> Iterator[Part]:
    """The answer of `calibrate` for several numbers of time-steps."""
    for index, one in enumerate(summary["calibrations"]):
        yield from ("",) if index else ()
        yield from calibration_lines(one)


def _calibrated_lines(summary: dict[str, Any]) -> Iterator[Part]:
    rows = [row for row in summary["activations"] if row["status"] == "calibrated"]
    alone = any(row["sensitivity"] is not None for row in rows)
    columns = ["channels", "silent", "threshold", "squared error", *["sensitivity"][: int(alone)]]
    table = [["activation", *["T"][: summary["mixed"]], *columns]]
    for row in rows:
        threshold = " … ".join(f"{value:.3g}" for value in row["threshold"] or ()) or "-"
        channels, silent = str(row["channels"]), str(row["silent_channels"])
        errors = [row["relative_error"], row["sensitivity"]][: 1 + alone]
        steps = [str(row["steps"])][: summary["mixed"]]
        table.append([row["name"], *steps, channels, silent, threshold, *map(_STYLE.percent, errors)])
    yield Table(table)
    yield from (f"stays analog: {line}" for line in _by_reason(rows))
    left = [row for row in summary["activations"] if row["status"] != "calibrated"]
    yield from (f"not calibrated: {line}" for line in _by_reason(left))
    if summary["random"]:
        yield "the data were random: the network is good for measuring time, and its accuracy means nothing"
    for name in summary["silent_activations"]:
        yield f"silent: no channel of {name} fires on these data, so that it gives a constant"
    for name in summary["uncorrected_layers"]:
        yield f"too wide to be corrected: {name}"
    if summary["scale_errors"]:
        told, rule = _lost(summary["scale_errors"]), summary["scale_rule"]
        yield f"scales by rule '{rule}', which disturbs the outputs least (share of their variance, {told})"
    if errors := summary["tuning_errors"]:
        better = min(errors, key=lambda name: math.inf if errors[name] is None else errors[name])
        # Of outputs with classes it is no share.
        by_classes = (summary["outcome"] or {}).get("divergence") is not None
        told = _lost(errors, "{:.3g}".format) if by_classes else _lost(errors)
        what = "divergence of classes" if by_classes else "share of their variance"
        yield f"kept '{better}', which disturbs the outputs least ({what}, {told})"
    if summary["outcome"] is not None:
        yield from _outcome_lines(summary, rows)
    corrected = f", corrected layers: {summary['corrected_layers']}" if summary["method"] in CORRECTING else ""
    kept = ", found by an earlier run (`cache=`)" if summary["from_cache"] else ""
    where = _place(summary.get("output"))
    number = f"T = {summary['steps']}{' in the mean' if summary['mixed'] else ''}"
    yield f"{where}{number}, method {summary['method']}, {summary['samples']} samples{corrected}{kept}"


def _lost(errors: Mapping[str, float | None], told: Callable[[float], str] = _STYLE.percent) -> str:
    """Each with its name; None is infinite."""
    return ", ".join(f"{name}: {'no end' if error is None else told(error)}" for name, error in errors.items())


def _outcome_lines(summary: dict[str, Any], rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """How calibrating changed the outputs, which activations alone would change them most, and what helps."""
    outcome = summary["outcome"]
    agreement, error, cosine = (outcome[name] for name in ("agreement", "output_error", "cosine"))
    told = [
        "" if agreement is None else f"{_STYLE.percent(agreement)} of the answers are the source's",
        "" if error is None else f"squared error {_STYLE.percent(error)} of the outputs' variance",
        "" if cosine is None else f"cosine {cosine:.4f}",
    ]
    where = "held out" if outcome["held_out"] else "that it was calibrated on, since there are too few to hold some out"
    compared = ", ".join(filter(None, told)) or "the outputs cannot be compared"
    yield f"end to end: {compared} ({outcome['samples']} samples {where})"
    alone = sorted((row for row in rows if row["sensitivity"] is not None), key=lambda row: -row["sensitivity"])
    if alone:
        worst = ", ".join(f"{row['name']} ({_STYLE.percent(row['sensitivity'])})" for row in alone[:_WORST])
        yield f"most sensitive, each quantised alone and no layer corrected (share of the outputs' variance): {worst}"
    if outcome["poor"]:
        largest = max(row["relative_error"] for row in rows)
        remedies = [
            "more time-steps (`steps=`)",
            *(["`coding='radix'`"] if summary["coding"] == "rate" else []),
            "more samples",
        ]
        # Of one time-step nothing can be taken away, and with one activation there is none to take it from.
        more = summary["coding"] == "rate" or summary["steps"] < MOST_MIXED_BITS
        even = not summary["mixed"] and summary["steps"] > 1 and len(rows) > 1 and more
        further = [
            *(["with `sensitivity=True` to find the activations that cost most"] if not alone else []),
            *(["with `mixed=True` to give more time-steps where they help most"] if even else []),
            *(["with `method='tune'`, which takes longer and needs PyTorch"] if summary["method"] == "refit" else []),
        ]
        looks = f"; calibrate {', or '.join(further)}" if further else ""
        yield (
            f"warning: the outputs are poor, and the largest error of one activation is {_STYLE.percent(largest)} of "
            f"its own output; try {', '.join(remedies[:-1])} or {remedies[-1]}{looks}"
        )


def rewriting_lines(summary: dict[str, Any]) -> Iterator[Part]:
    """The answer of `rewrite`."""
    from pconv_onnx.plan.modes import MODES

    if summary["calibration"] is not None:
        yield from _calibrated_lines(summary["calibration"])
    # A network that is in memory alone has no place.
    output = summary.get("output", "")
    if output is None:
        yield from plan_lines(summary)
    else:
        yield "{converted} converted, {needs_calibration} without levels, {refused} refused".format(**summary["counts"])
        yield from (f"not converted: {line}" for line in _by_reason(summary["activations"]))
        yield from _analog_lines(summary)
        yield from _spike_lines(summary)
    if summary["integer"] is not None:
        yield from _integer_lines(summary["integer"])
        for group in of_one_kind((summary["integer"]["neurons_on_floats"] or {}).items()):
            yield f"integers in floats: {_first_of([name for name, _ in group])}: {group[0][1]}"
    converted = [row for row in summary["activations"] if row["steps"]]
    dense = sum(row["signed"] and not row["zero"] for row in converted)
    if dense:
        yield (
            f"{dense} signed with an offset: where silent their neurons emit their lowest value instead of zero, so "
            "their trains are dense and save no operations"
        )
    if MODES[summary["mode"]].one_step:
        yield (
            "serial: outputs depend on when spikes arrive, so they are not the source's; evaluate measures the accuracy"
        )
    # That of uneven thresholds is not known; they have the source's levels.
    lossy = {
        tuple(row[key] for key in ("levels", "steps", "zero", "rms_error")) for row in converted if row["rms_error"]
    }
    for levels, steps, zero, error in sorted(lossy):
        in_mean = "zero in the mean and " if steps < (levels / 2 if zero else levels) else ""
        takes = f"what the source's L = {levels}, signed, take" if zero else f"the source's L = {levels}"
        yield (
            f"T = {steps} is not {takes}: not lossless; for inputs spread evenly a neuron's "
            f"error is {in_mean}{error:.2g} θ as root mean square"
        )
    if output is not None:
        if summary["per_step_outputs"]:
            yield f"added outputs: {listed(summary['per_step_outputs'])}"
        steps = _same_steps(converted) or "different for each neuron"
        yield f"{_place(output)}mode {summary['mode']}, T = {steps}, {summary['precision']}"


def _place(output: str | None) -> str:
    """The beginning of a line about an output file."""
    return f"{output}: " if output else ""


def _same_steps(rows: Sequence[dict[str, Any]]) -> str:
    """The time-steps and the coding of all neurons; empty if they differ."""
    # Where some are signed and others are not, trains are as long all the same.
    told = [{tables.steps(row | own, _STYLE) for row in rows} for own in ({}, {"zero": 0})]
    return next((steps.pop() for steps in told if len(steps) == 1), "")


def verification_lines(summary: dict[str, Any]) -> Iterator[str]:
    """The answer of `verify`."""
    yield _samples_line(summary)
    yield from _compared_lines(summary)
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
    if summary["integer"] is not None:
        yield from _integer_lines(summary["integer"])
        total, differing = summary["integer"]["elements"], summary["integer"]["differing"]
        yield f"output values with other bits than the integer form's, run as an ANN: {differing:,} of {total:,}"
        if summary["integer"]["counts"]:
            total, differing = summary["integer"]["counts"], summary["integer"]["differing_counts"]
            yield f"spike counts in layers of integers that differ from that form's: {differing:,} of {total:,}"
    if summary["outputs_differ"] and summary["verdict"] != "different" and summary["integer"] is None:
        calibrated = any("calibration gave" in told for told in summary["not_compared"])
        yield (
            "outputs differ by what calibration rounds to levels; compare with the network that calibrate writes"
            if calibrated
            else "outputs differ by more than rounding: a spike that rounding flips changes the input of later layers"
        )
    if summary["accuracy"]:
        yield "top-1 accuracy: source {ann:.2%}, spiking {snn:.2%}".format(**summary["accuracy"])
    if summary["target_error"]:
        ann, snn = (_target_error(summary["target_error"][name]) for name in ("ann", "snn"))
        yield f"error against targets: source {ann}, spiking {snn}"
    yield _verdict_line(summary)


def _integer_lines(summary: dict[str, Any]) -> Iterator[str]:
    """What is proved of a network with integer weights, and which operators compute on floats."""
    inputs = f"{summary['input_bits']}-bit inputs" if summary["input_bits"] else "inputs of floats"
    largest, islands = summary["largest_sum"], summary["islands"]
    told = "" if largest is None else f" (the largest may take {_STYLE.percent(largest)} of what floats hold exactly)"
    line = f"integer weights: {summary['weights']}, {inputs}"
    if summary["exact"]:
        yield f"{line}; all sums are exact{told}, and outputs have the same bits in any mode, batch and order"
    elif summary["exact"] is not None:
        yield f"{line}; sums of integers are exact{told}, what is computed on floats is not"
    else:
        yield line
    for group in of_one_kind(islands.items()):
        yield f"on floats: {_first_of([name for name, _ in group])}: {group[0][1]}"


def _target_error(values: dict[str, float | None]) -> str:
    rmse, mae = (_STYLE.number(values[name], ".4g") for name in ("rmse", "mae"))
    r2 = "" if values["r2"] is None else f", R² {values['r2']:.4f}"
    return f"RMSE {rmse} (MAE {mae}{r2})"


def _compared_lines(summary: dict[str, Any]) -> Iterator[str]:
    """What `verify` found for neurons, and for the segments between them."""
    layers = [layer for layer in summary["layers"] if layer["count_mismatch_rate"] is not None]
    wrong = [layer for layer in layers if layer["count_mismatch_rate"]]
    calibrated = sum(layer["calibrated"] for layer in layers)
    if layers:
        made = "what calibration made of it" if summary["integer"] is None else "its integer form"
        besides = f" ({calibrated} of them against {made})" if calibrated else ""
        yield (
            f"neurons with the source's spike count on every element, given the same input: "
            f"{len(layers) - len(wrong)} of {len(layers)}{besides}"
        )
    for layer in wrong:
        yield f"  {layer['name']}: {100 * layer['count_mismatch_rate']:.3g} % of the elements differ"
    segments = [segment for segment in summary["segments"] if segment["bounded"] and segment["elements"]]
    beyond = [segment for segment in segments if segment["beyond"]]
    if segments:
        share = max((segment["of_bound"] for segment in segments if not segment["beyond"]), default=0)
        yield (
            f"segments between neurons with the source's values up to rounding, given the same spikes: "
            f"{len(segments) - len(beyond)} of {len(segments)} (largest difference: {100 * share:.2g} % of its bound)"
        )
    for segment in beyond:
        largest = _difference(segment)
        yield (
            f"  to {segment['kind']} '{segment['name']}': {segment['beyond']} of {segment['elements']} values are "
            f"beyond their bound; the largest difference is {largest}"
        )
    yield from (f"not compared: {told}" for told in summary["not_compared"])


def _verdict_line(summary: dict[str, Any]) -> str:
    if summary["verdict"] == "different":
        first, *others = summary["differences"]
        return f"different: {first}{f' (and {len(others)} more)' if others else ''}"
    if summary["verdict"] == "equal":
        return (
            "equal: every neuron gives the source's spike counts, and everything between neurons its values up to "
            "rounding"
        )
    within = "" if summary["atol"] is None else f", and outputs are within {summary['atol']:g}"
    return f"measured: no difference was found, but not all was compared{within}"


def _samples_line(summary: dict[str, Any]) -> str:
    drawn = " (seeded random inputs; pass `data=` for real ones)" if summary["random_inputs"] else ""
    return f"samples: {summary['samples']}{drawn}"


def _difference(outputs: dict[str, Any]) -> str:
    difference = outputs["max_abs_diff"]
    return "without bound (a NaN, an infinity or another shape)" if difference is None else f"{difference:.3g}"


def evaluation_lines(summary: dict[str, Any]) -> Iterator[Part]:
    """The answer of `evaluate`."""
    ann = [] if summary["ann"] is None else [{"steps": "ANN", "coding": None, **summary["ann"]}]
    rows = [*ann, *summary["rows"]]
    columns = tables.accuracy_columns(summary)
    ruler = next((column for column in _RULERS if column in columns), "")
    table = [["T", *(_ACCURACIES[column] for column in columns), ""]]
    for row, cells in zip(rows, tables.accuracies(rows, _STYLE), strict=True):
        if row["top1"] is not None:
            cells["top1"] = f"{cells['top1'].removesuffix(' %')} ± {cells['error']}"
        bar = "#" * round(_BAR * (row.get(ruler) or 0))
        table.append([*(cells[key] for key in ("steps", *columns)), bar])
    yield f"samples: {summary['samples']}{_judged_by(summary)}"
    yield Table(table)
    yield from tables.not_finite(summary)
    if summary.get("output"):
        yield f"{summary['output']}: the curve"


def _judged_by(summary: dict[str, Any]) -> str:
    if summary["tokens"]:
        return f", with labels of {summary['labelled_tokens']} tokens of '{summary['tokens']}'"
    if summary["targets"]:
        return f", with targets of '{summary['targets']}'"
    return "" if summary["labels"] else ", without labels"


def stats_lines(summary: dict[str, Any]) -> Iterator[Part]:
    """The answer of `stats`."""
    yield _samples_line(summary)
    yield f"mode {summary['mode']}, T = {_same_steps(summary['layers']) or 'different for each layer'}\n"
    totals, energy = summary["totals"], summary["energy"]
    header = ["layer", "T", "neurons", "channels", "silent", "saturated", "firing rate"]
    cells = tables.firing(summary["layers"], _STYLE)
    rows = tables.of(cells, "name", "steps", "neurons", "channels", "silent", "saturated", "rate")
    yield Table([header, *rows, ["all", "", "", "", "", "", _STYLE.percent(totals["firing_rate"])]])
    header = ["operator", "type", "input", "MACs of the ANN", "synaptic operations", "MACs that remain"]
    cells = tables.operations(summary["operators"], _STYLE)
    rows = tables.of(cells, "name", "type", "input", "macs", "accumulates", "remaining")
    sums = (_STYLE.operations(totals[key]) for key in ("ann_macs", "synaptic_operations", "multiply_accumulates"))
    yield ""
    yield Table([header, *rows, ["all", "", "", *sums]])
    yield ""
    yield from _spike_lines(summary)
    kind = spike_driven.kind_of_network(summary["spike_driven"])
    network = f"{kind} network"
    yield f"energy of a sample: ANN {energy['ann_nj']:,.3f} nJ, {network} {energy['snn_nj']:,.3f} nJ"
    if energy["ratio"] is not None:
        more = "costs more than its ANN" if energy["ratio"] > 1 else "costs no more than its ANN"
        yield f"the {network} {more}: {energy['ratio']:.3g} times the energy"
    yield from energies.in_integers(summary["energy_int8"], kind, lambda value: f"{value:,.3f} nJ")
    for row in summary["operators"]:
        if row["macs"] is None:
            yield f"not counted: {row['name']} ({row['op_type']})"
    for assumption in energy["assumptions"]:
        yield f"assumed: {assumption}"


def benchmark_lines(summary: dict[str, Any]) -> Iterator[Part]:
    """The answer of `bench`."""
    machine = summary["machine"]
    drawn = "seeded random inputs" if summary["random_inputs"] else "the data given"
    yield f"{summary['model']} on {machine['cpu']}, {summary['threads'] or '?'} threads, {drawn}"
    header = ["batch", "mode", "T", "median", "10 % … 90 %", "images/s", "× ANN", "peak memory"]
    rows = [
        [
            *(row[key] for key in ("batch", "mode", "steps")),
            f"{row['median']} ms",
            f"{row['spread']} ms",
            *(row[key] for key in ("rate", "ratio")),
            row["memory"] if row["memory"] == _STYLE.absent else f"{row['memory']} MiB",
        ]
        for row in tables.times(summary["rows"], _STYLE)
    ]
    if rows:
        yield Table([header, *rows])
    failed: dict[str, list[str]] = {}
    for row in summary["rows"]:
        if row["error"]:
            at = f" at T = {tables.steps(row, _STYLE)}" if row["steps"] else ""
            failed.setdefault(row["error"], []).append(f"{row['mode']}{at}, batch {row['batch']}")
    for error, those in failed.items():
        yield f"not measured: {_first_of(those)}: {error}"
    if summary["spike_driven"] is not None:
        yield from _spike_lines(summary)
    if machine["quiet"] is False:
        yield f"the machine was not quiet: other processes took {_STYLE.percent(machine['other_work'])} of the CPU time"
    if not summary["complete"]:
        yield f"incomplete: {summary['stopped']}"
    if summary.get("output"):
        yield f"{summary['output']}: the report"


def deployment_lines(summary: dict[str, Any]) -> Iterator[str]:
    """The answer of `deploy`."""
    yield from summary["notes"]
    yield from (f"lost: {loss}" for loss in summary["losses"])
    kernels = f", with kernels for {', '.join(summary['providers'])}" if summary["providers"] else ""
    yield f"{summary['output']}: {summary['target']} of {len(summary['files'])} files{kernels}"


def nir_lines(summary: dict[str, Any]) -> Iterator[str]:
    """The answer of `rewrite` of a NIR graph."""
    yield f"{summary['counts']['converted']} layers of neurons"
    yield from (f"lost: {loss}" for loss in summary["losses"])
    if summary.get("output"):
        yield f"{summary['output']}: mode {summary['mode']}, T = {summary['steps']}"


def installation_lines(summary: dict[str, Any]) -> Iterator[str]:
    """The answer of `doctor`."""
    library = summary["library"]
    for name in ("pconv_onnx", "python", "onnx", "numpy", "onnxruntime"):
        yield f"{name:<12} {summary[name] or 'missing'}"
    yield f"{'providers':<12} {', '.join(summary['providers']) or 'none'}"
    yield f"{'library':<12} {library['path'] or 'missing'}"
    built_in = "built in" if library["cuda"] else "no"
    yield f"{'kernels':<12} CPU: {'works' if library['cpu'] else 'no'}, CUDA: {built_in}"
    for name, extra in summary["extras"].items():
        missing = f", missing; pip install 'pconv-onnx[{name}]'" if extra["missing"] else ""
        yield f"{f'[{name}]':<12} to {extra['for']}{missing}"
    for problem in summary["problems"]:
        yield f"problem: {problem}"
    if not summary["problems"]:
        yield "no problems found"
