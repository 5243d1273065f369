"""The page of a report: whole, without anything from elsewhere, and legible to people, screen readers and browsers."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from html.parser import HTMLParser

import pytest
from refusals import refusal_of

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from matplotlib.colors import to_hex  # noqa: E402

from pconv_onnx.report import curve, figures, page  # noqa: E402  # what they need is an extra
from pconv_onnx.report.sections import FIGURES, findings, sections  # noqa: E402

HOSTILE = '<script>alert("x")</script>'
VOID = {"meta", "link", "br", "hr", "img", "input"}


def row(mode, steps, batch, ms, **changes) -> dict:
    found = {
        "model": "m.onnx", "mode": mode, "steps": steps, "coding": steps and "rate", "batch": batch,
        "provider": "cpu", "median_ms": ms,
        "p10_ms": 0.9 * ms, "p90_ms": 1.2 * ms, "images_per_s": 1e3 * batch / ms, "ratio_to_ann": ms / batch,
        "repetitions": 5, "peak_memory_mib": 90.0, "error": None,
    }  # fmt: skip
    return found | changes


def unmeasured(mode, steps, batch, error) -> dict:
    nothing = dict.fromkeys(("median_ms", "p10_ms", "p90_ms", "images_per_s", "ratio_to_ann", "peak_memory_mib"))
    return row(mode, steps, batch, 1.0, **nothing, repetitions=0, error=error)


def whole_document() -> dict:
    """All that a report can tell, of a network with two layers."""
    rows = []
    for batch in (1, 8):
        rows.append(row("ANN", None, batch, 1.0 * batch))
        for steps in (4, 8):
            times = {"function body": 3, "serial": 1.5, "parallel": 1, "folded": 1.2 / steps}
            rows += [row(mode, steps, batch, steps * batch * factor) for mode, factor in times.items()]
    rows.append(unmeasured("serial", 8, 32, "no memory"))
    accuracy = {"top1": 0.86, "top1_standard_error": 0.011, "top5": 0.99, "rmse": None, "mae": None,
                "token_top1": None, "perplexity": None}  # fmt: skip
    cosine = {"output": "y", "of": "tokens", "count": 7000, "not_finite": 0,
              "median": 0.9876, "quantile_05": 0.9, "mean": 0.98}  # fmt: skip
    layers = [
        {
            "name": name, "channels": 4, "neurons": 64, "steps": 8, "coding": "rate", "zero": 0,
            "operations": 12, "firing_rate": rate, "spike_counts": [40, *[3] * 8],
            "silent_channels": 1, "saturated_channels": 0, "example_neurons": [0, 21, 42, 63],
            "example_counts": [8, 0, 3, 1],
        }
        for name, rate in (("conv1/act", 0.2), ("conv2/act", 0.1))
    ]  # fmt: skip
    operators = [
        {"name": "conv1", "op_type": "Conv", "input": "static", "macs": 1000, "synaptic_operations": 0,
         "multiply_accumulates": 1000},
        {"name": "conv2", "op_type": "Conv", "input": "spikes", "macs": 5e6, "synaptic_operations": 4.2e6,
         "multiply_accumulates": 0},
        {"name": "body", "op_type": "If", "input": "static", "macs": None, "synaptic_operations": None,
         "multiply_accumulates": None},
    ]  # fmt: skip
    activation = {"name": "conv1/act", "op_types": ["Floor"], "encoding": "qcfs", "levels": 8, "steps": 8,
                  "coding": "rate", "zero": 0, "status": "converted", "reason": ""}  # fmt: skip
    gelu = {"name": "gelu", "op_types": ["Gelu"], "encoding": "analog", "levels": None, "steps": None,
            "coding": None, "zero": None, "status": "needs-calibration", "reason": "it has no levels"}  # fmt: skip
    spike_driven = {"macs": 5.001e6, "on_inputs": 1000, "on_spikes": 4e6, "share": 0.8, "not_on_spikes": ["conv3"],
                    "reasons": {"conv3": "it reads a current, the sum 'add'"}}  # fmt: skip
    return {
        "model": "m.onnx",
        "machine": {
            "date": "2030-01-02T03:04:05+00:00", "cpu": "a processor", "cores": 2, "gpu": None, "system": "Linux",
            "load_average": 0.5, "quiet": True, "other_work": 0.01, "python": "3.12", "pconv_onnx": "0.1", "onnx": "1",
            "onnxruntime": "1.32", "numpy": "2", "library": None,
        },
        "threads": 2,
        "random_inputs": False,
        "calibration": None,
        "random_calibration": False,
        "complete": True,
        "stopped": None,
        "spike_driven": spike_driven,
        "rows": rows,
        "plan": {
            "activations": [activation, gelu], "steps": 8, "hybrid": ["gelu"],
            "counts": {"converted": 1, "needs_calibration": 1, "refused": 0},
        },
        "evaluation": {
            "samples": 1000, "labels": True, "targets": None, "tokens": None, "labelled_tokens": None, "ann": accuracy,
            "rows": [
                {"steps": steps, "coding": "rate", "mode": "folded", "agreement": 0.9, "mse": 0.1,
                 "token_agreement": None, "cosine": dict(cosine), **accuracy}
                for steps in (4, 8)
            ],
        },
        "statistics": {
            "samples": 200, "random_inputs": False, "steps": 8, "mode": "folded", "layers": layers,
            "operators": operators,
            "totals": {"ann_macs": 5.001e6, "synaptic_operations": 4.2e6, "multiply_accumulates": 1000,
                       "firing_rate": 0.15},
            "energy": {"mac_pj": 4.6, "ac_pj": 0.9, "ann_nj": 23000.0, "snn_nj": 3800.0, "ratio": 0.165,
                       "assumptions": ["45 nm CMOS"]},
            "energy_int8": {"mac_pj": 0.3, "ac_pj": 0.1, "ann_nj": 1500.0, "snn_nj": 420.0, "ratio": 0.28,
                            "weights": None, "float_operators": [], "assumptions": ["integers of 8 bits"]},
            "spike_driven": spike_driven,
        },
        "verification": {
            "passed": True, "verdict": "equal", "differences": [], "not_compared": [],
            "max_abs_diff": 0.25, "top1_agreement": 0.99, "samples": 200, "random_inputs": False,
            "layers": [{"name": "conv1/act", "exact": True, "count_mismatch_rate": 0.0},
                       {"name": "conv2/act", "exact": True, "count_mismatch_rate": 0.02}],
            "segments": [{"name": "conv1/act", "kind": "neuron", "bounded": True, "elements": 10, "beyond": 0}],
        },
    }  # fmt: skip


@pytest.fixture
def document() -> dict:
    return whole_document()


class Page(HTMLParser):
    """A page by the standard library's parser: every element is closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open:
            self.text.setdefault(self._open[-1], []).append(data.strip())

    def all(self, *tags) -> list[dict]:
        return [attributes for tag, attributes in self.tags if tag in tags]


