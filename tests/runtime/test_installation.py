"""`doctor`: all is well here, and what is not is told with a remedy."""

from __future__ import annotations

import json
import re
import sys
from configparser import ConfigParser
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from pconv_onnx import doctor
from pconv_onnx.cli.main import main
from pconv_onnx.operators import library as native
from pconv_onnx.runtime import installation

NAME = native.LIBRARY_NAME


def test_an_installation_with_a_working_library_has_no_problems(library):
    summary = doctor()
    assert summary["problems"] == []
    assert summary["library"] == {"path": str(library), "cpu": True, "cuda": native.has_cuda_kernels()}
    assert summary["providers"] == onnxruntime.get_available_providers()
    assert main(["doctor"]) == 0


def test_the_document_has_the_promised_keys(capsys):
    main(["doctor", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert isinstance(document["onnxruntime"], str)
    assert all(isinstance(provider, str) for provider in document["providers"])
    assert document["library"].keys() == {"path", "cpu", "cuda"}
    assert isinstance(document["library"]["path"], str | None)
    assert isinstance(document["library"]["cpu"], bool) and isinstance(document["library"]["cuda"], bool)
    assert all(isinstance(problem, str) for problem in document["problems"])


def test_extras_are_those_of_the_package_and_missing_ones_are_no_problem(monkeypatch, capsys):
    parser = ConfigParser()
    parser.read(Path(__file__).parents[2] / "setup.cfg")
    packages = {
        extra: {re.split(r"[>=;\[ ]", line)[0] for line in lines.split("\n") if line}
        for extra, lines in parser["options.extras_require"].items()
        if extra not in ("cpu", "gpu", "docs", "test")
    }
    installed = installation.installed
    monkeypatch.setattr(installation, "installed", lambda name: None if name in packages["data"] else installed(name))
    summary = doctor()
    assert packages == {extra: set(names) for extra, (_, names) in installation._EXTRAS.items()}
    assert set(summary["extras"]["data"]["missing"]) == {"pillow", "pyarrow"}
    assert summary["problems"] == []
    main(["doctor"])
    assert re.search(r"^\[data\] .*pip install 'pconv-onnx\[data\]'$", capsys.readouterr().out, re.MULTILINE)


def test_a_missing_library_is_a_problem(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(native, "_LIBRARY_FOLDER", tmp_path)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "library      missing\nkernels      CPU: no, CUDA: no\n" in out
    assert "problem: this installation of pconv-onnx has no native library; " in out
    assert "reinstall" in out
    summary = doctor()
    assert summary["library"] == {"path": None, "cpu": False, "cuda": False}
    assert len(summary["problems"]) == 1


@pytest.mark.parametrize("content", [None, b"", b"\xff", b"[]", b"{}", b'{"providers": null}'])
def test_a_library_copied_without_the_facts_of_its_build_is_a_problem(content, library, monkeypatch, tmp_path):
    (tmp_path / NAME).symlink_to(library)
    facts = tmp_path / native._FACTS_NAME
    if content is not None:
        facts.write_bytes(content)
    monkeypatch.setattr(native, "_LIBRARY_FOLDER", tmp_path)
    summary = doctor()
    assert summary["library"] == {"path": str(tmp_path / NAME), "cpu": True, "cuda": False}
    (problem,) = summary["problems"]
    assert problem.startswith(f"'{facts}' is missing or damaged: ")
    assert "reinstall pconv-onnx, or copy that file too" in problem


@pytest.mark.parametrize("content", [b"", b"not a library", b"\x7fELF" + bytes(100)])
def test_a_library_that_does_not_load_is_a_problem(content, monkeypatch, tmp_path):
    (tmp_path / NAME).write_bytes(content)
    monkeypatch.setattr(native, "_LIBRARY_FOLDER", tmp_path)
    summary = doctor()
    assert summary["library"] == {"path": str(tmp_path / NAME), "cpu": False, "cuda": False}
    (problem,) = summary["problems"]
    assert problem.startswith(f"onnxruntime cannot load {tmp_path / NAME}: ")
    assert problem.endswith("; reinstall pconv-onnx on this machine")
    assert len(problem.splitlines()) == 1


def test_a_kernel_that_gives_wrong_values_is_a_problem(library, monkeypatch):
    monkeypatch.setattr(installation, "reference", lambda **arguments: np.zeros(1))
    summary = doctor()
    assert summary["library"]["cpu"] is False
    assert summary["problems"] == [f"{library} gives wrong values on this machine; reinstall pconv-onnx"]


def test_a_kernel_that_does_not_run_is_a_problem(library, monkeypatch):
    # Without its registration nothing knows the operator.
    monkeypatch.setattr(installation, "register", lambda options: options)
    (problem,) = doctor()["problems"]
    assert problem.startswith(f"the kernel of {library} does not run: ")


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("built_in, told", [(True, "built in"), (False, "no")])
def test_cuda_kernels_that_nothing_can_run_here_are_said_to_be_there(built_in, told, monkeypatch, capsys):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(installation, "has_cuda_kernels", lambda: built_in)
    assert main(["doctor"]) == 0
    assert f"kernels      CPU: works, CUDA: {told}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "built_in, problem",
    [
        (False, "has no CUDA kernels; install the CUDA toolkit and reinstall pconv-onnx"),
        (True, "onnxruntime's 'CUDAExecutionProvider' does not start on this machine; onnxruntime has logged why"),
    ],
)
@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_cuda_provider_without_kernels_or_gpu_is_a_problem(library, built_in, problem, monkeypatch):
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    # Whatever this onnxruntime has, it starts on the CPU.
    make = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda *positional, providers: make(*positional, providers=providers[1:] or None),
    )
    monkeypatch.setattr(installation, "has_cuda_kernels", lambda: built_in)
    summary = doctor()
    assert summary["library"] == {"path": str(library), "cpu": True, "cuda": built_in}
    (found,) = summary["problems"]
    assert found.endswith(problem)


def test_a_missing_onnxruntime_is_a_problem(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["doctor", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["onnxruntime"], document["providers"]) == (None, [])
    assert "onnxruntime cannot be imported" in document["problems"][0]
    assert "pip install 'pconv-onnx[cpu]'" in document["problems"][0]


def test_two_onnxruntimes_in_one_place_are_a_problem(monkeypatch):
    monkeypatch.setattr(installation, "installed", lambda package: "1.32.0")
    assert "onnxruntime and onnxruntime-gpu provide one module" in doctor()["problems"][0]
