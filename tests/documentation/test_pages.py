"""Pages say what happens: their commands and their Python run, print what is shown, and their links lead somewhere."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from pconv_onnx import rewrite
from pconv_onnx.cli.arguments import parser

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*/README.md")])
PAGES.append(ROOT / "benchmarks" / "README.md")
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_DECIMAL = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
# Blocks that need a GPU or Ray are only compiled.
_ELSEWHERE = ("CUDAExecutionProvider", "RayEngine")


def blocks(name: str) -> Iterator[tuple[str, str]]:
    """The language and text of each fenced block."""
    yield from _FENCE.findall((ROOT / name).read_text(encoding="utf-8"))


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each command of a block, and the lines that are shown behind it."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, *shown = part.replace("\\\n", "").splitlines()
        yield command, shown


def agrees(shown: str, printed: str) -> bool:
    """Whether a line is as shown: `…` is anything, decimals may be a tenth off, bars and spacing do not count.

    Pages show what a reader without nvcc gets, whose library has kernels for the CPU alone.
    """
    printed = printed.removesuffix(", cuda")
    shown, printed = (" ".join(re.sub(r"#{3,}", "", line).split()) for line in (shown, printed))
    texts = re.split(_DECIMAL, shown)
    pattern = r"(-?\d+(?:\.\d+)?(?:e-?\d+)?)".join(".*".join(map(re.escape, text.split("…"))) for text in texts)
    found = re.fullmatch(pattern, printed)
    expected = [float(value) for value in _DECIMAL.findall(shown)]
    return found is not None and [float(value) for value in found.groups()] == pytest.approx(
        expected, rel=0.1, abs=0.01
    )


def require_shown(shown: list[str], printed: list[str]) -> None:
    """Each shown line was printed, in order; a line `…` alone stands for any number of lines."""
    skipping = False
    rest = list(printed)
    for line in shown:
        if line == "…":
            skipping = True
            continue
        while skipping and rest and not agrees(line, rest[0]):
            rest.pop(0)
        assert rest, f"'{line}' was not printed, but: {printed}"
        assert agrees(line, rest[0]), f"'{line}' was to be printed, and not '{rest[0]}'"
        rest.pop(0)
        skipping = False
    assert skipping or not rest, f"not shown: {rest}"


def run(name: str, folder: Path, names: dict[str, Any]) -> None:
    """Run every block of a page, in its order, in that folder; Python finds those names."""
    (folder / "examples").symlink_to(ROOT / "examples")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    ran = 0
    for language, text in blocks(name):
        if language == "console":
            for command, shown in commands(text):
                shell = ["bash", "-c", command.replace("pconv-onnx ", "python -m pconv_onnx ", 1)]
                done = subprocess.run(shell, cwd=folder, env=environment, capture_output=True, text=True)
                assert done.returncode == 0, f"{command}: {done.stderr}"
                require_shown(shown, done.stdout.rstrip().splitlines())
                ran += 1
        elif language == "python":
            code = compile(text, name, "exec")
            if not any(need in text for need in _ELSEWHERE):
                exec(code, names)  # noqa: S102
            ran += 1
    assert ran


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("name", ["README.md", "docs/tutorial.md", "docs/howto.md"])
def test_what_a_page_has_its_reader_type_runs_and_prints_what_is_shown(name, folder, library):
    run(name, folder, {})


def _with_the_example_network(folder: Path, samples: dict[str, np.ndarray], qcfs_resnet: Path) -> dict[str, Any]:
    for name in ("model.onnx", "resnet20-qcfs8.onnx"):
        (folder / name).symlink_to(qcfs_resnet)
    rewrite("model.onnx", "snn.onnx")
    few = {name: values[:8] for name, values in samples.items()}
    np.savez("images.npz", **few)
    return {"images": few["image"]}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["docs/running.md", "docs/integers.md", "docs/scale-out.md", "docs/gpu.md"])
def test_python_on_the_example_network_runs(name, folder, resnet_samples, qcfs_resnet, library):
    names = {"pconv_onnx": __import__("pconv_onnx"), **_with_the_example_network(folder, resnet_samples, qcfs_resnet)}
    run(name, folder, names)


@pytest.mark.slow
def test_python_of_the_benchmark_runs(folder, small_network, library):
    onnx.save(small_network, "model.onnx")
    np.savez("images.npz", x=np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float32))
    run("docs/benchmark.md", folder, {"pconv_onnx": __import__("pconv_onnx")})
    assert (folder / "report" / "index.html").exists()


@pytest.mark.slow
def test_python_from_pytorch_runs(folder):
    torch = pytest.importorskip("torch")
    layers = torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(72, 3)
    images = torch.rand(4, 1, 8, 8)
    names = {"relu_model": torch.nn.Sequential(*layers), "images": images, "train": lambda model: model.train()(images)}
    run("docs/pytorch.md", folder, names)
    assert (folder / "snn.onnx").exists()


@pytest.mark.parametrize("name", NAMES)
def test_every_command_line_has_arguments_that_the_command_takes(name):
    text = (ROOT / name).read_text()
    indented = re.findall(r"^    (?:\$ )?(pconv-onnx [a-z].*)$", text, re.MULTILINE)
    fenced = "".join(re.findall(r"^```.*\n((?:.*\n)*?)```$", text, re.MULTILINE))
    lines = indented + re.findall(r"^(?:\$ |!)?(pconv-onnx [a-z].*)$", fenced, re.MULTILINE)
    for line in lines:
        plain = re.sub(r" #.*| && .*|[\[\]]", "", line)
        parser().parse_args(shlex.split(plain)[1:])


def _anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower().strip()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


@pytest.mark.parametrize("name", NAMES)
def test_every_link_within_the_repository_leads_somewhere(name):
    page = ROOT / name
    prose = re.sub(r"^(```|~~~).*?^\1$|`[^`\n]*`", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path) if path else page
        assert there.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE)
            assert anchor in map(_anchor, headings), target


def test_every_page_with_python_runs_it():
    """A new page with Python is added to one of the tests above."""
    source = Path(__file__).read_text()
    for name in NAMES:
        assert f'"{name}"' in source or "python" not in {language for language, _ in blocks(name)}, name


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "index.md").read_text()
    linked = {str((ROOT / "docs" / path).resolve()) for path in re.findall(r"\]\(([^)#\s]+\.md)\)", index)}
    listed = {
        str((ROOT / "docs" / f"{line}.md").resolve())
        for tree in re.findall(r"^```\{toctree\}\n(.*?)^```$", index, re.MULTILINE | re.DOTALL)
        for line in tree.splitlines()
        if line and not line.startswith(":")
    }
    pages = {str(page) for page in ROOT.glob("docs/**/*.md")} - {str(ROOT / "docs" / "index.md")}
    assert pages <= listed
    assert pages <= linked


def _results(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "benchmarks" / "results" / name).read_text())


def _figures() -> Iterator[str]:
    """The cells of the README's table, as the raw files have them."""
    by_steps = {
        mode: {row["steps"]: f"{row['top1']:.1%}".replace("%", " %") for row in result["rows"]}
        for mode, result in _results("accuracy.json")["results"].items()
    }
    yield f"| {by_steps['folded'][4]}, {by_steps['folded'][8]} |"
    yield f"{by_steps['serial'][4]}, {by_steps['serial'][8]} |"
    yield f"ANN {_results('accuracy.json')['results']['folded']['ann']['top1']:.1%}".replace("%", " %")

    entries = [entry for entry in _results("products.json")["entries"] if entry["network"] == "resnet20-relu"]
    (five,) = (entry for entry in entries if entry["steps"] == 5)
    energy, top1 = five["answers"].get("energy_ratio", five.get("energy_ratio")), five["answers"]["top1"]
    yield f"{five['spike_driven']['share']:.0%}, {energy:.2f} × the ANN's energy, accuracy {top1:.1%}".replace(
        "%", " %"
    )

    rows = [row for row in _results("peers.json")["rows"] if row["steps"] == 8]

    def best(batch: int, name: str) -> float:
        return min(row["median_ms"] for row in rows if row["batch"] == batch and row["name"] == name)

    paper, jelly = "the paper's formulas", "SpikingJelly"
    yield f"{best(1, 'parallel'):.1f} ms | {paper} in PyTorch {best(1, paper):.1f} ms, {jelly} {best(1, jelly):.1f} ms"
    yield f"{best(32, 'parallel'):.0f} ms | {best(32, paper):.0f} ms, {best(32, jelly):.0f} ms; "
    yield f"stepping in onnxruntime {best(32, 'serial'):.0f} ms"

    (entry,) = (
        entry
        for entry in _results("integer-execution.json")["entries"]
        if entry["network"] == "resnet20" and entry["machine"]["threads"] == 1
    )
    for name, form in (("integer, avx512vnni", "{:.2f} to {:.2f} ×"), ("ANN, stock int8", "{:.2f} to {:.2f} ×")):
        ratios = [row["ratio"] for table in entry["tables"] for row in table["rows"] if row["name"] == name]
        yield form.format(min(ratios), max(ratios))


@pytest.mark.parametrize("figure", list(_figures()))
def test_the_readme_has_the_figures_of_the_raw_files(figure):
    assert figure in (ROOT / "README.md").read_text()


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().split()) <= 900
