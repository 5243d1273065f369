"""Bundles run without pconv-onnx, in Python and in C++, with the outputs of an ordinary session."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from networks import MODES, network, qcfs, weight

from pconv_onnx import SerialSession, deploy, register, rewrite

pytestmark = pytest.mark.usefixtures("library")


@pytest.fixture
def bundle(snn, tmp_path) -> Path:
    deploy(snn, tmp_path / "bundle")
    return tmp_path / "bundle"


def run(folder: Path, *arguments, missing: str = "pconv_onnx") -> subprocess.CompletedProcess[str]:
    """run.py in a Python in which a package, by default pconv_onnx, cannot be imported."""
    code = f"import runpy, sys; sys.modules['{missing}'] = None; del sys.argv[0]; "
    code += "runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", code, folder / "run.py", *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True)


def ordinary(model, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs of onnxruntime with the library, as bundles open it."""
    runner = onnxruntime.InferenceSession(model, register(onnxruntime.SessionOptions()))
    return runner.run(None, feed)


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 3, 8, 8)).astype(np.float32)


def test_run_gives_the_outputs_of_an_ordinary_session(bundle, snn, tmp_path):
    np.savez(tmp_path / "in.npz", x=images(5))
    done = run(bundle, tmp_path / "in.npz", "-o", tmp_path / "out.npz")
    assert done.returncode == 0, done.stderr
    (expected,) = ordinary(snn, {"x": images(5)})
    np.testing.assert_array_equal(np.load(tmp_path / "out.npz")["y"], expected)
    assert done.stdout == f"y float32 [5, 5], top-1 {' '.join(map(str, expected.argmax(1)))}\n"


def test_run_needs_no_inputs(bundle):
    done = run(bundle)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("y float32 [1, 5], top-1 ")


@pytest.fixture
def serial(tmp_path) -> Path:
    """A serial network of two layers; without max pooling, which has no serial form."""
    nodes = f"c = Conv (x, w) {qcfs('c', 'a')} d = Conv (a, v) {qcfs('d', 'y')}"
    weights = {"w": 4 * weight(4, 3, 3, 3), "v": 2 * weight(2, 4, 2, 2, seed=1)}
    path = tmp_path / "serial.onnx"
    rewrite(network(nodes, outputs="float[N, 2, 5, 5] y", weights=weights), path, mode="serial")
    return path


def test_a_serial_network_is_stepped_and_its_manifest_says_how(serial, tmp_path):
    deploy(serial, tmp_path / "bundle")
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    assert manifest["mode"] == "serial"
    names = {kind: {tensor["name"] for tensor in manifest[kind]} for kind in ("inputs", "outputs")}
    assert len(manifest["potentials"]) == 2
    assert set(manifest["potentials"]) == names["inputs"] - {"x"}
    assert set(manifest["potentials"].values()) == names["outputs"] - {"y"}
    np.savez(tmp_path / "in.npz", x=images(5))
    done = run(tmp_path / "bundle", tmp_path / "in.npz", "-o", tmp_path / "out.npz")
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "out.npz") as found:
        assert list(found) == ["y"]
        assert found["y"].dtype == np.float32
        np.testing.assert_allclose(found["y"], SerialSession(serial).run(None, {"x": images(5)})[0], rtol=1e-6)


def test_the_manifest_describes_the_network(bundle):
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["format"] == 1
    assert (manifest["mode"], manifest["steps"], manifest["potentials"]) == ("parallel", 4, {})
    assert manifest["inputs"] == [{"name": "x", "type": "float32", "shape": ["N", 3, 8, 8]}]
    assert manifest["outputs"] == [{"name": "y", "type": "float32", "shape": ["N", 5]}]
    assert manifest["operators"] == ["pconv::ParallelSpike"]
    written = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    assert set(manifest["files"]) == written - {"manifest.json"}


@pytest.mark.parametrize("name", ["model.onnx", "libpconv_ops.so", "run.py", "cpp/main.cpp"])
def test_a_changed_file_is_refused(bundle, name):
    with (bundle / name).open("ab") as file:
        file.write(b"\n")
    done = run(bundle)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"run.py: {name} is not the file that was deployed")