def written(document, tmp_path) -> tuple[Page, str]:
    text = page.write(document, page.destination(tmp_path / "report")).read_text()
    return Page(text), text


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """The page of the whole document."""
    folder = tmp_path_factory.mktemp("made") / "a" / "report"
    path = page.write(whole_document(), page.destination(folder))
    assert path == folder / "index.html"
    return path


@pytest.fixture(scope="module")
def text(path) -> str:
    return path.read_text()


def test_the_files_are_the_page_its_figures_and_the_document(document, path):
    expected = {"index.html", "bench.json", *(f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg"))}
    assert set(os.listdir(path.parent)) == expected
    assert json.loads((path.parent / "bench.json").read_text()) == document
    for name in FIGURES:
        content = (path.parent / f"{name}.png").read_bytes()
        assert content.startswith(b"\x89PNG") and struct.unpack(">2I", content[16:24]) > (600, 300)
        assert ElementTree.parse(path.parent / f"{name}.svg").getroot().tag.endswith("svg")


def test_the_page_needs_nothing_else(text):
    found = Page(text)
    assert "://" not in text and "@import" not in text
    assert found.all("script", "link", "iframe", "img", "object", "image") == []
    loads = [value for _, attributes in found.tags for name, value in attributes.items() if name in ("src", "srcset")]
    assert loads == []
    # Of the files beside it there are links only.
    links = {attributes["href"] for attributes in found.all("a")}
    assert links == {"bench.json", *(f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg"))}
    assert set(re.findall(r"url\(([^)]*)\)", text)) <= {f"#{found['id']}" for found in found.all("clippath")}


def test_every_figure_has_text_and_a_table_for_those_who_cannot_see_it(text):
    found = Page(text)
    ids = Counter(attributes["id"] for _, attributes in found.tags if "id" in attributes)
    assert max(ids.values()) == 1
    pictures = found.all("svg")
    assert len(pictures) == len(FIGURES)
    for name, picture in zip(FIGURES, pictures, strict=True):
        assert picture["role"] == "img"
        assert picture["aria-labelledby"].split() == [f"{name}-title", f"{name}-text"]
        assert all(label in ids for label in picture["aria-labelledby"].split())
    assert all(len(told) > 10 for told in found.text["desc"])
    behind = re.findall(r"</figure>\s*<details[^>]*>.*?</details>", text, flags=re.DOTALL)
    assert len(behind) == len(FIGURES) == len(found.all("figcaption"))
    assert all("<table>" in table and "<caption>" in table for table in behind)
    used = {reference[1:] for attributes in found.all("use") for reference in [attributes["href"]]}
    assert used and used <= ids.keys()


def test_headings_are_in_order_and_tables_say_what_heads_what(text):
    found = Page(text)
    assert next(attributes for tag, attributes in found.tags if tag == "html")["lang"] == "en"
    headings = [tag for tag, _ in found.tags if re.fullmatch("h[1-6]", tag)]
    assert headings == ["h1"] + ["h2"] * (len(headings) - 1)
    assert found.text["h2"] == ["Speed", "Accuracy", "Spikes", "Verification", "Activations", "Machine"]
    assert {attributes["scope"] for attributes in found.all("th")} == {"col", "row"}
    assert len(found.all("caption")) == len(found.all("table"))


def test_colours_are_those_of_the_page_s_style(text):
    pictures = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL))
    assert re.findall("#[0-9a-f]{6}", pictures) == []
    style = text[: text.index("</style>")]
    used = set(re.findall(r"var\(--([a-z-]+)\)", text))
    light, dark, paper = (set(re.findall("--([a-z-]+):", part)) for part in style.split(":root")[1:])
    assert used <= light == dark == paper
    assert "prefers-color-scheme: dark" in style and "@media print" in style


def test_names_from_a_model_do_nothing(document, text, tmp_path):
    document["model"] = HOSTILE
    for entry in (*document["plan"]["activations"], *document["verification"]["layers"]):
        entry |= {"name": HOSTILE, "reason": HOSTILE}
    for entry in (*document["statistics"]["layers"], *document["statistics"]["operators"]):
        entry["name"] = f"{HOSTILE}$x^{{2}}$\0\ud800"
    found, hostile = written(document, tmp_path)
    assert found.all("script") == [] and "<script" not in hostile
    assert found.text["h1"] == [HOSTILE]
    assert [tag for tag, _ in found.tags] == [tag for tag, _ in Page(text).tags]


def test_long_names_are_cut_in_figures_and_whole_in_tables(document, tmp_path):
    name = "block/" * 40
    for layer in document["statistics"]["layers"]:
        layer["name"] = name
    _, text = written(document, tmp_path)
    pictures = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL))
    assert name not in pictures and f"{name[:31]}…" in pictures
    assert f"<td>{name}</td>" in text


