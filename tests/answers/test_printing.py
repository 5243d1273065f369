"""Results print what their commands print, and notebooks show the same as tables."""

from __future__ import annotations

import contextlib
import io
from html.parser import HTMLParser

import numpy as np
import onnx
import pytest
from networks import network, weight

import pconv_onnx
from pconv_onnx.answers.printing import Document, Table
from pconv_onnx.cli.main import main
from pconv_onnx.cli.spelling import as_options

NODES = "a = Conv <pads = [1, 1, 1, 1]> (x, w) r = Relu (a) b = GlobalAveragePool (r) y = Flatten (b)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A network of ReLUs, its spiking form, and samples with labels."""
    folder = tmp_path_factory.mktemp("results")
    ann = network(NODES, outputs="float[N, 7] y", weights={"w": weight(7, 3, 3, 3)})
    onnx.save(ann, folder / "ann.onnx")
    x = np.random.default_rng(0).normal(size=(6, 3, 8, 8)).astype(np.float32)
    np.savez(folder / "data.npz", x=x, labels=np.arange(6))
    pconv_onnx.rewrite(folder / "ann.onnx", folder / "snn.onnx", steps=4, calibration=folder / "data.npz")
    return folder


def printed(*arguments: object) -> str:
    """What a command prints."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        main([str(argument) for argument in arguments])
    return out.getvalue().removesuffix("\n")


@pytest.mark.usefixtures("library")
def test_results_print_what_their_commands_print(folder, monkeypatch):
    monkeypatch.chdir(folder)
    calibrated = dict(steps=4, calibration="data.npz")
    data, steps = ["--data", "data.npz"], ["--steps", 4]
    options = [*steps, "--calibration", "data.npz"]
    for result, arguments in [
        (pconv_onnx.inspect("ann.onnx"), ["inspect", "ann.onnx"]),
        (pconv_onnx.rewrite("ann.onnx", dry_run=True, **calibrated), ["rewrite", "ann.onnx", "--dry-run", *options]),
        (pconv_onnx.verify("ann.onnx", "snn.onnx", "data.npz"), ["verify", "ann.onnx", "snn.onnx", *data]),
        (
            pconv_onnx.evaluate("ann.onnx", "data.npz", **calibrated),
            ["evaluate", "ann.onnx", *data, *options],
        ),
        (pconv_onnx.stats("snn.onnx", "data.npz"), ["stats", "snn.onnx", *data]),
        (pconv_onnx.doctor(), ["doctor"]),
    ]:  # fmt: skip
        assert as_options(str(result)) == printed(*arguments)
    # What was written where is the command's to say.
    for result, arguments in [
        (pconv_onnx.rewrite("ann.onnx", **calibrated), ["rewrite", "ann.onnx", *options, "-o", "a.onnx"]),
        (
            pconv_onnx.calibrate("ann.onnx", "data.npz", steps=4),
            ["calibrate", "ann.onnx", *steps, *data, "-o", "a.onnx"],
        ),
    ]:
        assert as_options(str(result)) == printed(*arguments).replace("\na.onnx: ", "\n")


@pytest.mark.usefixtures("library")
def test_a_deployment_prints_itself(folder):
    deployed = pconv_onnx.deploy(folder / "snn.onnx", folder / "bundle")
    assert str(deployed).splitlines()[-1].startswith(f"{folder}/bundle: bundle of {len(deployed.files)} files")


class Tags(HTMLParser):
    """The tags of a page; raises where one is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.seen = [], set()
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.seen.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_notebooks_are_shown_tables_with_names_that_are_no_tags(folder):
    model = onnx.load(folder / "ann.onnx")
    for node in model.graph.node:
        node.name = f"<script>{node.op_type}"
    told = pconv_onnx.inspect(model)._repr_html_()
    assert Tags(told).seen == {"table", "thead", "tbody", "tr", "th", "td", "div"}
    assert "&lt;script&gt;" in told


def test_a_table_has_its_cells_under_each_other_and_none_is_endless():
    rows = [["name", "T"], ["a", "8 radix"], ["n" * 600, "x"]]
    header, first, last = Table(rows).text()
    assert header.index("T") == first.index("8") == last.index("x") and len(last) < 600


def test_documents_are_dicts(folder):
    found = pconv_onnx.inspect(folder / "ann.onnx")
    assert isinstance(found, Document) and isinstance(found, dict)
    assert found["counts"]["needs_calibration"] == 1 and found == found.summary()
    assert type(found.summary()) is dict
