"""Builds the native operator library with CMake. Everything else about the package is in setup.cfg."""

import os
import re
import runpy
import shlex
import subprocess
import tempfile
from pathlib import Path

from cmake import CMAKE_BIN_DIR
from ninja import BIN_DIR as NINJA_BIN_DIR
from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

LIBRARY_NAME = runpy.run_path("pconv_onnx/operators/library_name.py")["LIBRARY_NAME"]
ASKED = shlex.split(os.environ.get("CMAKE_ARGS", ""))
# By full path: pip's build isolation and an unactivated virtual environment differ in what is on PATH.
CMAKE = os.path.join(CMAKE_BIN_DIR, "cmake")
CONFIGURE = [
    *(CMAKE, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={os.path.join(NINJA_BIN_DIR, 'ninja')}"),
    *("-DCMAKE_BUILD_TYPE=Release", *ASKED),
]


def has_compiler() -> bool:
    """Ask CMake whether there is a C++ compiler; a broken one counts, so that building with it fails loudly."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "CMakeLists.txt").write_text("cmake_minimum_required(VERSION 3.24)\nproject(probe CXX)\n")
        done = subprocess.run([*CONFIGURE, "-S", folder, "-B", folder], capture_output=True)
        cache = Path(folder, "CMakeCache.txt").read_text()
    return done.returncode == 0 or bool(re.search(r"^CMAKE_CXX_COMPILER:\w+=(?!.*NOTFOUND)", cache, re.MULTILINE))


class BuildLibrary(build_ext):
    """Has CMake put the library where setuptools expects an extension module, and a file of facts beside it."""

    def get_ext_filename(self, fullname: str) -> str:
        """Name the file as a plain shared library: Python never imports it."""
        return os.path.join(*fullname.split(".")[:-1], LIBRARY_NAME)

    def run(self) -> None:
        """Build the library, or say that it is left out."""
        if not has_compiler():
            self.warn("no C++ compiler found: installing pconv-onnx without its native library.")
            self.warn("Models still run, more slowly. Install a compiler (g++ or clang++) and reinstall to get it.")
            for ext in self.extensions:
                # An earlier build in this folder may have left them behind.
                for path in self.built(self.get_ext_fullpath(ext.name)):
                    path.unlink(missing_ok=True)
            self.extensions = []
        super().run()

    def build_extension(self, ext: Extension) -> None:
        """Configure, build and install custom_ops/ into the package folder of the build."""
        build = os.path.abspath(os.path.join(self.build_temp, "custom_ops"))
        target = Path(self.get_ext_fullpath(ext.name)).absolute()
        # Fresh: the cache of an earlier build names tools of an isolated environment that is gone.
        subprocess.run([*CONFIGURE, "--fresh", "-S", "custom_ops", "-B", build], check=True)
        subprocess.run([CMAKE, "--build", build], check=True)
        subprocess.run([CMAKE, "--install", build, "--prefix", str(target.parent)], check=True)

    @staticmethod
    def built(library: str) -> tuple[Path, Path]:
        """The library at that path, and the file that says what it has kernels for."""
        return Path(library), Path(library).with_name("pconv_ops.json")

    def get_output_mapping(self) -> dict[str, str]:
        """Where an editable installation has them in the source tree, by where they are built."""
        pairs = [zip(*map(self.built, pair), strict=True) for pair in super().get_output_mapping().items()]
        return {str(built): str(placed) for pair in pairs for built, placed in pair}

    def copy_extensions_to_source(self) -> None:
        """Place them there."""
        for built, placed in self.get_output_mapping().items():
            self.mkpath(os.path.dirname(placed))
            self.copy_file(built, placed)


class TagWheel(bdist_wheel):
    """Tags the wheel for the platform alone: the library does not know Python, and may be missing."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return the tag, known only once the library is built or left out."""
        platform = super().get_tag()[2]
        return "py3", "none", platform if self.get_finalized_command("build_ext").extensions else "any"


setup(
    ext_modules=[Extension("pconv_onnx.lib.pconv_ops", sources=[])],
    cmdclass={"build_ext": BuildLibrary, "bdist_wheel": TagWheel},
    # A build that asks for CUDA kernels says so in its version: one system has wheels with and without them.
    options={"egg_info": {"tag_build": "+cuda"}} if "-DPCONV_CUDA=ON" in ASKED else {},
)
