"""The sections of a report, as data: their text, and each figure with its description and its table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pconv_onnx.answers import energies, spike_driven, tables
from pconv_onnx.plan.modes import FOLDED, PARALLEL, SERIAL
from pconv_onnx.report import figures

# Names of all figures that a report may have, in the order in which they come.
FIGURES = ("speed", "accuracy", "firing-rates", "raster", "operations", "mismatches")

_ACCURACIES = {
    "top1": "top-1 ± standard error",
    "top5": "top-5",
    "rmse": "root mean square error",
    "mae": "mean absolute error",
    "r2": "R²",
    "token_top1": "top-1 of tokens",
    "perplexity": "perplexity",
    "agreement": "agreement with the ANN",
    "token_agreement": "agreement with the ANN on tokens",
    "mse": "mean squared difference",
    "cosine": "cosine with the ANN, median",
    "cosine_05": "cosine, 5 % quantile",
}
_STYLE = tables.Style(
    absent="–",
    space="\N{NO-BREAK SPACE}",
    count=figures.readable,
    rate=lambda rate: f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}",
)


@dataclass(frozen=True)
class Table:
    """Cells under a caption; the first cell of a row is what the row is about."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Figure:
    """A figure to be drawn.

    Attributes:
        name: of its files, and of the element in the page.
        title: what it is.
        description: what it shows, for those who cannot see it.
        draw: one of the functions of `figures`.
        part: of the document, which it draws.
        table: the same in figures.
    """

    name: str
    title: str
    description: str
    draw: Callable[..., Any]
    part: Any
    table: Table


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it; the last paragraph may end in a list, and tables have no figure."""

    title: str
    text: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    points: Sequence[str] = ()


def warnings(document: dict[str, Any]) -> Iterator[str]:
    """What a reader must know before trusting any figure."""
    machine = document["machine"]
    if not document["complete"]:
        yield f"This report is incomplete: {document['stopped']}."
    if machine["quiet"] is False:
        yield (
            f"The machine was not quiet: other processes took {_STYLE.percent(machine['other_work'])} of the CPU time "
            "while networks were timed. Ratios within a round suffer less from this than times do."
        )
    if spike_driven.kind_of_network(spike_driven.told_of(document)) != "spiking":
        yield from _spike_driven(document)
    if document["random_inputs"]:
        yield "The inputs were seeded random numbers: firing rates and agreement differ on real data."
    if document["calibration"] and document["random_calibration"]:
        yield "The network was calibrated on random numbers, so its accuracy and firing rates mean nothing."


def _spike_driven(document: dict[str, Any]) -> Iterator[str]:
    part = spike_driven.told_of(document)
    if part is not None:
        told = spike_driven.sentence(part, _STYLE)
        yield f"{told[0].upper()}{told[1:]}."


def findings(document: dict[str, Any]) -> Iterator[str]:
    """The main results, in sentences."""
    rows = [row for row in document["rows"] if row["repetitions"]]
    where = {(row["mode"], row["steps"], row["batch"]): row for row in rows}
    batches = sorted({row["batch"] for row in rows})
    steps = sorted({row["steps"] for row in rows if row["mode"] in (PARALLEL.name, FOLDED.name)})
    own = (document.get("plan") or {}).get("steps")
    at = own if own in steps else (steps[-1] if steps else None)
    for batch in batches:
        parallel, serial = (where.get((mode, at, batch)) for mode in (PARALLEL.name, SERIAL.name))
        if parallel is None:
            continue
        cost = parallel["ratio_to_ann"]
        told = f"{_times(cost)} the time of the ANN" if cost is not None else f"{parallel['median_ms']:.3g} ms a run"
        sentence = f"At T = {at} and batch {batch} the parallel network takes {told}"
        if serial is not None:
            gain = serial["median_ms"] / parallel["median_ms"]
            faster = f"{_times(gain)} as fast as" if gain >= 1 else f"slower ({_times(1 / gain)} the time) than"
            sentence += f", and is {faster} stepping through time serially"
        yield f"{sentence}."
    if at is not None and at > 1 and document["rows"][0]["provider"] == "cpu":
        yield (
            f"The parallel network computes {at} rows for each sample, which at large batch costs about {at} ANNs on a "
            "CPU. It gains on serial stepping at small batch and on GPUs."
        )
    folded = [where[key] for key in where if key[0] == FOLDED.name and key[1] == at]
    ratios = [row["ratio_to_ann"] for row in folded if row["ratio_to_ann"] is not None]
    if ratios:
        span = _times(ratios[0]) if len(ratios) == 1 else f"{min(ratios):.2f} to {_times(max(ratios))}"
        yield (
            f"The folded network takes {span} the time of the ANN. It is exact arithmetic on the time axis, not a "
            "spiking simulation."
        )
    yield from _accuracy_finding(document.get("evaluation") or {}, at)
    if spike_driven.kind_of_network(spike_driven.told_of(document)) == "spiking":
        yield from _spike_driven(document)
    # Spikes and mismatches are those of neurons with a T of their own, whether or not that was timed.
    counted_at = f"At T = {own or 'L'}"
    layers = _compared((document.get("verification") or {}).get("layers", ()))
    if layers:
        right = sum(not layer["count_mismatch_rate"] for layer in layers)
        whose = "the source's" if (document.get("plan") or {}).get("integer") is None else "its integer form's"
        yield (
            f"{counted_at}, {right} of {len(layers)} layers have {whose} spike count on every element, given the same "
            "input."
        )
    yield from _integer_finding(document)
    yield from _energy_finding(document, counted_at)


def _energy_finding(document: dict[str, Any], counted_at: str) -> Iterator[str]:
    statistics = document.get("statistics") or {}
    if "energy" in statistics and statistics["energy"]["ratio"] is not None:
        floats, integers = (_STYLE.percent(statistics[key]["ratio"]) for key in ("energy", "energy_int8"))
        besides = f"; in 8-bit weights and counts {integers}" if statistics["energy_int8"]["weights"] else ""
        network = spike_driven.kind_of_network(spike_driven.told_of(document))
        yield (
            f"{counted_at}, on hardware that adds only where there is a spike, the arithmetic of the {network} network "
            f"is estimated to take {floats} of the energy of the ANN's{besides}."
        )


def _integer_finding(document: dict[str, Any]) -> Iterator[str]:
    integers = (document.get("plan") or {}).get("integer")
    if integers is None:
        return
    inputs = f"inputs rounded to {integers['input_bits']} bits" if integers["input_bits"] else "inputs left as floats"
    told = f"The network's weights are rounded to {integers['weights']}, its {inputs}"
    if integers["exact"]:
        yield f"{told}: every sum is exact, and outputs have the same bits in any mode, batch and order of summation."
    elif integers["exact"] is not None:
        yield f"{told}. Some operators compute on floats, on which outputs depend, so that their bits may differ."


def _accuracy_finding(evaluation: dict[str, Any], steps: int | None) -> Iterator[str]:
    row = next((row for row in evaluation.get("rows", ()) if row["steps"] == steps), None)
    if row is None:
        return
    samples = evaluation["samples"]
    if row["top1"] is not None:
        yield (
            f"On {samples} samples its top-1 accuracy at T = {steps} is {_STYLE.percent(row['top1'])}; the ANN's is "
            f"{_STYLE.percent(evaluation['ann']['top1'])}."
        )
    elif row["rmse"] is not None and evaluation["ann"]["rmse"] is not None:
        yield (
            f"On {samples} samples the root mean square error of '{evaluation['targets']}' against its targets at "
            f"T = {steps} is {row['rmse']:.4g}; the ANN's is {evaluation['ann']['rmse']:.4g}."
        )
    elif row["token_top1"] is not None:
        yield (
            f"On {evaluation['labelled_tokens']} tokens its top-1 accuracy at T = {steps} is "
            f"{_STYLE.percent(row['token_top1'])}; the ANN's is {_STYLE.percent(evaluation['ann']['token_top1'])}."
        )
    elif row["agreement"] is not None:
        share = _STYLE.percent(row["agreement"])
        yield f"At T = {steps} it gives the ANN's top-1 answer on {share} of {samples} samples."
    elif row["cosine"] and row["cosine"]["median"] is not None:
        cosine = row["cosine"]
        yield (
            f"At T = {steps} the median cosine similarity of its output '{cosine['output']}' and the ANN's is "
            f"{cosine['median']:.4f}, of {cosine['count']} {cosine['of']}."
        )


def sections(document: dict[str, Any]) -> list[Section]:
    """All sections, in order; those that could not be made say why."""
    makers: dict[str, tuple[str, Callable[[dict[str, Any]], Section]]] = {
        "evaluation": ("Accuracy", _evaluation),
        "statistics": ("Spikes", _statistics),
        "verification": ("Verification", _verification),
        "plan": ("Activations", _plan),
    }
    found = [_timing(document)]
    for key, (title, make) in makers.items():
        part = document.get(key) or {"error": "not looked at"}
        part = {**part, "network": spike_driven.kind_of_network(spike_driven.told_of(document))}
        error = part.get("error")
        found.append(Section(title, [f"Not known: {error}."]) if error else make(part))
    return [*found, _machine(document)]


def _timing(document: dict[str, Any]) -> Section:
    cells = tables.times(document["rows"], _STYLE)
    rows = tables.of(cells, "mode", "steps", "batch", "median", "spread", "rate", "ratio", "memory")
    header = ["mode", "T", "batch", "median (ms)", "10 % … 90 % (ms)", "images/s", "× ANN", "peak memory (MiB)"]
    table = Table("Time of a run, throughput, ratio to the ANN, peak memory of the process", header, rows)
    failed = [
        [row["mode"], tables.steps(row, _STYLE), str(row["batch"]), row["error"]]
        for row in document["rows"]
        if row["error"]
    ]
    others = [Table("Not measured", ["mode", "T", "batch", "reason"], failed)] if failed else []
    if not rows:
        return Section("Speed", ["Nothing could be measured."], tables=others)
    figure = Figure(
        "speed",
        "Time of a run against time-steps",
        "Both axes are logarithmic. A panel for each batch size, a line for each mode, the ANN as a horizontal line; "
        "bars from the 10th to the 90th percentile. The table after it has the values.",
        figures.speed,
        document["rows"],
        table,
    )
    text = [
        "All networks of one T and batch size ran in turns, in the same rounds; the ratio to the ANN is the median of "
        "the ratios of each round. Peak memory is that of a process of its own, Python and onnxruntime included. The "
        "serial network steps integrate-and-fire neurons through time; its outputs depend on when spikes arrive, so "
        "they are not the ANN's."
    ]
    return Section("Speed", text, [figure], others)


def _evaluation(part: dict[str, Any]) -> Section:
    found = [*([{"steps": None, "coding": None, **part["ann"]}] if part["ann"] else []), *part["rows"]]
    columns = tables.accuracy_columns(part)
    rows = []
    for row, cells in zip(found, tables.accuracies(found, _STYLE), strict=True):
        if row["top1_standard_error"] is not None:
            cells["top1"] = f"{cells['top1']} ± {cells['error']}"
        rows.append([f"T = {cells['steps']}" if row["steps"] else "ANN", *(cells[key] for key in columns)])
    judged = part["labels"] or part["tokens"]
    subject = "Accuracy" if judged else "Error against targets" if part["targets"] else "Agreement with the ANN"
    figure = Figure(
        "accuracy",
        f"{subject} against time-steps",
        "One point for each number of time-steps; where there are labels, horizontal lines for the ANN, and bars of "
        "one standard error of an accuracy. The table after it has the values.",
        figures.accuracy,
        part,
        Table(
            f"{subject} on {part['samples']} samples", ["network", *(_ACCURACIES[column] for column in columns)], rows
        ),
    )
    text = [
        "The network was rewritten at each T: steps are not causal, so a run at one T says nothing about another T.",
        *(f"{line}." for line in tables.not_finite(part)),
    ]
    drawable = bool(figures.known_accuracies(part))
    return Section("Accuracy", text, [figure] if drawable else [], [] if drawable else [figure.table])


def _statistics(part: dict[str, Any]) -> Section:
    layers, totals, energy = part["layers"], part["totals"], part["energy"]
    network = part["network"]
    drawn = "seeded random inputs" if part["random_inputs"] else "samples"
    at = f" at T = {part['steps']}" if part["steps"] else ""
    rates = Table(
        f"Firing of each layer, on {part['samples']} {drawn}",
        ["layer", "name", "neurons", "T", "firing rate", "silent channels", "saturated channels"],
        [
            [
                str(number),
                cells["name"],
                f"{layer['neurons']:,}",
                cells["steps"],
                cells["rate"],
                f"{cells['silent']} of {cells['channels']}",
                f"{cells['saturated']} of {cells['channels']}",
            ]
            for number, (layer, cells) in enumerate(zip(layers, tables.firing(layers, _STYLE), strict=True), 1)
        ],
    )
    trains = Table(
        "Spike counts of the neurons shown, on the first sample",
        ["layer", "name", "T", "neurons, as numbered in the layer", "count of each"],
        [
            [
                str(number),
                layer["name"],
                tables.steps(layer, _STYLE),
                " ".join(map(str, layer["example_neurons"])),
                " ".join(map(str, layer["example_counts"])),
            ]
            for number, layer in figures.raster_layers(layers)
        ],
    )
    work = Table(
        "Operations of each linear operator, a sample",
        ["operator", "type", "input", "ANN: MAC", f"{network}: AC", f"{network}: MAC"],
        tables.of(
            tables.operations(part["operators"], _STYLE), "name", "type", "input", "macs", "accumulates", "remaining"
        ),
    )
    found = []
    if figures.raster_layers(layers):
        found.append(
            Figure(
                "firing-rates",
                "Firing rate of each layer",
                "A bar for each layer from the input on: the share of neurons and steps that have a spike. Over all "
                f"layers it is {_STYLE.percent(totals['firing_rate'])}. The table after it has names and values.",
                figures.firing_rates,
                layers,
                rates,
            )
        )
        found.append(
            Figure(
                "raster",
                "Spike trains of some neurons",
                "For up to four layers, neurons from top to bottom and steps from left to right, a mark for each "
                "spike. In coding 'rate' a neuron of count k fires in its first k steps; in 'radix' its spikes are the "
                "binary digits of k, each worth twice that of the next step and drawn higher. Signed trains are those "
                "of the distance from the count of silence, in another colour below it. The table after it has the "
                "counts.",
                figures.raster,
                layers,
                trains,
            )
        )
    if any(entry["macs"] for entry in part["operators"]):
        found.append(
            Figure(
                "operations",
                "Operations and estimated energy",
                f"Left, on a logarithmic axis, the operations of each linear operator. Right, the estimated energy of "
                f"a sample: {energy['ann_nj'] / 1000:.3g} µJ of the ANN, {energy['snn_nj'] / 1000:.3g} µJ of the "
                f"{network} network. The table after it has the values.",
                figures.operations,
                part,
                work,
            )
        )
    macs, accumulates, remaining = (
        _STYLE.operations(totals[key]) for key in ("ann_macs", "synaptic_operations", "multiply_accumulates")
    )
    text = [
        f"Counted on {part['samples']} {drawn}{at}: {_STYLE.percent(totals['firing_rate'])} of all neurons and steps "
        f"have a spike. A sample takes {macs} multiply-accumulates (MAC) in the ANN; in the {network} network "
        f"{accumulates} accumulates (AC, one for each spike and synapse) and {remaining} multiply-accumulates.",
        f"What products read: {spike_driven.sentence(part['spike_driven'], _STYLE)}.",
        *(f"Without spikes: {line}." for line in spike_driven.why_not(part["spike_driven"])),
        *(f"{line[0].upper()}{line[1:]}." for line in spike_driven.on_means(part["spike_driven"])),
        *(
            f"{line[0].upper()}{line[1:]}."
            for line in energies.in_integers(part["energy_int8"], network, lambda value: f"{value / 1000:.3g} µJ")
        ),
        f"Estimated energy: {energy['ann_nj'] / 1000:.3g} µJ against {energy['snn_nj'] / 1000:.3g} µJ, under these "
        "assumptions:",
    ]
    return Section("Spikes", text, found, points=energy["assumptions"])


def _compared(layers: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The layers that had something to be equal to."""
    return [layer for layer in layers if layer["count_mismatch_rate"] is not None]