def test_what_is_not_known_is_said_and_the_rest_is_there(document, tmp_path):
    for part in ("evaluation", "statistics", "verification", "plan"):
        document[part] = {"error": f"no {part}"}
    document |= {"complete": False, "stopped": "interrupted", "random_inputs": True}
    document["machine"] |= {"quiet": False, "other_work": 0.5}
    found, text = written(document, tmp_path)
    assert [found.text["p"].count(f"Not known: no {part}.") for part in ("evaluation", "plan")] == [1, 1]
    for told in ("This report is incomplete: interrupted.", "The machine was not quiet", "seeded random numbers"):
        assert told in text
    assert len(found.all("svg")) == 1


def test_without_labels_the_curve_is_of_agreement(document, tmp_path):
    for entry in (document["evaluation"]["ann"], *document["evaluation"]["rows"]):
        entry |= {"top1": None, "top1_standard_error": None, "top5": None}
    document["evaluation"]["labels"] = False
    _, text = written(document, tmp_path)
    assert ">spiking: top-1 agreement with the ANN</text>" in text
    assert "At T = 8 it gives the ANN&#39;s top-1 answer on 90.00" in text


def test_with_targets_the_curve_is_of_the_error(document, tmp_path):
    part = document["evaluation"]
    none = {"top1": None, "top1_standard_error": None, "top5": None, "mae": 0.1}
    part["ann"] |= none | {"rmse": 0.25}
    part["rows"] = [row | none | {"rmse": 2 / row["steps"]} for row in part["rows"]]
    part |= {"labels": False, "targets": "y"}
    _, text = written(document, tmp_path)
    for who in ("spiking", "ANN"):
        assert f">{who}: root mean square error against targets</text>" in text
    assert "On 1000 samples the root mean square error of &#39;y&#39; against its targets at T = 8 is 0.25; the" in text
    assert ">root mean square error</th>" in text and "top-1 ± standard error" not in text


