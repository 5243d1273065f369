"""`deploy`: the folder appears whole or not at all, and refusals say what to do."""

from __future__ import annotations

import configparser
import json
from pathlib import Path

import onnx
import pytest
from refusals import refusal_of

from pconv_onnx import deploy, rewrite
from pconv_onnx.basics.domain import MIN_ONNXRUNTIME
from pconv_onnx.cli.main import main
from pconv_onnx.deployment import TARGETS, deploying
from pconv_onnx.deployment.bundle import target as bundle
from pconv_onnx.deployment.target import Contents
from pconv_onnx.operators import library as native

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("library")


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("target", ["bundle", "triton"])
def test_the_command_writes_what_it_says(target, snn, tmp_path, capsys):
    assert main(["deploy", str(snn), "-o", str(tmp_path / "new" / "out"), "--target", target, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    written = [path for path in (tmp_path / "new" / "out").rglob("*") if path.is_file()]
    assert document["files"] == sorted(path.relative_to(tmp_path / "new" / "out").as_posix() for path in written)
    assert document["target"] == target
    assert "cpu" in document["providers"]
    assert left(tmp_path / "new") == ["out"]


def test_an_empty_folder_is_filled_and_stays_as_open_to_others_as_a_new_one(snn, tmp_path):
    folder, other = tmp_path / "out", tmp_path / "other"
    folder.mkdir()
    other.mkdir()
    deploy(snn, folder)
    assert (folder / "manifest.json").is_file()
    assert folder.stat().st_mode == other.stat().st_mode


def test_a_folder_with_files_is_left_alone(snn, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "mine").write_text("mine")
    assert "is not empty; name a new folder" in refusal_of(deploy, snn, folder)
    assert left(folder) == ["mine"]


def test_a_file_is_no_folder(snn, tmp_path):
    (tmp_path / "out").write_text("mine")
    assert "it exists and is not a folder" in refusal_of(deploy, snn, tmp_path / "out")


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_is_left_where_writing_fails(target, snn, tmp_path, monkeypatch):
    contents = Contents({"first": b"1", "second": tmp_path / "not there"})
    monkeypatch.setattr(type(deploying.TARGETS[target]), "contents", lambda self, packed, gpu: contents)
    before = left(tmp_path)
    assert "cannot write" in refusal_of(deploy, snn, tmp_path / "out", target=target)
    assert left(tmp_path) == before


@pytest.mark.parametrize("target", TARGETS)
def test_a_model_that_was_not_rewritten_is_refused(target, ann, tmp_path):
    assert "is no spiking network; rewrite it first" in refusal_of(deploy, ann, tmp_path / "out", target=target)
    assert not (tmp_path / "out").exists()


def test_an_unknown_target_is_refused(snn, tmp_path):
    assert (
        refusal_of(deploy, snn, tmp_path / "out", target="tvm")
        == "'tvm' is no target; choose one of bundle, triton, nir, c"
    )


@pytest.mark.parametrize("target", ["bundle", "triton"])
def test_without_a_library_the_rest_is_written_and_what_is_missing_is_told(target, snn, tmp_path, monkeypatch):
    monkeypatch.setattr(native, "_LIBRARY_FOLDER", tmp_path / "nowhere")
    result = deploy(snn, tmp_path / "out", target=target)
    assert (result.providers, [file for file in result.files if file.endswith(".so")]) == ([], [])
    (note,) = result.notes
    assert "no native library" in note and "install a C++ compiler" in note
    assert not any("libpconv_ops" in path.read_text() for path in (tmp_path / "out").rglob("*.pbtxt"))
    assert "no CUDA kernels" in refusal_of(deploy, snn, tmp_path / "gpu", target="triton", gpu=True)


def test_a_gpu_needs_cuda_kernels(snn, tmp_path, monkeypatch):
    monkeypatch.setattr("pconv_onnx.deployment.package.has_cuda_kernels", lambda: False)
    assert "has no CUDA kernels" in refusal_of(deploy, snn, tmp_path / "out", target="triton", gpu=True)
    assert "leave out `gpu=True`" in refusal_of(deploy, snn, tmp_path / "out", target="bundle", gpu=True)
    deploy(snn, tmp_path / "out", target="triton")


def test_external_data_travel_with_their_model(ann, tmp_path):
    model = rewrite(ann).model
    apart = tmp_path / "apart"
    apart.mkdir()
    onnx.save(model, apart / "snn.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    deploy(apart / "snn.onnx", tmp_path / "out")
    assert (tmp_path / "out" / "weights.bin").read_bytes() == (apart / "weights.bin").read_bytes()
    hashes = json.loads((tmp_path / "out" / "manifest.json").read_text())["files"]
    assert "weights.bin" in hashes
    deploy(apart / "snn.onnx", tmp_path / "triton", target="triton")
    assert (tmp_path / "triton" / "snn" / "1" / "weights.bin").is_file()
    assert onnx.load(tmp_path / "triton" / "snn" / "1" / "model.onnx").graph == onnx.load(apart / "snn.onnx").graph


@pytest.mark.parametrize("name", ["model.onnx", "run.py", "manifest.json"])
def test_external_data_that_would_be_overwritten_are_refused(name, ann, tmp_path):
    apart = tmp_path / "apart"
    apart.mkdir()
    onnx.save(rewrite(ann).model, apart / "snn.onnx", save_as_external_data=True, location=name, size_threshold=0)
    assert name in refusal_of(deploy, apart / "snn.onnx", tmp_path / "out")


def test_a_model_in_memory_is_written(ann, tmp_path):
    model = rewrite(ann).model
    deploy(model, tmp_path / "out")
    assert onnx.load(tmp_path / "out" / "model.onnx") == model


def test_the_oldest_onnxruntime_is_the_one_that_is_asked_for_at_installation():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    assert f"onnxruntime>={MIN_ONNXRUNTIME}" in parser["options.extras_require"]["cpu"]


def test_the_header_of_a_bundle_is_that_of_the_library():
    packed = (Path(bundle.__file__).parent / "cpp/pconv/ort_abi.h").read_bytes()
    assert packed == (ROOT / "custom_ops/include/pconv/ort_abi.h").read_bytes()