def _verification(part: dict[str, Any]) -> Section:
    layers = part["layers"]
    compared = _compared(layers)
    table = Table(
        "Elements of each layer with another spike count than the source's, given the same input",
        ["layer", "name", "elements that differ"],
        [
            [
                str(number),
                layer["name"],
                # One element of a large layer must not be rounded to none.
                f"{100 * layer['count_mismatch_rate']:.3g}\N{NO-BREAK SPACE}%"
                if layer["count_mismatch_rate"] is not None
                else "no sample got to its branch"
                if layer["exact"]
                else "nothing to be equal to (T is not L)",
            ]
            for number, layer in enumerate(layers, 1)
        ],
    )
    wrong = sum(bool(layer["count_mismatch_rate"]) for layer in compared)
    drawn = "seeded random inputs" if part["random_inputs"] else "samples"
    segments = [segment for segment in part["segments"] if segment["bounded"] and segment["elements"]]
    within = sum(not segment["beyond"] for segment in segments)
    text = [
        f"On {part['samples']} {drawn}, {len(compared) - wrong} of {len(compared)} layers with T = L have the source's "
        f"spike count on every element, given the same input, and {within} of {len(segments)} segments between neurons "
        f"have its values up to rounding, given the same spikes. Verdict: {part['verdict']}."
    ]
    text += [f"Different: {told}." for told in part["differences"]]
    text += [f"Not compared: {told}." for told in part["not_compared"]]
    if part["max_abs_diff"] is not None:
        agreement = (
            "" if part["top1_agreement"] is None else f", top-1 agreement {_STYLE.percent(part['top1_agreement'])}"
        )
        text.append(
            f"End to end, both as they run, outputs differ by at most {part['max_abs_diff']:.3g}{agreement}: a "
            "convolution over T·B rows may round differently from one over B rows, and a flipped spike affects later "
            "layers."
        )
    if not compared:
        return Section("Verification", text, tables=[table])
    figure = Figure(
        "mismatches",
        "Spike-count mismatches of each layer",
        "A mark for each layer from the input on: the share of its elements with another spike count than the "
        f"source's. {wrong} of {len(compared)} layers have any. The table after it has names and values.",
        figures.mismatches,
        layers,
        table,
    )
    return Section("Verification", text, [figure])