def test_with_labels_of_tokens_the_curve_is_of_tokens(document, tmp_path):
    part = document["evaluation"]
    of_tokens = {"top1": None, "top1_standard_error": None, "top5": None, "perplexity": 12.5}
    part["ann"] |= of_tokens | {"token_top1": 0.75}
    part["rows"] = [row | of_tokens | {"token_top1": row["steps"] / 16, "agreement": None} for row in part["rows"]]
    part |= {"labels": False, "tokens": "logits", "labelled_tokens": 345}
    _, text = written(document, tmp_path)
    assert ">ANN: top-1 accuracy of tokens</text>" in text
    assert "On 345 tokens its top-1 accuracy at T = 8 is 50.00" in text and ">12.5</td>" in text
    assert ">top-1 of tokens</th>" in text and "top-1 ± standard error" not in text


def test_without_classes_the_cosine_is_what_is_found(document, tmp_path):
    part = document["evaluation"]
    for entry in (part["ann"], *part["rows"]):
        entry |= {"top1": None, "top1_standard_error": None, "top5": None, "agreement": None}
    part["labels"] = False
    part["rows"][0]["cosine"] |= {"not_finite": 3, "quantile_05": None}
    _, text = written(document, tmp_path)
    assert "the median cosine similarity of its output &#39;y&#39; and the ANN&#39;s is 0.9876, of 7000 tokens." in text
    assert "T = 4: 3 of 7000 tokens of &#39;y&#39; have a NaN or an infinity, here or in the ANN." in text
    assert ">cosine with the ANN, median</th>" in text and ">agreement with the ANN</th>" not in text


def test_nothing_measured_makes_a_report_all_the_same(document, tmp_path):
    document["rows"] = [unmeasured("parallel", 8, 1, "no such provider")]
    found, text = written(document, tmp_path)
    assert "Nothing could be measured." in text and "no such provider" in text
    assert len(found.all("svg")) == len(FIGURES) - 1


def test_the_findings_are_honest(document):
    told = list(findings(document))
    assert told[0] == (
        "At T = 8 and batch 1 the parallel network takes 8.00\N{NO-BREAK SPACE}times the time of the ANN, and is "
        "1.50\N{NO-BREAK SPACE}times as fast as stepping through time serially."
    )
    assert any("computes 8 rows" in sentence and "costs about 8 ANNs on a CPU" in sentence for sentence in told)
    assert any("not a spiking simulation" in sentence for sentence in told)
    assert any(sentence.startswith("At T = 8, 1 of 2 layers have the source's spike count") for sentence in told)
    for entry in document["rows"]:
        if entry["mode"] == "serial" and entry["repetitions"]:
            entry["median_ms"] /= 3
    assert "is slower (2.00\N{NO-BREAK SPACE}times the time) than stepping" in next(findings(document))


def test_findings_say_at_which_steps_spikes_were_counted_where_others_were_timed(document):
    document["rows"] = [row for row in document["rows"] if row["steps"] != 8]
    told = list(findings(document))
    assert told[0].startswith("At T = 4 and batch 1 the parallel network")
    assert [sentence.partition(",")[0] for sentence in told[-2:]] == ["At T = 8"] * 2
    document["plan"]["steps"] = None
    assert [sentence.partition(",")[0] for sentence in list(findings(document))[-2:]] == ["At T = L"] * 2


def test_energies_of_integers_are_told_of_integers_alone(document, tmp_path):
    begins = "Energy of a sample in 8-bit weights and counts (0.3 pJ a multiply-accumulate, 0.1 pJ an accumulate: "
    _, text = written(document, tmp_path)
    assert begins not in text
    (told,) = (sentence for sentence in findings(document) if "energy" in sentence)
    assert told.endswith("to take 16.50\N{NO-BREAK SPACE}% of the energy of the ANN's.")
    document["statistics"]["energy_int8"] |= {"weights": "int8", "float_operators": ["conv1"]}
    _, text = written(document, tmp_path)
    assert (
        f"{begins}M. Horowitz, ISSCC 2014): int8 ANN 1.5 µJ, spiking network 0.42 µJ, 0.28 times the energy; "
        "1 operator in floats, at 4.6 pJ and 0.9 pJ." in text
    )
    (told,) = (sentence for sentence in findings(document) if "energy" in sentence)
    floats, integers = (f"{share}\N{NO-BREAK SPACE}%" for share in ("16.50", "28.00"))
    assert told.endswith(f"to take {floats} of the energy of the ANN's; in 8-bit weights and counts {integers}.")


