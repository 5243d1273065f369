"""Recipes of pretrained networks: what each declares, the samples that are made here, and the tables."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import numpy as np
import products
import pytest
from answers import Agreement
from PIL import ImageFont
from products import RECIPES
from real import tables, text_lines, tones
from real.catalogue import METRICS, NETWORKS, REQUIREMENTS, Metric, command, installing, packages
from subjects import Recipe, Samples, Subject, package

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", NETWORKS)
def test_each_network_declares_what_it_must(name):
    network, recipe = NETWORKS[name], RECIPES[name]
    assert network.title and network.source and network.metrics and set(network.metrics) <= METRICS.keys()
    assert recipe.samples > 0 and recipe.steps and set(recipe.needs) <= {"models", "data"}
    # Of the network itself packages in one version each, or a file that the user brings.
    own = packages(name)
    assert all(re.fullmatch(r"[\w-]+==[\d.]+", package) for package in own) and (own or "models" in recipe.needs)
    files = [*network.with_dependencies, *([name] if own else [])]
    assert re.findall(r"-r benchmarks/real/requirements/(\S+)\.txt", command(name)) == files
    assert all((REQUIREMENTS / f"{file}.txt").read_text() for file in files)


def test_each_figure_of_a_network_is_that_of_a_task():
    assert {key for network in NETWORKS.values() for key in network.metrics} == METRICS.keys()


def test_make_measures_each_network():
    (listed,) = re.findall(r"^REAL := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert sorted(listed.split()) == sorted(NETWORKS)


def test_a_missing_package_is_told_with_the_command(monkeypatch):
    def make(*_):
        return package("a_package_that_there_is_not")

    options = argparse.Namespace(models=None, data=None, folder=None)
    monkeypatch.setitem(products.RECIPES, "yolov8n", Recipe((4,), 1, make))
    with pytest.raises(SystemExit) as error:
        products.subject("yolov8n", 1, options)
    told = "error: yolov8n: No module named 'a_package_that_there_is_not'; run: pip install -c constraints.txt"
    assert str(error.value).startswith(told) and "\n" not in str(error.value)
    assert installing("resnet20-relu") == "benchmarks/README.md names what to install"


def test_a_missing_file_is_told(tmp_path):
    options = argparse.Namespace(models=tmp_path, data=tmp_path, folder=tmp_path)
    with pytest.raises(SystemExit, match=r"error: squeezenet: no file '.*labels.csv'; "):
        products.subject("squeezenet", 1, options)


def test_a_network_that_is_not_among_the_models_is_told(tmp_path, monkeypatch):
    def make(folders, _):
        return Subject(folders.models / "none.onnx", Samples({}), Samples({}), Agreement())

    options = argparse.Namespace(models=tmp_path, data=None, folder=None)
    monkeypatch.setitem(products.RECIPES, "squeezenet", Recipe((4,), 1, make))
    with pytest.raises(SystemExit, match=r"error: squeezenet: no file '.*none.onnx'; "):
        products.subject("squeezenet", 1, options)


def test_tones_are_those_of_their_seed_and_no_two_alike():
    frames, pitches = tones.frames(5, seed=3)
    again, _ = tones.frames(3, seed=3)
    np.testing.assert_array_equal(frames[:3], again)
    assert frames.shape == (5, 1024) and frames.dtype == np.float32 and len(set(pitches)) == 5
    np.testing.assert_allclose(frames.mean(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(frames.std(axis=1), 1, atol=1e-5)
    assert (pitches > tones.LOWEST * 0.97).all() and (pitches < tones.HIGHEST * 1.03).all()
    assert not np.array_equal(tones.frames(1, seed=4)[0], frames[:1])


def test_a_pitch_is_between_the_bins_around_the_largest():
    logits = np.full((3, 360), -50.0)
    logits[0, 0] = logits[1, 359] = 9
    logits[2, [120, 121, 300]] = 9, 9, 8
    expected = 31.7 * 2 ** (np.array([0, 359, 120.5]) * 20 / 1200)
    np.testing.assert_allclose(tones.pitches(logits), expected, rtol=1e-3)


def test_a_text_is_read_without_blanks_and_repetitions():
    def scores(*classes: int) -> np.ndarray:
        return np.eye(4)[[*classes]]

    both = np.stack([scores(1, 1, 0, 1, 2, 2, 0), scores(0, 3, 2, 3, 3, 0, 0)])
    assert text_lines.texts(both, ["a", "b", " "]) == ["aab", "b"]


def test_a_picture_of_a_line_is_blue_first_with_nothing_behind_it():
    prepared = text_lines.prepared(np.full((48, 100, 3), (255, 0, 51), np.uint8))
    assert prepared.shape == (3, 48, 320) and prepared.dtype == np.float32
    np.testing.assert_allclose(prepared[:, 0, 0], [-0.6, -1, 1])
    assert (prepared[..., :100] == prepared[:, :1, :1]).all() and not prepared[..., 100:].any()


def test_lines_are_those_of_their_seed():
    try:
        ImageFont.truetype(text_lines.FONTS[0], 20)
    except OSError:
        pytest.skip("there are no DejaVu fonts")
    pictures, texts = text_lines.lines(4, seed=2)
    again, same = text_lines.lines(2, seed=2)
    np.testing.assert_array_equal(pictures[:2], again)
    assert texts[:2] == same and all(re.fullmatch(r"[A-Za-z0-9]+( [A-Za-z0-9]+)*", text) for text in texts)
    # Ink differs from paper.
    assert all(np.ptp(picture[..., :40]) > 0.5 for picture in pictures)


def test_a_missing_font_is_told():
    with pytest.raises(SystemExit, match="error: no font 'none.ttf'; .*apt install fonts-dejavu-core"):
        text_lines._font("none.ttf", 20)


def test_a_figure_has_its_interval_or_its_error():
    figures = {"top1": 0.5, "top1_interval": [0.25, 0.75], "cosine_mean": 0.99, "cosine_mean_error": 0.001}
    assert tables.told(figures, "top1", METRICS["top1"]) == "50.0 % [25.0, 75.0]"
    assert tables.told(figures, "cosine_mean", METRICS["cosine_mean"]) == "0.9900 ± 0.0010"
    assert tables.told({"a": 0.5, "a_error": 0.01}, "a", Metric("a")) == "50.0 ± 1.0 %"
    assert tables.told({"found": None}, "found", METRICS["found"]) == "none"


def test_an_entry_is_a_row_for_each_metric_and_a_refusal_says_why():
    key = {"network": "magika", "neurons": "products", "coding": "radix", "method": "refit", "samples": 32}
    answers = Agreement().figures([1, 2, 3, 3], [1, 2, 3, 0])
    answered = {
        **key,
        "steps": 8,
        "answers": answers,
        "calibration": {"seconds": 12.4},
        "energy_ratio": 0.5,
        "spike_driven": {"share": 0.999},
    }
    refused = {**key, "steps": 4, "refused": "it has a | that nobody knows"}
    tuned = answered | {"method": "tune", "samples": 64}
    table = tables.measured([tuned, answered, refused, {"network": "one of others"}]).splitlines()
    assert table[2:] == [
        "| magika | radix, products, 4 |  | 32 | refused: it has a \\| that nobody knows |  |  |  |",
        "| magika | radix, products, 8 | 99 %, 0.50 × | 32, 12 s | same class as the ANN |  | 75.0 % [30.1, 95.4] "
        "| 4, 3 classes |",
        "| magika | radix, products, 8 | 99 %, 0.50 × | 64, 12 s, `tune` | same class as the ANN |  "
        "| 75.0 % [30.1, 95.4] | 4, 3 classes |",
    ]


def test_the_page_has_the_tables_of_the_files():
    page = (ROOT / "docs" / "real.md").read_text(encoding="utf-8")
    files = sorted((ROOT / "benchmarks" / "results" / "real").glob("*.json"))
    entries = [entry for file in files for entry in json.loads(file.read_text())["entries"]]
    sections = (tables.networks(), tables.measured(entries))
    assert all(f"-->\n{section}<!--" in page for section in sections)
