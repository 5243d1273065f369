"""Wheels and source distributions, built offline from a copy of the repository."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from pconv_onnx.operators.library_name import LIBRARY_NAME

ROOT = Path(__file__).parents[1]
LIBRARY = f"pconv_onnx/lib/{LIBRARY_NAME}"
FACTS = "pconv_onnx/lib/pconv_ops.json"

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))), reason="no C++ compiler here"
)


def fresh_clone(folder):
    """What a fresh clone has: nothing that was built."""
    copy = folder / "source"
    copy.mkdir()
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "MANIFEST.in", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("pconv_onnx", "custom_ops"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("lib", "build", "__pycache__"))
    return copy


@pytest.fixture
def source(tmp_path):
    return fresh_clone(tmp_path)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A clone in which a wheel was built, and that wheel."""
    source = fresh_clone(tmp_path_factory.mktemp("built"))
    done, wheels = build_wheel(source)
    assert done.returncode == 0, done.stdout
    (wheel,) = wheels
    return source, wheel


def build_wheel(source, **environment):
    """Run pip as a user would, and return what it did and the wheels it made; without CUDA, to save time."""
    environment = os.environ | {"CMAKE_ARGS": "-DPCONV_CUDA=OFF"} | environment
    # Makefile has it; pip from 26.2 on refuses constraints of what is built with what is there.
    environment.pop("PIP_BUILD_CONSTRAINT", None)
    wheels = source.parent / "wheels"
    done = subprocess.run(
        [sys.executable, "-m", "pip", "-v", "wheel", "--no-build-isolation", "--no-deps", "--no-index"]
        + ["--wheel-dir", wheels, source],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done, list(wheels.glob("*.whl"))


def run_from(wheel, code):
    """Run code against an unpacked wheel: an editable installation beside it must not answer instead."""
    folder = wheel.parent / "unpacked"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    code = f"import pconv_onnx; assert pconv_onnx.__file__.startswith({str(folder)!r}), pconv_onnx.__file__; {code}"
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
@needs_compiler
def test_wheel_has_a_loadable_library_and_fits_any_python(source, qcfs_resnet):
    # For one GPU, to save time; tests/custom_ops/test_native_build.py builds for all of them.
    done, wheels = build_wheel(source, CMAKE_ARGS="-DCMAKE_CUDA_ARCHITECTURES=90")
    assert done.returncode == 0, done.stdout
    (wheel,) = wheels
    _, _, python, abi, platform = wheel.stem.split("-")
    assert (python, abi) == ("py3", "none")
    assert platform != "any"
    assert "pconv_onnx/py.typed" in zipfile.ZipFile(wheel).namelist()
    providers = ["cpu", "cuda"] if shutil.which("nvcc") else ["cpu"]
    assert json.loads(zipfile.ZipFile(wheel).read(FACTS)) == {"providers": providers}
    told = run_from(wheel, "from pconv_onnx.operators import library; print(library.has_cuda_kernels())")
    assert told.stdout == f"{'cuda' in providers}\n", told.stderr
    load = (
        "import onnxruntime; from pconv_onnx.operators import library; library.register(onnxruntime.SessionOptions())"
    )
    ran = run_from(wheel, load)
    assert ran.returncode == 0, ran.stderr
    template = "from pconv_onnx.report import page; page.destination('report')"
    ran = run_from(wheel, template)
    assert ran.returncode == 0, ran.stderr
    ran = run_from(wheel, f"pconv_onnx.deploy(pconv_onnx.rewrite({str(qcfs_resnet)!r}).model, 'bundle')")
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("missing", [{"CXX": "/nowhere/c++", "CC": "/nowhere/cc"}, {"CXX": "", "PATH": "/nowhere"}])
def test_without_a_compiler_the_wheel_is_pure_and_says_so(source, missing):
    done, wheels = build_wheel(source, **missing)
    assert done.returncode == 0, done.stdout
    assert "no C++ compiler found" in done.stdout
    (wheel,) = wheels
    assert wheel.stem.endswith("-py3-none-any")
    assert not {LIBRARY, FACTS} & set(zipfile.ZipFile(wheel).namelist())
    ran = run_from(wheel, "from pconv_onnx.operators import library; library.library_path()")
    assert "PconvError: this installation of pconv-onnx has no native library" in ran.stderr


@pytest.mark.slow
@needs_compiler
def test_the_library_of_an_earlier_build_does_not_slip_into_a_pure_wheel(built, tmp_path):
    earlier, wheel = built
    assert {LIBRARY, FACTS} <= set(zipfile.ZipFile(wheel).namelist())
    source = shutil.copytree(earlier, tmp_path / "source")
    assert list(source.glob(f"build/**/{LIBRARY}"))
    done, (pure,) = build_wheel(source, CXX="/nowhere/c++")
    assert done.returncode == 0, done.stdout
    assert pure.stem.endswith("-any")
    assert not {LIBRARY, FACTS} & set(zipfile.ZipFile(pure).namelist())


@pytest.mark.slow
@needs_compiler
def test_what_is_built_lies_in_the_source_tree_only_while_there_is_a_compiler(source):
    for environment, there in (({}, True), ({"CXX": "/nowhere/c++"}, False)):
        subprocess.run(
            [sys.executable, "setup.py", "build_ext", "--inplace"],
            cwd=source,
            env=os.environ | {"CMAKE_ARGS": "-DPCONV_CUDA=OFF"} | environment,
            check=True,
            capture_output=True,
        )
        assert [(source / name).is_file() for name in (LIBRARY, FACTS)] == [there, there]


@pytest.mark.slow
@needs_compiler
def test_a_compiler_that_fails_on_the_source_fails_the_build(source):
    with (source / "custom_ops/ort/library.cpp").open("a") as file:
        file.write("#error deliberate\n")
    # The rest compiles faster so.
    done, wheels = build_wheel(source, CMAKE_ARGS="-DPCONV_CUDA=OFF -DCMAKE_BUILD_TYPE=Debug")
    assert done.returncode != 0
    assert "deliberate" in done.stdout
    assert not wheels


def test_a_broken_compiler_is_not_taken_for_a_missing_one(source):
    done, wheels = build_wheel(source, CXX=shutil.which("false"))
    assert done.returncode != 0
    assert "no C++ compiler found" not in done.stdout
    assert not wheels


@pytest.mark.parametrize("asked, version", [("OFF", "{}"), ("AUTO", "{}"), ("ON", "{}+cuda")])
def test_a_build_that_asks_for_cuda_kernels_says_so_in_its_version(source, asked, version):
    plain = re.search(r"^version = (.*)", (source / "setup.cfg").read_text(), re.MULTILINE)[1]
    code = "import setuptools.build_meta as backend; print(backend.prepare_metadata_for_build_wheel('.'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=source,
        env=os.environ | {"CMAKE_ARGS": f"-DPCONV_CUDA={asked}"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1] == f"pconv_onnx-{version.format(plain)}.dist-info"


def source_distribution(source):
    code = "import sys, setuptools.build_meta as backend; print(backend.build_sdist(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, source.parent], cwd=source, check=True, capture_output=True)
    (archive,) = source.parent.glob("*.tar.gz")
    return archive


def test_source_distribution_has_the_native_sources(source):
    archive = source_distribution(source)
    with tarfile.open(archive) as file:
        packed = {Path(*Path(name).parts[1:]) for name in file.getnames()}
    native = {path.relative_to(source) for path in source.glob("custom_ops/**/*")}
    assert Path("custom_ops/CMakeLists.txt") in native
    assert native <= packed


@pytest.mark.slow
@needs_compiler
def test_the_wheel_of_a_source_distribution_is_that_of_the_repository(built, source):
    contents = zipfile.ZipFile(built[1])
    expected = {name: contents.read(name) for name in contents.namelist()}
    done, (wheel,) = build_wheel(source_distribution(source))
    assert done.returncode == 0, done.stdout
    contents = zipfile.ZipFile(wheel)
    assert {name: contents.read(name) for name in contents.namelist()} == expected


@pytest.mark.slow
@needs_compiler
@pytest.mark.skipif(shutil.which("readelf") is None, reason="no readelf to read the library with")
def test_the_library_of_a_wheel_needs_the_c_library_alone_and_no_path_of_this_machine(built, tmp_path):
    library = zipfile.ZipFile(built[1]).extract(LIBRARY, tmp_path)
    read = subprocess.run(["readelf", "--dynamic", library], capture_output=True, text=True, check=True).stdout
    needed = {line.split("[")[1].split(".so")[0] for line in read.splitlines() if "(NEEDED)" in line}
    assert needed <= {"libc", "libm", "libpthread", "libdl", "librt", "ld-linux-x86-64", "ld-linux-aarch64"}
    assert "libc" in needed
    assert "RPATH" not in read and "RUNPATH" not in read
