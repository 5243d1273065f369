"""Figures by matplotlib, each drawn from a part of a JSON document; in files, and inside of a page."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from xml.sax.saxutils import escape

import numpy as np

from pconv_onnx.basics.errors import PconvError
from pconv_onnx.neuron.coding import CODINGS
from pconv_onnx.plan.modes import FOLDED, INTEGER, INTEGER_PARALLEL, PARALLEL, SERIAL

# The colours of figures on paper, and the variables of the page's style that stand for them there. The colours of lines
# are told apart by the colour-blind (Okabe and Ito), and lines by their markers and dashes as well.
INK, PAPER, GRID = "#1b1f24", "#ffffff", "#c9ced6"
BLUE, ORANGE, GREEN, PINK, GREY = "#0068a8", "#c85200", "#007a5e", "#a8457f", "#6a717b"
_VARIABLES = {INK: "ink", PAPER: "paper", GRID: "grid", BLUE: "blue", ORANGE: "orange", GREEN: "green", PINK: "pink",
              GREY: "grey"}  # fmt: skip
_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlesize": "medium",
    "figure.facecolor": PAPER,
    "font.size": 10,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.edgecolor": GRID,
    "legend.facecolor": PAPER,
    "legend.labelcolor": INK,
    "lines.markersize": 6,
    "svg.fonttype": "none",
    "svg.hashsalt": "pconv-onnx",
    "text.color": INK,
    # Names from a model are no formulas.
    "text.parse_math": False,
    "xtick.color": INK,
    "xtick.labelcolor": INK,
    "ytick.color": INK,
    "ytick.labelcolor": INK,
}
_MODES: dict[str, dict[str, Any]] = {
    "ANN": {"color": INK, "linestyle": "--", "marker": ""},
    "int8 ANN": {"color": GREY, "linestyle": "--", "marker": "+"},
    "quantised ANN": {"color": GREY, "linestyle": ":", "marker": "x"},
    "function body": {"color": PINK, "linestyle": "-.", "marker": "^"},
    SERIAL.name: {"color": ORANGE, "linestyle": (0, (5, 1.5)), "marker": "s"},
    PARALLEL.name: {"color": BLUE, "linestyle": "-", "marker": "o"},
    FOLDED.name: {"color": GREEN, "linestyle": (0, (3, 1, 1, 1)), "marker": "D"},
    INTEGER.name: {"color": GREEN, "linestyle": "-", "marker": "P"},
    INTEGER_PARALLEL.name: {"color": BLUE, "linestyle": "--", "marker": "p"},
}
_ACCURACIES = {
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "rmse": "root mean square error against targets",
    "token_top1": "top-1 accuracy of tokens",
    "agreement": "top-1 agreement with the ANN",
    "token_agreement": "top-1 agreement of tokens with the ANN",
    "mse": "mean squared error",
}
# Those against the ANN, the most telling first.
_LIKENESSES = ("agreement", "token_agreement", "mse")
# What a spike is called, by its sign and by whether it is worth twice that of the next step.
_SPIKES = {
    (1, False): "spike",
    (-1, False): "negative spike",
    (1, True): "spike, the higher the more it is worth",
    (-1, True): "negative spike, likewise",
}
_PANELS_A_ROW = 3
_PIXELS_A_POINT = 1.6
_RASTERS = 4
_NAME = 32


def available() -> None:
    """Raise where figures cannot be drawn.

    Raises:
        PconvError: matplotlib is missing.
    """
    try:
        import matplotlib.figure  # noqa: F401  # only whether it is there
    except ImportError as error:
        raise PconvError(f"matplotlib cannot be imported: {error}", "pip install 'pconv-onnx[report]'") from error


def rendered(draw: Callable[..., Any], part: Any, kind: str) -> bytes:
    """The file that a figure makes.

    Args:
        draw: one of the functions below.
        part: what it draws.
        kind: png, svg or pdf.

    Raises:
        PconvError: matplotlib is missing.
    """
    buffer = io.BytesIO()
    with _style():
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type")) if kind == "svg" else None
        draw(part).savefig(buffer, format=kind, dpi=150, metadata=metadata)
    return buffer.getvalue()


def inline(svg: bytes, name: str, title: str, description: str) -> str:
    """An SVG file as an element of a page, in the colours of the page's style, with text for those who cannot see it.

    Args:
        svg: the file.
        name: starts its identifiers, which are those of one page then.
        title: what it is.
        description: what it shows.
    """
    text = svg.decode()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\b(id="|url\(#|href="#)', rf"\g<1>{name}-", text).replace("xlink:href", "href")
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    box = re.search(r'viewBox="0 0 ([\d.]+) [^"]*"', text)
    assert box is not None  # matplotlib writes one
    # Letters of one size in all figures, that of the text around them.
    width = round(_PIXELS_A_POINT * float(box[1]))
    start = (
        f'<svg {box[0]} style="max-width: {width}px" role="img" aria-labelledby="{name}-title {name}-text">'
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-text">{escape(description)}</desc>'
    )
    return start + text[text.index(">") + 1 :]


def shown(name: str) -> str:
    """A name from a model as figures show it: printable, and not longer than there is room for."""
    printable = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)
    return printable if len(printable) <= _NAME else f"{printable[: _NAME - 1]}…"


def speed(rows: Sequence[dict[str, Any]]) -> Any:
    """Time of a run against T, one panel a batch size, of the rows of a benchmark."""
    rows = [row for row in rows if row["repetitions"]]
    batches = sorted({row["batch"] for row in rows})
    steps = sorted({row["steps"] for row in rows if row["steps"]})
    panels = _panels(len(batches), 3.4)
    for axes, batch in zip(panels, batches, strict=True):
        for mode, style in _MODES.items():
            points = sorted(
                (row for row in rows if (row["batch"], row["mode"]) == (batch, mode)), key=lambda row: row["steps"] or 0
            )
            if mode == "ANN" and points:
                axes.axhline(points[0]["median_ms"], color=style["color"], linestyle=style["linestyle"], label=mode)
            elif points:
                medians = [row["median_ms"] for row in points]
                around = [
                    [row["median_ms"] - row["p10_ms"] for row in points],
                    [row["p90_ms"] - row["median_ms"] for row in points],
                ]
                at = [row["steps"] for row in points]
                axes.errorbar(at, medians, around, label=mode, elinewidth=0.8, capsize=2, **style)
        _log_axis(axes, "{:g}".format)
        axes.set_title(f"batch {batch}")
        axes.set_ylabel("ms a run")
        _steps_axis(axes, steps)
    return _with_legend(panels)


def accuracy(summary: dict[str, Any]) -> Any:
    """Accuracy of samples or tokens, or error against targets, against T; without labels agreement, or the error.

    Raises:
        PconvError: there is nothing to draw.
    """
    rows = sorted((row for row in summary["rows"] if row["steps"]), key=lambda row: int(row["steps"]))
    known = known_accuracies(summary)
    if not known:
        raise PconvError("there is no curve without time-steps", "evaluate at some `steps=`")
    (axes,) = _panels(1, 4.0)
    # Agreement and error have no common axis; agreement says more.
    judged = known[0] not in _LIKENESSES
    for kind, colour, marker in zip(known if judged else known[:1], (BLUE, ORANGE), "os", strict=False):
        points = [row for row in rows if row[kind] is not None]
        steps, values = [row["steps"] for row in points], [row[kind] for row in points]
        errors = [row["top1_standard_error"] for row in points] if kind == "top1" else None
        label = f"{summary.get('network', 'spiking')}: {_ACCURACIES[kind]}"
        axes.errorbar(steps, values, errors, color=colour, marker=marker, capsize=3, label=label)
        if judged and summary["ann"] and summary["ann"][kind] is not None:
            style = ":" if kind == "top5" else "--"
            axes.axhline(summary["ann"][kind], color=colour, linestyle=style, label=f"ANN: {_ACCURACIES[kind]}")
    _steps_axis(axes, [row["steps"] for row in rows])
    if known[0] not in ("rmse", "mse"):
        _percent_axis(axes)
    axes.set_title(f"{summary['samples']} samples, each T rewritten, mode {rows[0]['mode']}")
    axes.legend()
    return axes.figure


def known_accuracies(summary: dict[str, Any]) -> list[str]:
    """The keys of the rows of an evaluation at some T that `accuracy` can draw, the most telling first."""
    kinds: tuple[str, ...] = _LIKENESSES
    if summary["labels"]:
        kinds = ("top1", "top5")
    elif summary["targets"]:
        kinds = ("rmse",)
    elif summary["tokens"]:
        kinds = ("token_top1",)
    # Labels may all be left out of the count.
    return next(filter(None, (_known(summary, tried) for tried in (kinds, _LIKENESSES))), [])


def _known(summary: dict[str, Any], kinds: Sequence[str]) -> list[str]:
    return [kind for kind in kinds if any(row[kind] is not None for row in summary["rows"] if row["steps"])]


def readable(number: float) -> str:
    """A large number as people read it."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}\N{NO-BREAK SPACE}{letter}"
    return f"{number:.3g}"