def test_a_missing_file_is_refused(bundle):
    (bundle / "model.onnx").unlink()
    assert run(bundle).stderr == "run.py: model.onnx is missing; copy the whole bundle again\n"


def require_one_line(done: subprocess.CompletedProcess[str], told: str) -> None:
    """A program that ended with a fault: it told so in one line, and printed nothing else."""
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("run.py: ")
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def change(bundle: Path, **entries) -> None:
    """Other entries in the manifest."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps(manifest | entries))


def replace(bundle: Path, name: str, content: bytes) -> None:
    """Another file, with its hash in the manifest."""
    (bundle / name).write_bytes(content)
    files = json.loads((bundle / "manifest.json").read_text())["files"]
    change(bundle, files=files | {name: hashlib.sha256(content).hexdigest()})


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("format", 2, "the manifest has format 2"),
        ("platform", {"system": "Plan 9", "machine": "mips"}, "the library is for"),
        ("onnxruntime", ">=99.0", "99.0 or newer is needed"),
        ("providers", [], "has kernels for"),
        ("library", "../other.so", "has no hash of ../other.so"),
        ("model", "other.onnx", "has no hash of other.onnx"),
        ("files", {"model.onnx": "", "libpconv_ops.so": "", "../other": ""}, "is not the file that was deployed"),
        ("files", {"../other": "", "model.onnx": "", "libpconv_ops.so": ""}, "which is outside of the bundle"),
        ("files", None, "manifest.json cannot be read"),
    ],
)  # fmt: skip
def test_a_bundle_for_elsewhere_is_refused(bundle, key, value, told):
    change(bundle, **{key: value})
    require_one_line(run(bundle), told)


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b'{"format": 1}', b"\xff"])
def test_a_manifest_that_cannot_be_read_is_refused(content, bundle):
    (bundle / "manifest.json").unlink()
    if content is not None:
        (bundle / "manifest.json").write_bytes(content)
    require_one_line(run(bundle), "manifest.json cannot be read")


@pytest.mark.parametrize("name", ["model.onnx", "libpconv_ops.so"])
def test_what_onnxruntime_does_not_load_is_told(name, bundle):
    replace(bundle, name, b"neither a model nor a library")
    require_one_line(run(bundle), "does not load the network or its library")


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"y": np.zeros(1)}, "the input 'x' is missing; the arrays given are y"),
        ({"x": np.zeros((1, 2))}, "the network does not run on these inputs"),
        ({"x": np.array(["text"])}, "could not convert string"),
    ],
)
def test_inputs_that_do_not_fit_are_told(arrays, told, bundle, tmp_path):
    np.savez(tmp_path / "in.npz", **arrays)
    require_one_line(run(bundle, tmp_path / "in.npz"), told)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("none.npz", "cannot be read as .npz: [Errno 2] No such file"),
        ("text.npz", "text.npz' is not an .npz archive\n"),
        ("array.npy", "array.npy' is not an .npz archive\n"),
        ("cut.npz", "cannot be read as .npz: File is not a zip file"),
    ],
)
def test_inputs_that_cannot_be_read_are_told(name, told, bundle, tmp_path):
    (tmp_path / "text.npz").write_text("text")
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "cut.npz").write_bytes(b"PK\3\4 cut short")
    require_one_line(run(bundle, tmp_path / name), told)


@pytest.mark.parametrize("package", ["numpy", "onnxruntime"])
def test_a_package_that_is_missing_is_told(package, bundle):
    require_one_line(run(bundle, missing=package), f"run.py: {package} ")


def test_a_provider_that_onnxruntime_was_not_built_with_is_told(bundle):
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has it")
    change(bundle, providers=["cpu", "cuda"])
    require_one_line(run(bundle, "--provider", "cuda"), "the onnxruntime installed here has no CUDAExecutionProvider")


def test_outputs_that_cannot_be_written_are_told(bundle, tmp_path):
    done = run(bundle, "-o", tmp_path / "none" / "out.npz")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "cannot write" in done.stderr


@pytest.fixture(scope="module")
def onnxruntime_library() -> Path:
    found = sorted(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so*"))
    if not found:
        pytest.skip("this onnxruntime package has no libonnxruntime.so")
    return found[0]


@pytest.fixture(scope="module")
def program(onnxruntime_library, small_network, library, tmp_path_factory) -> Path:
    """The C++ program of a bundle, built as its user would; it is the same in every bundle."""
    if shutil.which(os.environ.get("CXX", "c++")) is None:
        pytest.skip("no C++ compiler")
    cmake = os.path.join(pytest.importorskip("cmake").CMAKE_BIN_DIR, "cmake")
    ninja = os.path.join(pytest.importorskip("ninja").BIN_DIR, "ninja")
    bundle, build = tmp_path_factory.mktemp("bundle"), tmp_path_factory.mktemp("build")
    deploy(rewrite(small_network).model, bundle)
    options = [f"-DONNXRUNTIME_LIBRARY={onnxruntime_library}", "-DCMAKE_CXX_FLAGS=-Werror"]
    configure = [cmake, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}", "-S", bundle / "cpp", "-B", build, *options]
    for command in (configure, [cmake, "--build", build]):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return build / "run_snn"


def run_cpp(program: Path, bundle: Path, results: Path, *arrays: np.ndarray) -> list[np.ndarray]:
    """The outputs of the C++ program on these inputs."""
    results.mkdir()
    paths = [results / f"input{index}.npy" for index in range(len(arrays))]
    for path, array in zip(paths, arrays, strict=True):
        np.save(path, array)
    command = [program, bundle / "model.onnx", bundle / "libpconv_ops.so", results, *paths]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [np.load(results / f"{index}.npy") for index in range(len(done.stdout.splitlines()))]


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_in_cpp_the_example_network_has_the_bits_that_it_has_in_python(
    mode, program, qcfs_resnet, resnet_samples, tmp_path
):
    rewrite(qcfs_resnet, tmp_path / "snn.onnx", mode=mode)
    deploy(tmp_path / "snn.onnx", tmp_path / "bundle")
    feed = {"image": resnet_samples["image"][:20]}
    (found,) = run_cpp(program, tmp_path / "bundle", tmp_path / "results", feed["image"])
    np.testing.assert_array_equal(found, ordinary(tmp_path / "snn.onnx", feed)[0])


@pytest.mark.slow
def test_in_cpp_a_serial_network_is_stepped_by_passing_its_potentials_on(program, serial, tmp_path):
    deploy(serial, tmp_path / "bundle")
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    inputs, outputs = ([tensor["name"] for tensor in manifest[kind]] for kind in ("inputs", "outputs"))
    potentials = {"a": np.zeros((2, 4, 6, 6), np.float32), "b": np.zeros((2, 2, 5, 5), np.float32)}
    feed = dict(zip(inputs, [images(2), *potentials.values()], strict=True))
    for step in ("first", "second"):
        found = run_cpp(program, tmp_path / "bundle", tmp_path / step, *feed.values())
        expected = ordinary(serial, feed)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)
        given = dict(zip(outputs, found, strict=True))
        feed |= {before: given[after] for before, after in manifest["potentials"].items()}
    assert any(array.any() for name, array in feed.items() if name != "x")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "usage: run_snn"),
        (["model.onnx", "libpconv_ops.so", ".", "none.npy"], "none.npy cannot be read"),
        (["model.onnx", "libpconv_ops.so", ".", "run.py"], "run.py cannot be read, or is no .npy file"),
        (["model.onnx", "libpconv_ops.so", ".", "a", "b"], "one .npy file is needed for each input: x"),
        (["none.onnx", "none.so", "nowhere", "a"], "there is no folder nowhere; make it"),
        (["none.onnx", "libpconv_ops.so", ".", "a"], "none.onnx"),
        (["model.onnx", "none.so", ".", "a"], "none.so"),
    ],
)
def test_in_cpp_faults_are_told(arguments, told, program, bundle):
    done = subprocess.run([program, *arguments], cwd=bundle, capture_output=True, text=True)
    assert done.returncode in (1, 2)
    assert told in done.stderr