@pytest.mark.parametrize(
    ("exact", "input_bits", "told"),
    [
        (True, 8, "its inputs rounded to 8 bits: every sum is exact, and outputs have the same bits in any mode, batch "
                  "and order of summation."),
        (False, None, "its inputs left as floats. Some operators compute on floats, on which outputs depend, so that "
                      "their bits may differ."),
    ],
)  # fmt: skip
def test_integer_weights_are_one_sentence(exact, input_bits, told, document):
    assert not any("integers" in sentence or "weights are" in sentence for sentence in findings(document))
    document["plan"]["integer"] = {"weights": "int4", "input_bits": input_bits, "exact": exact}
    (sentence,) = (sentence for sentence in findings(document) if "weights are" in sentence)
    assert sentence == f"The network's weights are rounded to int4, {told}"
    assert any("have its integer form's spike count on every element" in found for found in findings(document))


def test_a_mismatch_is_not_rounded_away(document):
    document["verification"]["layers"][1]["count_mismatch_rate"] = 1e-7
    (section,) = (section for section in sections(document) if section.title == "Verification")
    assert [cells[-1] for cells in section.figures[0].table.rows] == [
        "0\N{NO-BREAK SPACE}%",
        "1e-05\N{NO-BREAK SPACE}%",
    ]


def spikes(axes) -> list[tuple[int, int, float, str]]:
    """Step, neuron, height and colour of what is drawn."""
    return sorted(
        (round(x), round((low + high) / 2), high - low, to_hex(collection.get_color()[0]))
        for collection in axes.collections
        for (x, low), (_, high) in collection.get_segments()
    )


def test_rasters_are_of_sorted_trains(document):
    (section,) = (section for section in sections(document) if section.title == "Spikes")
    raster = next(figure for figure in section.figures if figure.name == "raster")
    drawn = figures.raster(raster.part)
    expected = [(step, neuron) for neuron, count in enumerate((8, 0, 3, 1)) for step in range(1, count + 1)]
    drawn_spikes = spikes(drawn.axes[0])
    assert [spike[:2] for spike in drawn_spikes] == sorted(expected)
    assert {spike[3] for spike in drawn_spikes} == {figures.BLUE}
    assert max(spike[2] for spike in drawn_spikes) == pytest.approx(min(spike[2] for spike in drawn_spikes))
    assert [cells[-1] for cells in raster.table.rows] == ["8 0 3 1"] * 2


def test_rasters_show_weights_and_signs(document):
    layer = document["statistics"]["layers"][0]
    layer |= {"steps": 3, "coding": "radix", "zero": 7, "example_counts": [7, 12, 6, 0]}
    drawn = figures.raster([layer])
    told = spikes(drawn.axes[0])
    signs = {figures.BLUE: 1, figures.ORANGE: -1}
    # By hand: 0, 5 = 101, −1 = −001, −7 = −111.
    assert [(step, neuron, signs[colour]) for step, neuron, _, colour in told] == [
        (1, 1, 1), (1, 3, -1), (2, 3, -1), (3, 1, 1), (3, 2, -1), (3, 3, -1),
    ]  # fmt: skip
    heights = [{round(height, 6) for step, _, height, _ in told if step == at} for at in (1, 2, 3)]
    assert [len(found) for found in heights] == [1, 1, 1] and max(heights[0]) > max(heights[1]) > max(heights[2])
    assert drawn.axes[0].get_xlabel() == "step t (radix)"
    (legend,) = drawn.legends
    assert len(legend.get_texts()) == 2


def test_labels_of_an_axis_are_the_values_at_its_marks(document):
    for row, top1 in zip(document["evaluation"]["rows"], (0.82, 0.84), strict=True):
        row["top1"] = row["top5"] = top1
    drawn = figures.accuracy(document["evaluation"])
    drawn.canvas.draw()
    axis = drawn.axes[0].yaxis
    labels = [float(label.get_text().rstrip("%")) / 100 for label in axis.get_ticklabels()]
    assert labels == pytest.approx(axis.get_ticklocs())