def firing_rates(layers: Sequence[dict[str, Any]]) -> Any:
    """Share of the possible spikes that each layer emits."""
    (axes,) = _panels(1, 3.0)
    axes.bar(range(1, len(layers) + 1), [layer["firing_rate"] or 0 for layer in layers], color=BLUE)
    _percent_axis(axes)
    axes.set_ylabel("firing rate")
    axes.grid(axis="x", visible=False)
    _layers_axis(axes, len(layers))
    return axes.figure


def raster(layers: Sequence[dict[str, Any]]) -> Any:
    """Spikes of the example neurons of up to four layers, on the first sample, which their counts tell.

    The colour is the sign, and of spikes that are worth different amounts the height is the weight.
    """
    chosen = raster_layers(layers)
    panels = _panels(len(chosen), 3.4, columns=_RASTERS)
    for axes, (number, layer) in zip(panels, chosen, strict=True):
        coding = CODINGS[layer["coding"]](layer["steps"], layer["zero"])
        digits = coding.digits(np.array(layer["example_counts"]))
        # Halved from step to step they would soon be too low to be seen.
        heights = np.linspace(0.9, 0.25, coding.steps) if coding.weighted else np.full(coding.steps, 0.8)
        for sign, colour in ((1, BLUE), (-1, ORANGE)):
            steps, neurons = np.nonzero(digits == sign)
            half = heights[steps] / 2
            label = _SPIKES[sign, coding.weighted] if steps.size else None
            axes.vlines(
                steps + 1,
                neurons - half,
                neurons + half,
                colors=colour,
                label=label,
                linewidth=max(1.2, 20 / coding.steps),
            )
        axes.set_xlim(0.4, coding.steps + 0.6)
        axes.set_ylim(digits.shape[1] - 0.4, -0.6)
        axes.set_title(f"{number}: {shown(layer['name'])}")
        axes.set_xlabel(f"step t ({layer['coding']})")
        axes.set_yticks([])
        axes.grid(False)
        axes.xaxis.get_major_locator().set_params(integer=True, nbins=8)
    panels[0].set_ylabel("neuron")
    return _with_legend(panels)