def _plan(part: dict[str, Any]) -> Section:
    cells = tables.activations(part["activations"], _STYLE)
    rows = tables.of(cells, "name", "encoding", "levels", "steps", "status", "reason")
    text = ["{converted} converted, {needs_calibration} without levels, {refused} refused.".format(**part["counts"])]
    if part["hybrid"]:
        text.append(f"The network is a hybrid: {len(part['hybrid'])} activations stay analog between spiking layers.")
    header = ["activation", "encoding", "levels", "T", "status", "reason"]
    return Section("Activations", text, tables=[Table("What became of each activation", header, rows)])


def _machine(document: dict[str, Any]) -> Section:
    names = {
        "cpu": "processor",
        "cores": "cores",
        "gpu": "GPU",
        "system": "system",
        "load_average": "load average at the start",
        "other_work": "CPU time of other processes",
        "pconv_onnx": "pconv-onnx",
        "onnxruntime": "onnxruntime",
        "onnx": "onnx",
        "numpy": "NumPy",
        "python": "Python",
        "library": "native library",
    }
    values = dict(document["machine"])
    values["other_work"] = _STYLE.percent(values["other_work"])
    values["load_average"] = f"{values['load_average']:.2f}"
    rows = [[label, "–" if values[key] is None else str(values[key])] for key, label in names.items()]
    rows.insert(2, ["threads of a session", str(document["threads"] or "–")])
    return Section("Machine", tables=[Table("Where it was measured", ["what", "value"], rows)])


def _times(ratio: float) -> str:
    return f"{ratio:.2f}\N{NO-BREAK SPACE}times"