def test_many_layers_are_spread_over_the_raster():
    entered, skipped = {"example_counts": [1]}, {"example_counts": []}
    assert [number for number, _ in figures.raster_layers([entered] * 19)] == [1, 7, 13, 19]
    assert [number for number, _ in figures.raster_layers([entered])] == [1]
    assert [number for number, _ in figures.raster_layers([skipped, entered, skipped, entered])] == [2, 4]
    assert figures.raster_layers([skipped]) == []


def test_a_report_is_written_whole_or_not_at_all(document, tmp_path, monkeypatch):
    folder = tmp_path / "report"
    page.write(document, folder)
    before = {name: (folder / name).read_bytes() for name in os.listdir(folder)}
    calls = []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == 4:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    document["model"] = "other.onnx"
    told = refusal_of(page.write, document, folder)
    assert told == f"cannot write '{folder}': No space left on device; choose another place"
    assert {name: (folder / name).read_bytes() for name in os.listdir(folder)} == before


def test_figures_of_an_earlier_report_do_not_stay(document, tmp_path):
    page.write(document, tmp_path)
    (tmp_path / "notes.png").write_bytes(b"somebody's own")
    before = set(os.listdir(tmp_path))
    document["evaluation"] = {"error": "interrupted"}
    page.write(document, tmp_path)
    assert before - set(os.listdir(tmp_path)) == {"accuracy.png", "accuracy.svg"}


def test_a_file_with_a_figure_s_name_stays_where_no_report_was(document, tmp_path):
    (tmp_path / "accuracy.png").write_bytes(b"somebody's own")
    document["evaluation"] = {"error": "interrupted"}
    page.write(document, tmp_path)
    assert (tmp_path / "accuracy.png").read_bytes() == b"somebody's own"


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_missing_extra_is_told(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"{package}.figure", raising=False)
    told = refusal_of(page.destination, tmp_path)
    assert told.startswith(f"{package} cannot be imported: ") and told.endswith("; pip install 'pconv-onnx[report]'")


def test_a_place_that_a_report_cannot_go_to_is_told(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    assert refusal_of(page.destination, tmp_path / "file") == (
        f"'{tmp_path}/file' is no folder for a report; choose another place with `output=`"
    )
    assert f"nothing can be made in '{tmp_path}/file'" in refusal_of(page.destination, tmp_path / "file" / "r")


@pytest.mark.parametrize("destination", [page.destination, curve.destination])
@pytest.mark.parametrize(
    ("name", "reason"), [("n" * 300, "File name too long"), ("a\0b", "no file can have that name")]
)
@pytest.mark.parametrize("folder", [".", "new"])
def test_a_name_that_nothing_can_have_is_no_place(folder, name, reason, destination, tmp_path):
    assert f": {reason}; choose another place" in refusal_of(destination, tmp_path / folder / name)


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_browser_shows_the_page_and_its_figures(document, tmp_path):
    document["statistics"]["layers"][0]["name"] = HOSTILE
    path = page.write(document, tmp_path / "report")

    def browse(*arguments) -> subprocess.CompletedProcess:
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
                   "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}"]  # fmt: skip
        command = [CHROMIUM, *options, *arguments, path.as_uri()]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)

    done = browse("--dump-dom")
    # What the page itself has to complain of is told as from its console.
    assert "CONSOLE" not in done.stderr
    assert [done.stdout.count(f'id="{name}-title"') for name in FIGURES] == [1] * len(FIGURES)
    assert "<script" not in done.stdout
    shots = {}
    for scheme, number in (("dark", 0), ("light", 1)):
        shot = tmp_path / f"{scheme}.png"
        browse(f"--screenshot={shot}", "--window-size=1000,5000", f"--blink-settings=preferredColorScheme={number}")
        shots[scheme] = colours(shot)
    assert shots["light"][0] == (255, 255, 255) and shots["dark"][0] == (20, 24, 29)
    # The lines of figures have other colours than text has: they are drawn, and in those of each scheme.
    assert {(0, 104, 168), (200, 82, 0), (0, 122, 94)} <= set(shots["light"])
    assert {(93, 181, 240), (255, 154, 77), (53, 201, 160)} <= set(shots["dark"])


def colours(path) -> list[tuple[int, int, int]]:
    """The colours of a picture that more than a hundred of its points have, the commonest first."""
    from PIL import Image

    with Image.open(path) as image:
        found = image.convert("RGB").getcolors(maxcolors=1 << 24)
    return [colour for count, colour in sorted(found, reverse=True) if count > 100]