def raster_layers(layers: Sequence[dict[str, Any]]) -> list[tuple[int, dict[str, Any]]]:
    """The layers that `raster` shows, numbered from 1: of those that a sample got to the first, the last and others."""
    entered = [(number, layer) for number, layer in enumerate(layers, 1) if layer["example_counts"]]
    panels = min(_RASTERS, len(entered))
    chosen = sorted({round(index * (len(entered) - 1) / max(1, panels - 1)) for index in range(panels)})
    return [entered[index] for index in chosen]


def operations(statistics: dict[str, Any]) -> Any:
    """Operations of each linear operator, of the ANN and of what it became, and the energy that they stand for."""
    network = statistics["network"]
    counted = [entry for entry in statistics["operators"] if entry["macs"]]
    layers, totals = _panels(2, 3.2, widths=(3, 1))
    at = range(1, len(counted) + 1)
    layers.plot(at, [entry["macs"] for entry in counted], color=INK, marker="o", linestyle="--", label="ANN: MAC")
    for key, label, colour, marker in (
        ("synaptic_operations", f"{network}: synaptic operations (AC)", BLUE, "D"),
        ("multiply_accumulates", f"{network}: MAC that remain", ORANGE, "s"),
    ):
        points = [(number, entry[key]) for number, entry in zip(at, counted, strict=True) if entry[key]]
        if points:
            numbers, values = zip(*points, strict=True)
            layers.plot(numbers, values, color=colour, marker=marker, linestyle="", label=label)
    _log_axis(layers, readable)
    layers.set_xlabel("linear operator, from the input on")
    layers.set_ylabel("operations a sample")
    layers.xaxis.get_major_locator().set_params(integer=True)
    energy = statistics["energy"]
    for place, (value, colour) in enumerate(((energy["ann_nj"], GREY), (energy["snn_nj"], BLUE))):
        totals.bar(place, value / 1000, color=colour, width=0.6)
    totals.set_xticks([0, 1], ["ANN", network])
    totals.set_ylabel("µJ a sample, estimated")
    totals.grid(axis="x", visible=False)
    return _with_legend([layers])


