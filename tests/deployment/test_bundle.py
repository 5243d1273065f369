"""Bundles run without pconv-onnx, in Python and in C++, with the outputs of an ordinary session."""

from __future__ import annotations

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


def run(folder: Path, *arguments) -> subprocess.CompletedProcess[str]:
    """run.py in a Python in which pconv_onnx cannot be imported."""
    code = "import runpy, sys; sys.modules['pconv_onnx'] = None; del sys.argv[0]; "
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


def test_a_serial_network_is_stepped_and_its_manifest_says_how(tmp_path):
    # Without max pooling, which has no serial form.
    nodes = f"c = Conv (x, w) {qcfs('c', 'a')} d = Conv (a, v) {qcfs('d', 'y')}"
    weights = {"w": 4 * weight(4, 3, 3, 3), "v": 2 * weight(2, 4, 2, 2, seed=1)}
    serial = tmp_path / "serial.onnx"
    rewrite(network(nodes, outputs="float[N, 2, 5, 5] y", weights=weights), serial, mode="serial")
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


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("format", 2, "the manifest has format 2"),
        ("platform", {"system": "Plan 9", "machine": "mips"}, "the library is for"),
        ("onnxruntime", ">=99.0", "99.0 or newer is needed"),
        ("providers", [], "has kernels for"),
    ],
)
def test_a_bundle_for_elsewhere_is_refused(bundle, key, value, told):
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps(manifest | {key: value}))
    done = run(bundle)
    assert done.returncode == 1
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.fixture(scope="module")
def onnxruntime_library() -> Path:
    found = sorted(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so*"))
    if not found:
        pytest.skip("this onnxruntime package has no libonnxruntime.so")
    return found[0]


@pytest.fixture(scope="module")
def program(onnxruntime_library, tmp_path_factory):
    """The C++ program of a bundle, built as its user would."""
    if shutil.which(os.environ.get("CXX", "c++")) is None:
        pytest.skip("no C++ compiler")
    cmake = os.path.join(pytest.importorskip("cmake").CMAKE_BIN_DIR, "cmake")
    ninja = os.path.join(pytest.importorskip("ninja").BIN_DIR, "ninja")

    def program(bundle: Path) -> Path:
        build = tmp_path_factory.mktemp("build")
        options = [f"-DONNXRUNTIME_LIBRARY={onnxruntime_library}", "-DCMAKE_CXX_FLAGS=-Werror"]
        configure = [cmake, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}", "-S", bundle / "cpp", "-B", build, *options]
        for command in (configure, [cmake, "--build", build]):
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
        return build / "run_snn"

    return program


@pytest.mark.slow
def test_in_cpp_the_example_network_has_the_bits_that_it_has_in_python(program, qcfs_resnet, resnet_samples, tmp_path):
    built = None
    for mode in MODES:
        folder = tmp_path / mode
        rewrite(qcfs_resnet, tmp_path / f"{mode}.onnx", mode=mode)
        deploy(tmp_path / f"{mode}.onnx", folder)
        built = built or program(folder)
        feed = {"image": resnet_samples["image"][:20]}
        np.save(tmp_path / "image.npy", feed["image"])
        command = [built, folder / "model.onnx", folder / "libpconv_ops.so", folder, tmp_path / "image.npy"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found = np.load(folder / "0.npy")
        (expected,) = ordinary(folder / "model.onnx", feed)
        np.testing.assert_array_equal(found, expected)
    for arguments, told in (
        ([], "usage: run_snn"),
        ([folder / "model.onnx", folder / "libpconv_ops.so", folder, tmp_path / "none.npy"], "cannot be read"),
        ([folder / "model.onnx", folder / "libpconv_ops.so", folder, "a", "b"], "one .npy file is needed for each"),
        ([folder / "none.onnx", folder / "libpconv_ops.so", folder, "a"], "none.onnx"),
    ):
        done = subprocess.run([built, *arguments], capture_output=True, text=True)
        assert done.returncode != 0
        assert told in done.stderr
