"""Bundles run without pconv-onnx, in Python and in C++, with the outputs of an ordinary session."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import pytest
from networks import MODES, network, qcfs, weight

from pconv_onnx import SerialSession, deploy, register, rewrite
from pconv_onnx.operators import library as native

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
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60)


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


def test_without_a_library_run_gives_what_function_bodies_give(snn, tmp_path, monkeypatch):
    monkeypatch.setattr(native, "_LIBRARY_FOLDER", tmp_path / "nowhere")
    deploy(snn, tmp_path / "bundle")
    np.savez(tmp_path / "in.npz", x=images(5))
    done = run(tmp_path / "bundle", tmp_path / "in.npz", "-o", tmp_path / "out.npz")
    assert done.returncode == 0, done.stderr
    (expected,) = onnxruntime.InferenceSession(snn).run(None, {"x": images(5)})
    np.testing.assert_array_equal(np.load(tmp_path / "out.npz")["y"], expected)


def coded(dtype, mode, precision, folder: Path) -> Path:
    """A bundle of a network whose trains are radix, signed where the codes are, and encoded again."""
    nodes = """c = Conv (x, w) q = QuantizeLinear (c, s, k) a = DequantizeLinear (q, s, k)
        m = MaxPool <kernel_shape = [2, 2]> (a) p = Conv (m, v) y = Flatten (p)"""
    weights = {"w": weight(4, 3, 3, 3), "v": weight(5, 4, 5, 5, seed=1), "s": np.float32(0.02)}
    ann = network(nodes, outputs="float[N, 5] y", weights=weights | {"k": np.zeros((), dtype)})
    snn = rewrite(ann, folder / "snn.onnx", mode=mode, precision=precision)
    (coding,) = {neuron.coding.name for neuron in snn.plan.neurons.values()}
    assert coding == "radix"
    deploy(folder / "snn.onnx", folder / "bundle")
    return folder / "bundle"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("precision", [None, "float16"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_run_gives_the_outputs_of_coded_networks(dtype, precision, mode, tmp_path):
    bundle = coded(dtype, mode, precision, tmp_path)
    np.savez(tmp_path / "in.npz", x=images(5))
    done = run(bundle, tmp_path / "in.npz", "-o", tmp_path / "out.npz")
    assert done.returncode == 0, done.stderr
    (expected,) = ordinary(str(tmp_path / "snn.onnx"), {"x": images(5)})
    np.testing.assert_array_equal(np.load(tmp_path / "out.npz")["y"], expected)


INTEGERS = {"weights": "int8", "input_bits": 8, "input_range": (-3, 3)}


def test_run_gives_the_bits_of_integers_whatever_the_mode(ann, tmp_path):
    outputs = []
    for mode in ("parallel", "folded", "integer"):
        rewrite(ann, tmp_path / f"{mode}.onnx", mode=mode, **INTEGERS)
        deploy(tmp_path / f"{mode}.onnx", tmp_path / mode)
        for count in (5, 1):
            np.savez(tmp_path / "in.npz", x=images(5)[:count])
            done = run(tmp_path / mode, tmp_path / "in.npz", "-o", tmp_path / "out.npz")
            assert done.returncode == 0, done.stderr
            outputs.append(np.load(tmp_path / "out.npz")["y"])
    assert np.unique(outputs[0]).size > 5
    for found in outputs:
        assert found.tobytes() == outputs[0][: len(found)].tobytes()


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
    assert done.stderr.endswith("\n")
    assert done.stderr[:-1].isprintable()
    assert len(done.stderr) < 1100


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
        ("files", {"model.onnx": "", "libpconv_ops.so": "", "C:other": ""}, "is not the file that was deployed"),
        ("files", {"\x1b]0;x\n" * 500: "", "model.onnx": "", "libpconv_ops.so": ""}, "\\x1b]0;x \\x1b]0;x"),
    ],
)  # fmt: skip
def test_a_bundle_for_elsewhere_is_refused(bundle, key, value, told):
    change(bundle, **{key: value})
    require_one_line(run(bundle), told)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"5", b'{"format": 1}', b"\xff", b"[" * 100_000, b'{"a":' * 100_000, b"9" * 10_000,
     b'{"format": 1, "format": 1}'],
)  # fmt: skip
def test_a_manifest_that_cannot_be_read_is_refused(content, bundle):
    (bundle / "manifest.json").write_bytes(content)
    require_one_line(run(bundle), "manifest.json cannot be read")


@pytest.fixture
def module(bundle) -> ModuleType:
    """run.py as a module."""
    spec = importlib.util.spec_from_file_location("run_of_bundle", bundle / "run.py")
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    return program


def ending(function: Callable, *arguments) -> str:
    """The one line with which the program ends in a call."""
    with pytest.raises(SystemExit) as ended:
        function(*arguments)
    told = ended.value.code
    assert told.startswith("run.py: ")
    assert told.isprintable()
    return told


def tensor(**entries) -> list[dict]:
    return [{"name": "x", "type": "float32", "shape": ["N", 3, 8, 8]} | entries]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pconv_onnx", 1), ("mode", ""), ("opsets", {"ai.onnx": "17"}), ("opsets", []), ("operators", [1]),
        ("onnxruntime", 1.2), ("onnxruntime", ">=x"), ("onnxruntime", ">=" + "9" * 5000 + ".0"),
        ("platform", None), ("platform", {"system": 1, "machine": 2}), ("model", 5), ("model", ["model.onnx"]),
        ("library", {}), ("library", "no\0name"), ("providers", "cpu"), ("providers", None), ("providers", [["cpu"]]),
        ("steps", 0), ("steps", -1), ("steps", "4"), ("steps", True), ("steps", 10**30),
        ("potentials", None), ("potentials", {"x": 1}), ("potentials", {"x": "nothing"}), ("potentials", {"z": "y"}),
        ("potentials", ["x"]), ("inputs", None), ("inputs", {}), ("inputs", [None]), ("inputs", [{"name": "x"}]),
        ("inputs", tensor() * 2), ("inputs", tensor(name=3)), ("inputs", tensor(name="\ud800")),
        ("inputs", tensor(type=None)), ("inputs", tensor(shape=3)), ("inputs", tensor(shape=[-1, 3])),
        ("inputs", tensor(shape=[1.5])), ("inputs", tensor(shape=[True])), ("inputs", tensor(shape=[[1]])),
        ("inputs", tensor(shape=[10**400])), ("inputs", tensor(shape=[1] * 1000)), ("outputs", "y"),
        ("files", ["model.onnx"]), ("files", {"model.onnx": 1}), ("files", {"": ""}), ("files", {"no\0name": ""}),
    ],
)  # fmt: skip
def test_an_entry_of_another_form_is_refused(key, value, bundle, module):
    change(bundle, **{key: value})
    assert f"manifest.json cannot be read (its '{key}'" in ending(module.checked, bundle)


def test_an_entry_that_is_not_there_is_refused(bundle, module):
    for key in set(manifest := json.loads((bundle / "manifest.json").read_text())) - {"format"}:
        (bundle / "manifest.json").write_text(json.dumps({k: v for k, v in manifest.items() if k != key}))
        assert f"manifest.json cannot be read (its '{key}'" in ending(module.checked, bundle)


@pytest.mark.parametrize("value", ["\x1b[31m\n" * 1000, [[1]], True, 1.0, None])
def test_a_format_that_is_no_number_is_refused(value, bundle, module):
    change(bundle, format=value)
    assert "manifest.json cannot be read (it has no number of a 'format')" in ending(module.checked, bundle)


@pytest.mark.parametrize("steps", [None, 257, 10**9])
def test_potentials_need_a_number_of_steps(steps, serial, tmp_path):
    deploy(serial, tmp_path / "bundle")
    change(tmp_path / "bundle", steps=steps)
    require_one_line(run(tmp_path / "bundle"), "its 'steps' are not 1 to 256, and it has potentials")


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "cpp/main.cpp"])
@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: path.mkdir(), "is not a file"),
        (os.mkfifo, "is not a file"),
        (lambda path: path.symlink_to("/dev/zero"), "leads out of the bundle through a link"),
        (lambda path: path.symlink_to("/etc/passwd"), "leads out of the bundle through a link"),
        (lambda path: path.symlink_to(path), "cannot be read: Too many levels of symbolic links"),
        (lambda path: None, "is missing; copy the whole bundle again"),
    ],
    ids=["folder", "pipe", "device", "link", "loop", "nothing"],
)
def test_what_is_no_file_of_the_bundle_is_not_read(make, told, name, bundle):
    (bundle / name).unlink()
    make(bundle / name)
    require_one_line(run(bundle), f"run.py: {name} {told}")


def test_a_file_outside_is_not_read_by_its_hash(bundle, tmp_path):
    (tmp_path / "outside").write_bytes(content := (bundle / "model.onnx").read_bytes())
    (bundle / "model.onnx").unlink()
    (bundle / "model.onnx").symlink_to(tmp_path / "outside")
    require_one_line(run(bundle), "model.onnx leads out of the bundle through a link")
    (bundle / "model.onnx").unlink()
    (bundle / "beside").write_bytes(content)
    (bundle / "model.onnx").symlink_to("beside")
    assert run(bundle).returncode == 0


@pytest.mark.parametrize("linked", [["model.onnx"], ["run.py", "manifest.json", "model.onnx", "libpconv_ops.so"]])
def test_of_a_cache_of_links_the_files_are_to_be_copied(linked, bundle, tmp_path):
    """As those of the Hugging Face Hub, DVC and git-annex are: links to files with a hash for a name."""
    (tmp_path / "blobs").mkdir()
    for index, name in enumerate(linked):
        shutil.move(bundle / name, tmp_path / "blobs" / str(index))
        (bundle / name).symlink_to(f"../blobs/{index}")
    require_one_line(run(bundle), "leads out of the bundle through a link; copy the files, not the links (cp -rL)\n")
    shutil.copytree(bundle, tmp_path / "copy")
    assert run(tmp_path / "copy").returncode == 0


def test_a_link_to_run_py_runs_the_bundle_that_it_leads_to(bundle, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "run.py").symlink_to(bundle / "run.py")
    assert run(tmp_path / "bin").returncode == 0


def for_another_processor(library: bytes) -> bytes:
    return library[:18] + b"\xf3\0" + library[20:]  # e_machine of ELF: RISC-V


@pytest.mark.parametrize(
    ("name", "made", "told"),
    [
        ("model.onnx", lambda _: b"neither a model nor a library", "Protobuf parsing failed\n"),
        ("model.onnx", lambda model: model.replace(b"Conv", b"C\x1b\nv"), "No Op registered for C\\x1b v"),
        ("libpconv_ops.so", lambda _: b"neither a model nor a library", "Failed to load library"),
        ("libpconv_ops.so", for_another_processor, "Failed to load library"),
    ],
)
def test_what_onnxruntime_does_not_load_is_told(name, made, told, bundle):
    replace(bundle, name, made((bundle / name).read_bytes()))
    done = run(bundle)
    require_one_line(done, "does not load the network or its library")
    assert told in done.stderr
    assert "ONNXRuntimeError" not in done.stderr


def test_what_onnxruntime_does_not_run_is_told_without_its_codes(bundle):
    change(bundle, outputs=[{"name": "z", "type": "float32", "shape": []}])
    done = run(bundle)
    require_one_line(done, "the network does not run on these inputs: ")
    assert "ONNXRuntimeError" not in done.stderr


ONES = np.ones((1, 3, 8, 8), np.float32)
TAKES_X = {"inputs": tensor(), "potentials": {}}
PREPARE = Path(__file__).parents[2] / "examples" / "prepare_images.py"
TAKES = "the network takes [N, 3, 8, 8]\n"


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({}, "the input 'x' is missing; the arrays given are none\n"),
        ({"x": ONES.astype(np.int64)}, None),
        ({"x": ONES.astype(">f8")}, None),
        ({"x": ONES > 2}, None),
        ({"y": np.zeros(1)}, "the input 'x' is missing; the arrays given are y\n"),
        ({"\x1b[31m\n" * 1000: ONES}, "the arrays given are \\x1b[31m \\x1b[31m"),
        ({f"{index:0200}": ONES for index in range(50)}, " and 45 more\n"),
        ({"x": ONES, "labels": np.array(["cat"]), "of": np.zeros(1, "f4,i4"), "T": np.array({}), "\x1b": ONES}, None),
        ({"x": np.zeros((1, 2))}, f"the input 'x' has the shape [1, 2]; {TAKES}"),
        ({"x": np.float32(1)}, f"the input 'x' has the shape []; {TAKES}"),
        ({"x": ONES[:, :2]}, f"the input 'x' has the shape [1, 2, 8, 8]; {TAKES}"),
        ({"x": ONES.astype(np.complex64)}, "'x.npy' holds complex64, and inputs are real numbers\n"),
        ({"x": np.array(["text"])}, "'x.npy' holds <U4, and inputs are real numbers\n"),
        ({"x": np.zeros(1, "M8[s]")}, "'x.npy' holds datetime64[s], and inputs are real numbers\n"),
        ({"x": np.zeros(1, "f4,i4")}, "and inputs are real numbers\n"),
        ({"x": np.array([{}])}, "'x.npy' holds object, and inputs are real numbers\n"),
        ({"x": 1e300 * ONES.astype(np.float64)}, "the input 'x' has values that float32 does not have\n"),
    ],
)
def test_inputs_are_told_where_they_do_not_fit(arrays, told, bundle, tmp_path):
    np.savez(tmp_path / "in.npz", **arrays)
    done = run(bundle, tmp_path / "in.npz")
    if told is None:
        assert (done.returncode, done.stderr) == (0, "")
    else:
        require_one_line(done, told)


@pytest.mark.parametrize(
    ("dtype", "values", "told"),
    [
        ("int64", np.float32(1.5), "the input 'x' is float32; the network takes int64\n"),
        ("int64", np.float32(np.nan), "the input 'x' is float32; the network takes int64\n"),
        ("uint8", np.int64(-1), "the input 'x' has values that uint8 does not have\n"),
        ("bool", np.int64(1), "the input 'x' is int64; the network takes bool\n"),
        ("bfloat16", np.float32(1), "the input 'x' is of type 'bfloat16', which NumPy does not have\n"),
        ("(" * 900, np.float32(1), "which NumPy does not have\n"),
    ],
)
def test_no_value_of_an_input_is_changed_to_fit(dtype, values, told, bundle, tmp_path):
    change(bundle, inputs=tensor(type=dtype))
    np.savez(tmp_path / "in.npz", x=np.full((1, 3, 8, 8), values))
    require_one_line(run(bundle, tmp_path / "in.npz"), told)


def test_two_inputs_have_one_size_where_they_share_its_name(bundle, tmp_path):
    change(bundle, inputs=tensor(shape=["N", 3]) + tensor(name="z", shape=[3, "N"]))
    np.savez(tmp_path / "in.npz", x=np.zeros((2, 3)), z=np.zeros((3, 4)))
    require_one_line(run(bundle, tmp_path / "in.npz"), "'z' has the shape [3, 4]; the network takes [3, N=2]\n")


@pytest.mark.parametrize("shape", [[10**18], [10**5, 10**5], [2**62, 2**62], [2**28 + 1]])
def test_no_input_is_made_up_that_is_too_large(shape, bundle):
    change(bundle, inputs=tensor(shape=shape))
    require_one_line(run(bundle), "too large to make up; give it in an .npz\n")


def archive(path: Path, *entries: tuple[str, bytes], way: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", way) as file:
        for name, content in entries:
            file.writestr(name, content)
    return path


def npy_file(header: str | bytes, values: bytes = b"", version: int = 1) -> bytes:
    text = header.encode() if isinstance(header, str) else header
    return b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(2 if version == 1 else 4, "little") + text + values


def header(descr: str = "'<f4'", order: str = "False", shape: str = "(1, 3, 8, 8)") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


def npy(array: np.ndarray, **changes: bytes) -> bytes:
    """An array as a file, with other bytes for some in its header."""
    file = io.BytesIO()
    np.save(file, array)
    content = file.getvalue()
    for before, after in changes.items():
        content = content.replace(before.encode(), after.ljust(len(before)))
    return content


@pytest.mark.parametrize("way", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_ways_of_compression_that_expand_unseen_are_refused(way, bundle, tmp_path):
    path = archive(tmp_path / "in.npz", ("x.npy", npy(ONES)), way=way)
    require_one_line(run(bundle, path), "'x.npy' is compressed in another way than NumPy does it\n")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("entries", "told"),
    [
        ([("x.npy", npy(ONES)), ("x.npy", npy(ONES))], "it has two arrays of one name\n"),
        ([("x", npy(ONES)), ("y.npy", npy(ONES))], "the input 'x' is missing; the arrays given are y\n"),
        ([("x.npy", b"text")], "cannot be read as .npz"),
        ([("x.npy", npy(ONES)[:-4])], "does not hold the array [1, 3, 8, 8] that it says\n"),
        ([("x.npy", npy(np.zeros(6), **{"(6,)": b"(-2,-3)"}))], "cannot be read as .npz"),
        ([("x.npy", npy(np.zeros(6), **{"(6,)": b"(" * 50}))], "cannot be read as .npz"),
        ([("x.npy", npy_file(header(shape="(" + "-" * 9000 + "1,)")))], "has a header that cannot be read\n"),
        ([("x.npy", npy(np.zeros(6), **{"(6,), }      ": b"(9" + b"9" * 8 + b",), }"}))], "does not hold the array"),
    ],
)
def test_archives_that_are_not_sound_are_told(entries, told, bundle, tmp_path):
    require_one_line(run(bundle, archive(tmp_path / "in.npz", *entries)), told)


def test_of_an_archive_nothing_is_read_but_the_inputs(bundle, snn, tmp_path):
    with zipfile.ZipFile(tmp_path / "in.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x.npy", npy(images(5)))
        file.writestr("large.npy", bytes(1 << 29))
        file.writestr("bzip2.npy", npy(ONES), zipfile.ZIP_BZIP2)
        file.writestr("text.npy", b"text")
        file.writestr("x", b"text")
        file.writestr("README.md", b"text")
    done = run(bundle, tmp_path / "in.npz", "-o", tmp_path / "out.npz")
    assert (done.returncode, done.stderr) == (0, "")
    np.testing.assert_array_equal(np.load(tmp_path / "out.npz")["y"], ordinary(snn, {"x": images(5)})[0])


@pytest.mark.parametrize("mode", ["parallel", "serial"])
def test_data_that_the_example_prepares_run_with_their_labels(mode, bundle, serial, tmp_path):
    if mode == "serial":
        bundle = tmp_path / "serial"
        deploy(serial, bundle)
    pictures = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "images.npz", images=pictures, labels=np.arange(5))
    command = [sys.executable, PREPARE, tmp_path / "images.npz", "-o", tmp_path / "in.npz", "--input", "x"]
    subprocess.run(command, check=True, capture_output=True)
    with np.load(tmp_path / "in.npz") as prepared:
        assert set(prepared) == {"x", "labels"}
        np.savez(tmp_path / "alone.npz", x=prepared["x"])
    for name in ("in", "alone"):
        done = run(bundle, tmp_path / f"{name}.npz", "-o", tmp_path / f"{name}-out.npz")
        assert (done.returncode, done.stderr) == (0, "")
    found, expected = (np.load(tmp_path / f"{name}-out.npz")["y"] for name in ("in", "alone"))
    np.testing.assert_array_equal(found, expected)
    assert len(found) == 5
    assert found.any()


@pytest.mark.parametrize("way", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_takes_its_own_memory_once(order, way, module, tmp_path):
    array = np.asarray(np.arange(1 << 22).reshape(1 << 10, 1 << 12), np.float32, order=order)
    path = archive(tmp_path / "in.npz", ("x.npy", npy(array)), way=way)
    tracemalloc.start()
    found = module.read(str(path), TAKES_X)["x"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(found, array)
    assert peak < 1.5 * array.nbytes


def test_an_archive_that_expands_absurdly_is_refused(bundle, tmp_path):
    path = archive(tmp_path / "in.npz", ("x.npy", bytes(1 << 29)), way=zipfile.ZIP_DEFLATED)
    require_one_line(run(bundle, path), "it would expand from")


def test_an_array_that_expands_beyond_what_its_entry_says_takes_no_more_memory(module, tmp_path):
    path = archive(tmp_path / "in.npz", ("x.npy", npy(np.zeros(1 << 26, np.uint8))), way=zipfile.ZIP_DEFLATED)
    content = bytearray(path.read_bytes())
    place = content.index(b"PK\1\2") + 24  # of the size in the directory
    content[place : place + 4] = (1 << 20).to_bytes(4, "little")
    path.write_bytes(content)
    tracemalloc.start()
    assert "'x.npy' does not hold the array [67108864] that it says" in ending(module.read, str(path), TAKES_X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_an_array_that_is_damaged_is_refused(bundle, tmp_path):
    path = archive(tmp_path / "in.npz", ("x.npy", npy(ONES)))
    content = bytearray(path.read_bytes())
    content[400] ^= 1
    path.write_bytes(content)
    require_one_line(run(bundle, path), "cannot be read as .npz: Bad CRC-32")


def test_inputs_are_files(bundle, tmp_path):
    os.mkfifo(tmp_path / "in.npz")
    require_one_line(run(bundle, tmp_path / "in.npz"), "is not a file\n")


def test_a_pipe_that_takes_the_place_of_a_file_is_not_waited_for(module, bundle, tmp_path, monkeypatch):
    """Whoever asks what a path is gets the answer of before."""
    (tmp_path / "before").touch()
    of_before = os.stat(tmp_path / "before")
    os.mkfifo(bundle / "pipe")
    monkeypatch.setattr(module.os, "stat", lambda *_, **__: of_before)
    assert "pipe is not a file" in ending(module.opened, bundle, "pipe")
    assert "pipe' is not a file" in ending(module.read, str(bundle / "pipe"), TAKES_X)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("none.npz", "cannot be read as .npz: No such file or directory\n"),
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
    require_one_line(run(bundle, "-o", tmp_path / "none" / "out.npz"), "out.npz': No such file or directory\n")
    (tmp_path / "out.npz").mkdir()
    require_one_line(run(bundle, "-o", tmp_path / "out.npz"), "out.npz': it is there, and is not a file\n")
    assert not list(tmp_path.rglob("*.part"))


def test_where_outputs_cannot_be_written_the_network_does_not_run(bundle, module, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "run", lambda *_: pytest.fail("it runs"))
    monkeypatch.setattr(sys, "argv", ["run.py", "-o", str(tmp_path / "none" / "out.npz")])
    assert "cannot write" in ending(module.main)


@pytest.mark.parametrize("name", ["out", "out.npz"])
def test_a_link_that_leads_nowhere_is_not_written_through(name, bundle, tmp_path):
    (tmp_path / "out.npz").symlink_to(tmp_path / "elsewhere.npz")
    told = f"it is a link to '{tmp_path}/elsewhere.npz', which leads nowhere\n"
    require_one_line(run(bundle, "-o", tmp_path / name), told)
    (tmp_path / "elsewhere.npz").touch()
    assert run(bundle, "-o", tmp_path / name).returncode == 0
    assert (tmp_path / "out.npz").is_symlink()
    assert list(np.load(tmp_path / "elsewhere.npz")) == ["y"]


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_outputs_have_a_name_of_any_length_and_the_permissions_of_a_new_file(mask, module, tmp_path):
    path = tmp_path / ("a" * 241 + ".npz")
    before = os.umask(mask)
    try:
        module.write(str(path), {"y": ONES})
    finally:
        os.umask(before)
    np.testing.assert_array_equal(np.load(path)["y"], ONES)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask
    assert list(tmp_path.glob("*.npz")) == [path]


def test_writers_with_one_process_number_leave_one_s_outputs(module, tmp_path, monkeypatch):
    """As in two containers."""
    monkeypatch.setattr(module.os, "getpid", lambda: 1)
    (tmp_path / "results").mkdir()
    path = tmp_path / "results" / "out.npz"
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda value: module.write(str(path), {"y": np.full(1 << 18, value)}), range(40)))
    found = np.load(path)["y"]
    assert len(found) == 1 << 18
    assert (found == found[0]).all()
    assert os.listdir(path.parent) == ["out.npz"]


def test_a_write_that_fails_removes_no_other_s_file(module, tmp_path, monkeypatch):
    monkeypatch.setattr(module.os, "urandom", bytes)
    part = tmp_path / f"{bytes(8).hex()}.part"
    part.write_text("another's")
    assert "File exists" in ending(module.write, str(tmp_path / "out.npz"), {"y": ONES})
    assert part.read_text() == "another's"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_stdout_that_cannot_be_written_is_told(bundle):
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, bundle / "run.py"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "run.py: cannot write to stdout: No space left on device\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_outputs_are_written_where_stdout_cannot_be(bundle, tmp_path):
    with open("/dev/full", "w") as full:
        command = [sys.executable, bundle / "run.py", "-o", tmp_path / "out.npz"]
        assert subprocess.run(command, stdout=full, stderr=subprocess.PIPE).returncode == 1
    assert list(np.load(tmp_path / "out.npz")) == ["y"]


def with_output(name: str, folder: Path) -> Path:
    """A bundle whose network has an output of this name."""
    model = rewrite(network(f"c = Conv (x, w) {qcfs('c', 'y')}", weights={"w": weight(4, 3, 3, 3)})).model
    for node in model.graph.node:
        node.output[:] = [name if output == "y" else output for output in node.output]
    model.graph.output[0].name = name
    deploy(model, folder)
    return folder


@pytest.mark.parametrize("name", ["file", "/y/of/a/layer", "θ\x1b[31m", "args", "allow_pickle"])
def test_outputs_may_have_any_name_that_an_entry_can_have(name, tmp_path):
    done = run(with_output(name, tmp_path / "bundle"), "-o", tmp_path / "out.npz")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout[:-1].isprintable()
    with np.load(tmp_path / "out.npz", allow_pickle=False) as found:
        assert list(found) == [name]


@pytest.mark.parametrize("name", ["../y", "a/../../y", "..\\y"])
def test_outputs_do_not_lead_out_of_where_an_archive_is_unpacked(name, tmp_path):
    bundle = with_output(name, tmp_path / "bundle")
    require_one_line(run(bundle, "-o", tmp_path / "out.npz"), "would lead out of where an archive is unpacked")
    assert not (tmp_path / "out.npz").exists()
    assert run(bundle).returncode == 0


def test_outputs_that_numpy_cannot_tell_apart_are_not_written(bundle, tmp_path):
    change(bundle, outputs=tensor(name="y") + tensor(name="y.npy"))
    require_one_line(run(bundle, "-o", tmp_path / "out.npz"), "cannot tell the outputs 'y' and 'y.npy'")


@pytest.mark.parametrize(
    ("error", "told"), [(KeyboardInterrupt(), "run.py: stopped"), (MemoryError(), "run.py: there is not enough memory")]
)
def test_being_stopped_and_want_of_memory_are_told(error, told, module, monkeypatch):
    def fail(folder):
        raise error

    monkeypatch.setattr(module, "checked", fail)
    monkeypatch.setattr(sys, "argv", ["run.py"])
    assert ending(module.main).startswith(told)


def test_a_write_that_fails_leaves_what_was_there(module, tmp_path, monkeypatch):
    (tmp_path / "out.npz").write_text("before")
    for error in (OSError("no space"), KeyboardInterrupt()):
        monkeypatch.setattr(module.os, "replace", lambda *_, error=error: (_ for _ in ()).throw(error))
        with pytest.raises((SystemExit, KeyboardInterrupt)):
            module.write(str(tmp_path / "out.npz"), {"y": np.zeros(3)})
        assert (tmp_path / "out.npz").read_text() == "before"
        assert not list(tmp_path.glob("*.part"))


def test_outputs_that_there_is_no_room_for_are_told_and_not_left_in_part(bundle, tmp_path):
    (tmp_path / "out.npz").write_text("before")
    code = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)); del sys.argv[0]; "
    code += "runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", code, bundle / "run.py", "-o", tmp_path / "out.npz"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, run(bundle).stdout)
    assert done.stderr == f"run.py: cannot write '{tmp_path}/out.npz': File too large\n"
    assert (tmp_path / "out.npz").read_text() == "before"
    assert not list(tmp_path.glob("*.part"))


@pytest.fixture(scope="module")
def onnxruntime_library() -> Path:
    found = sorted(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so*"))
    if not found:
        pytest.skip("this onnxruntime package has no libonnxruntime.so")
    return found[0]


@pytest.fixture(scope="module")
def build(onnxruntime_library, small_network, library, tmp_path_factory):
    """Builds the C++ program of a bundle as its user would; it is the same in every bundle."""
    if shutil.which(os.environ.get("CXX", "c++")) is None:
        pytest.skip("no C++ compiler")
    cmake = os.path.join(pytest.importorskip("cmake").CMAKE_BIN_DIR, "cmake")
    ninja = os.path.join(pytest.importorskip("ninja").BIN_DIR, "ninja")
    bundle = tmp_path_factory.mktemp("bundle")
    deploy(rewrite(small_network).model, bundle)

    def built(flags: str) -> Path:
        build = tmp_path_factory.mktemp("build")
        options = [f"-DONNXRUNTIME_LIBRARY={onnxruntime_library}", f"-DCMAKE_CXX_FLAGS=-Werror {flags}"]
        configure = [cmake, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}", "-S", bundle / "cpp", "-B", build, *options]
        for command in (configure, [cmake, "--build", build]):
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
        return build / "run_snn"

    return built


@pytest.fixture(scope="module")
def program(build) -> Path:
    return build("")


@pytest.fixture(scope="module")
def sanitized(build) -> Path:
    """The program with sanitizers, where the compiler has them."""
    try:
        return build("-fsanitize=address,undefined -fno-sanitize-recover=all -O1")
    except AssertionError:
        return build("-O1")


def run_cpp(program: Path, bundle: Path, results: Path, *arrays: np.ndarray) -> list[np.ndarray]:
    """The outputs of the C++ program on these inputs, with the library where the bundle has one."""
    results.mkdir()
    paths = [results / f"input{index}.npy" for index in range(len(arrays))]
    for path, array in zip(paths, arrays, strict=True):
        np.save(path, array)
    library = bundle / "libpconv_ops.so"
    command = [program, bundle / "model.onnx", library if library.exists() else "-", results, *paths]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [np.load(results / f"{index}.npy") for index in range(len(done.stdout.splitlines()))]


@pytest.mark.parametrize("mode", MODES)
def test_in_cpp_the_example_network_has_the_bits_that_it_has_in_python(
    mode, program, qcfs_resnet, resnet_samples, tmp_path
):
    rewrite(qcfs_resnet, tmp_path / "snn.onnx", mode=mode)
    deploy(tmp_path / "snn.onnx", tmp_path / "bundle")
    feed = {"image": resnet_samples["image"][:20]}
    (found,) = run_cpp(program, tmp_path / "bundle", tmp_path / "results", feed["image"])
    np.testing.assert_array_equal(found, ordinary(tmp_path / "snn.onnx", feed)[0])


def test_in_cpp_function_bodies_run_where_there_is_no_library(program, snn, tmp_path, monkeypatch):
    monkeypatch.setattr(native, "_LIBRARY_FOLDER", tmp_path / "nowhere")
    deploy(snn, tmp_path / "bundle")
    (found,) = run_cpp(program, tmp_path / "bundle", tmp_path / "results", images(5))
    np.testing.assert_array_equal(found, onnxruntime.InferenceSession(snn).run(None, {"x": images(5)})[0])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_in_cpp_coded_networks_have_the_bits_that_they_have_in_python(dtype, mode, program, tmp_path):
    (found,) = run_cpp(program, coded(dtype, mode, None, tmp_path), tmp_path / "results", images(5))
    np.testing.assert_array_equal(found, ordinary(tmp_path / "snn.onnx", {"x": images(5)})[0])


def test_in_cpp_integers_have_the_bits_that_they_have_in_python_in_any_mode(ann, program, tmp_path):
    for mode in ("parallel", "folded", "integer"):
        rewrite(ann, tmp_path / f"{mode}.onnx", mode=mode, **INTEGERS)
        deploy(tmp_path / f"{mode}.onnx", tmp_path / mode)
        (found,) = run_cpp(program, tmp_path / mode, tmp_path / f"{mode}.results", images(5))
        for other in ("parallel.onnx", f"{mode}.onnx"):
            assert found.tobytes() == ordinary(tmp_path / other, {"x": images(5)})[0].tobytes()


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


def run_sanitized(program: Path, *arguments, **options) -> subprocess.CompletedProcess[str]:
    # onnxruntime keeps some of its memory to the end.
    environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=0"}
    command = [program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, **options)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "usage: run_snn"),
        (["model.onnx", "libpconv_ops.so", ".", "none.npy"], "'none.npy' is not read: it is not there, or is no file"),
        (["model.onnx", "libpconv_ops.so", ".", "/dev/zero"], "'/dev/zero' is not read: it is not there, or is no"),
        (["model.onnx", "libpconv_ops.so", ".", "cpp"], "'cpp' is not read: it is not there, or is no file"),
        (["model.onnx", "libpconv_ops.so", ".", "pipe"], "'pipe' is not read: it is not there, or is no file"),
        (["model.onnx", "libpconv_ops.so", ".", "run.py"], "'run.py' is not read: it is no .npy file"),
        (["model.onnx", "libpconv_ops.so", ".", "\x1b[31m\n" * 50], "'\\x1b[31m \\x1b[31m"),
        (["model.onnx", "libpconv_ops.so", ".", "a", "b"], "one .npy file is needed for each input: x"),
        (["none.onnx", "none.so", "nowhere", "a"], "there is no folder 'nowhere'; make it"),
        (["none.onnx", "none.so", "x" * 3000, "a"], "there is no folder 'xxx"),
        (["none.onnx", "libpconv_ops.so", ".", "a"], "there is no file 'none.onnx'"),
        (["/dev/zero", "libpconv_ops.so", ".", "a"], "there is no file '/dev/zero'"),
        (["run.py", "libpconv_ops.so", ".", "a"], "Load model from run.py failed"),
        (["model.onnx", "none.so", ".", "a"], "there is no file 'none.so'"),
        (["model.onnx", "run.py", ".", "a"], "run.py"),
        (["model.onnx", "libpconv_ops.so", ".", "rank.npy"], "Invalid rank for input: x"),
        (["model.onnx", "libpconv_ops.so", ".", "size.npy"], "Got invalid dimensions for input: x"),
        (["model.onnx", "libpconv_ops.so", ".", "double.npy"], "Unexpected input data type"),
        (["model.onnx", "libpconv_ops.so", "taken", "right.npy"], "cannot write 'taken/0.npy'"),
    ],
)
def test_in_cpp_faults_are_told(arguments, told, sanitized, bundle):
    os.mkfifo(bundle / "pipe")
    (bundle / "taken" / "0.npy").mkdir(parents=True)
    for name, array in {"rank": ONES[0], "size": ONES[:, :2], "double": ONES.astype(float), "right": ONES}.items():
        np.save(bundle / f"{name}.npy", array)
    done = run_sanitized(sanitized, *arguments, cwd=bundle)
    assert done.returncode in (1, 2)
    assert told in done.stderr
    assert done.stderr[:-1].isprintable()
    assert len(done.stderr) < 1100
    assert not list(bundle.rglob("*.part"))


def test_in_cpp_paths_are_told_as_scripts_find_them(sanitized, bundle):
    np.save(bundle / "x.npy", ONES)
    letters = {"o é  x θ 画 🙂": "o é  x θ 画 🙂", "a\x1b\n\x7f\t\x9bb": "a\\x1b\\x0a\\x7f\\x09\\xc2\\x9bb"}
    letters |= {"\udce9 \udcc3": "\\xe9 \\xc3", "\udced\udca0\udc80": "\\xed\\xa0\\x80", "\udcc0\udcaf": "\\xc0\\xaf"}
    for folder, told in letters.items():
        (bundle / folder).mkdir()
        done = run_sanitized(sanitized, "model.onnx", "libpconv_ops.so", folder, "x.npy", cwd=bundle)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"y: {told}/0.npy\n"


def test_in_cpp_what_another_writer_has_left_stays(sanitized, bundle):
    np.save(bundle / "x.npy", ONES)
    (bundle / "0.npy.part").write_text("another's")
    (bundle / "taken" / "0.npy").mkdir(parents=True)
    for folder, status in ((".", 0), ("taken", 1)):
        done = run_sanitized(sanitized, "model.onnx", "libpconv_ops.so", folder, "x.npy", cwd=bundle)
        assert done.returncode == status
    assert [path.read_text() for path in bundle.rglob("*.part")] == ["another's"]


VALUES = ONES.tobytes()
AS_WRITTEN = "its header is not as NumPy writes it"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "it is no .npy file"),
        (b"\x93NUMPY", "it is no .npy file"),
        (b"\x93NUMPY\x01\x00", "it is cut short"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "its header is longer than that of any array"),
        (npy_file(header())[:40], "it is cut short"),
        (npy_file(header(), VALUES, 4), "its version of .npy is not known"),
        (npy_file(header(), VALUES[1:]), "it has 767 bytes of values, and its shape takes 768"),
        (npy_file(header(), VALUES + b"0"), "it has 769 bytes of values, and its shape takes 768"),
        (npy_file("x" * 60_000), AS_WRITTEN),
        (npy_file(header(descr="'" + "<" * 60_000 + "'")), "its element type is '<<<"),
        (npy_file(header(shape="(" + "9" * 60_000 + ",)")), "which no array has"),
        (npy_file(header(shape="(" + "1, " * 20_000 + ")")), "it has more axes than an array can have"),
        (npy_file(header(shape="(-2, 3)"), bytes(24)), "its shape has a negative size"),
        (npy_file(header(shape="(9223372036854775808,)")), "the size 9223372036854775808, which no array has"),
        (npy_file(header(shape="(4294967296, 4294967296)")), "its shape takes more than there can be"),
        (npy_file(header(shape="(4611686018427387904,)")), "its shape takes more than there can be"),
        (npy_file(header(shape="(3)"), bytes(12)), AS_WRITTEN),
        (npy_file(header(shape="(1.0,)"), bytes(4)), AS_WRITTEN),
        (npy_file(header(shape="(03,)"), bytes(12)), AS_WRITTEN),
        (npy_file(header() + "}"), AS_WRITTEN),
        (npy_file(header().replace("'shape'", "'Shape'")), AS_WRITTEN),
        (npy_file("{'descr': '<f4', " + header()[1:], VALUES), AS_WRITTEN),
        (npy_file(header(order="True"), VALUES), "it is in Fortran order; save numpy.ascontiguousarray of it"),
        (npy_file(header(descr="'>f4'"), VALUES), "its element type is '>f4'; this program reads <f4 |u1"),
        (npy_file(header(descr="'|O'"), VALUES), "its element type is '|O'"),
        (npy_file(header(descr="'\x1b[31m'"), VALUES), "its element type is '\\x1b[31m'"),
        (npy_file(header(descr="[('a', '<f4')]"), VALUES), "its elements are structures"),
    ],
)
def test_in_cpp_files_that_hold_no_array_that_it_reads_are_told(content, told, sanitized, bundle):
    (bundle / "x.npy").write_bytes(content)
    done = run_sanitized(sanitized, "model.onnx", "libpconv_ops.so", ".", "x.npy", cwd=bundle)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("run_snn: 'x.npy' is not read: ")
    assert told in done.stderr
    assert done.stderr[:-1].isprintable()


@pytest.mark.parametrize(
    "content",
    [
        npy_file("{ 'shape':(1,3 , 8,8),'descr' : '<f4' , 'fortran_order':False}", VALUES),
        npy_file(header(), VALUES, 2),
        npy_file(header()[:-1] + " " * 60_000 + "\n", VALUES, 3),
    ],
)
def test_in_cpp_every_header_that_numpy_reads_is_read(content, sanitized, bundle, snn):
    np.testing.assert_array_equal(np.load(io.BytesIO(content), max_header_size=1 << 17), ONES)
    (bundle / "x.npy").write_bytes(content)
    done = run_sanitized(sanitized, "model.onnx", "libpconv_ops.so", ".", "x.npy", cwd=bundle)
    assert (done.returncode, done.stderr) == (0, "")
    np.testing.assert_array_equal(np.load(bundle / "0.npy"), ordinary(snn, {"x": ONES})[0])


@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 0, 3), (1,) * 8])
@pytest.mark.parametrize(("dtype", "kind"), [("<f4", "float"), ("<i8", "int64"), ("?", "bool"), ("<f2", "float16")])
def test_in_cpp_arrays_of_every_rank_are_read_and_written(shape, dtype, kind, sanitized, bundle):
    declared = f"{kind}[{', '.join(map(str, shape))}]"
    model = f'<ir_version: 8, opset_import: ["": 17]> g ({declared} x) => ({declared} y) {{ y = Identity (x) }}'
    onnx.save(onnx.parser.parse_model(model), bundle / "same.onnx")
    array = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    np.save(bundle / "x.npy", array)
    done = run_sanitized(sanitized, "same.onnx", "libpconv_ops.so", ".", "x.npy", cwd=bundle)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "y: ./0.npy\n")
    found = np.load(bundle / "0.npy")
    assert (found.dtype, found.shape) == (array.dtype, shape)
    np.testing.assert_array_equal(found, array)


def test_in_cpp_outputs_are_told_in_printable_names_or_refused_by_them(sanitized, bundle):
    name = "\x1b[31m\n" * 50
    node = onnx.helper.make_node("Cast", ["x"], [name], to=onnx.TensorProto.STRING)
    for output, kind in (("y", onnx.TensorProto.FLOAT), (name, onnx.TensorProto.STRING)):
        nodes = [onnx.helper.make_node("Identity", ["x"], ["y"]), node]
        graph = onnx.helper.make_graph(
            nodes,
            "g",
            [onnx.helper.make_tensor_value_info("x", 1, [2])],
            [onnx.helper.make_tensor_value_info(output, kind, [2])],
        )
        model = onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)])
        onnx.save(model, bundle / "other.onnx")
        np.save(bundle / "x.npy", np.zeros(2, np.float32))
        done = run_sanitized(sanitized, "other.onnx", "libpconv_ops.so", ".", "x.npy", cwd=bundle)
        told = done.stdout + done.stderr
        assert told[:-1].isprintable()
        assert ("is of a type that NumPy does not have" in told) == (kind == onnx.TensorProto.STRING)