def mismatches(layers: Sequence[dict[str, Any]]) -> Any:
    """Share of the elements of each layer that have another spike count than the source's, given the same input."""
    (axes,) = _panels(1, 2.6)
    rates = [layer["count_mismatch_rate"] for layer in layers]
    at = [number for number, rate in enumerate(rates, 1) if rate is not None]
    values = [rate for rate in rates if rate is not None]
    axes.vlines(at, 0, values, color=BLUE)
    axes.plot(at, values, color=BLUE, linestyle="", marker="o")
    axes.set_ylim(-0.0008, max(0.01, 1.1 * max(values, default=0)))
    _percent_axis(axes)
    axes.set_ylabel("elements that differ")
    _layers_axis(axes, len(layers))
    return axes.figure


def _layers_axis(axes: Any, count: int) -> None:
    axes.set_xlim(0.4, count + 0.6)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("layer, from the input on")


def _percent_axis(axes: Any) -> None:
    from matplotlib.ticker import PercentFormatter

    axes.yaxis.set_major_formatter(PercentFormatter(1))  # as many decimals as tell the labels apart


def _log_axis(axes: Any, text: Callable[[float], str]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    # Of less than two decades, powers of ten alone would label next to nothing.
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _panels(count: int, height: float, columns: int = _PANELS_A_ROW, widths: Sequence[float] | None = None) -> Any:
    """Axes in rows, on a new figure; the height is that of one row, in inches."""
    from matplotlib.figure import Figure

    columns = min(count, columns)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(8.0 if count > 1 else 6.4, height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, width_ratios=widths)
    for axes in grid.flat[count:]:
        axes.remove()
    return list(grid.flat[:count])


def _with_legend(panels: Sequence[Any]) -> Any:
    """The figure, with one legend below for all panels."""
    entries: dict[str, Any] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    figure = panels[0].figure
    if entries:
        figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=min(3, len(entries)))
    return figure


def _steps_axis(axes: Any, steps: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(steps, [str(count) for count in steps])
    axes.minorticks_off()
    axes.set_xlabel("time-steps T")
    axes.margins(x=0.08)


@contextmanager
def _style() -> Iterator[None]:
    available()
    import matplotlib

    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # A name from a model may have letters that the font has not.
        warnings.filterwarnings("ignore", message="Glyph")
        yield
