"""Compiles the native library for every system it is meant for, and looks at what came out: `make cross`.

zig brings a C++ compiler, a C library and a linker for each. Warnings are errors. Nothing is run here. Of the system
whose onnxruntime is named, the C++ program of bundles is compiled as well. Where the variable ORT_INCLUDE_DIR names
onnxruntime's header, our declarations of its C ABI are compared with that, for each system.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import cmake
import lief
import ninja
import ziglang

_TREE = Path(__file__).parents[2]
SOURCE, PROGRAM = _TREE / "custom_ops", _TREE / "pconv_onnx" / "deployment" / "bundle" / "cpp"
ENTRY = "RegisterCustomOps"
# What zig's linker lets out of a dylib besides: operators of its C++ runtime, and names of its own.
_OF_ZIG = re.compile(r"_Z(nw|na|dl|da)\w+|_mh_dylib_header|__dso_handle")


@dataclass(frozen=True)
class Target:
    """A system and processor: how zig and CMake call it, and what its library is called and may need."""

    zig: str
    system: str
    library: str
    needs: str  # a pattern of the libraries that every such system has

    def compile(self, folder: Path) -> Path:
        """Build the library in a folder, and return its path.

        Raises:
            subprocess.CalledProcessError: it does not compile, or not without a warning.
        """
        abi = ["test_abi"] if "ORT_INCLUDE_DIR" in os.environ else []
        self._build(SOURCE, folder, ["pconv_ops", *abi], "-DPCONV_WERROR=ON", "-DPCONV_CUDA=OFF")
        return folder / self.library

    def compile_program(self, onnxruntime: Path, folder: Path) -> None:
        """Build the C++ program of bundles in a folder, with an onnxruntime of this system beside it.

        Raises:
            subprocess.CalledProcessError: it does not compile, or not without a warning.
        """
        options = [f"-DONNXRUNTIME_LIBRARY={onnxruntime.absolute()}", "-DCMAKE_CXX_FLAGS=-Werror"]
        self._build(PROGRAM, folder, ["run_snn"], *options)
        shutil.copy(onnxruntime, folder)

    def _build(self, source: Path, folder: Path, targets: list[str], *options: str) -> None:
        run = lambda *command: subprocess.run([os.path.join(cmake.CMAKE_BIN_DIR, "cmake"), *command], check=True)  # noqa: E731
        compiler = Path(ziglang.__file__).with_name("zig")
        run(
            *("--fresh", "-S", source, "-B", folder, "-G", "Ninja", "--log-level=WARNING"),
            f"-DCMAKE_MAKE_PROGRAM={os.path.join(ninja.BIN_DIR, 'ninja')}",
            *("-DCMAKE_BUILD_TYPE=Release", *options),
            *(f"-DCMAKE_SYSTEM_NAME={self.system}", f"-DCMAKE_SYSTEM_PROCESSOR={self.zig.split('-')[0]}"),
            *(f"-DCMAKE_CXX_COMPILER={compiler};c++", f"-DCMAKE_CXX_COMPILER_TARGET={self.zig}"),
        )
        run("--build", folder, "--target", *targets)


_ELF = r"(libc|libm|libpthread|libdl|ld-linux-x86-64|ld-linux-aarch64)\.so\.\d"
TARGETS = [
    # The oldest C library of manylinux_2_28.
    Target("x86_64-linux-gnu.2.28", "Linux", "libpconv_ops.so", _ELF),
    Target("aarch64-linux-gnu.2.28", "Linux", "libpconv_ops.so", _ELF),
    Target("x86_64-windows-gnu", "Windows", "pconv_ops.dll", r"(?i)(KERNEL32|ntdll|api-ms-win-crt-[\w-]+)\.dll"),
    Target("aarch64-macos.11.0", "Darwin", "libpconv_ops.dylib", r"/usr/lib/libSystem\.B\.dylib"),
    Target("x86_64-macos.11.0", "Darwin", "libpconv_ops.dylib", r"/usr/lib/libSystem\.B\.dylib"),
]


def faults(library: Path, needs: str) -> list[str]:
    """What is wrong with a library: what it exports besides its entry point, and needs besides what is always there."""
    binary = lief.parse(str(library))
    if binary is None:
        return ["is no library"]
    if isinstance(binary, lief.ELF.Binary):
        exported = [str(symbol.name) for symbol in binary.exported_symbols]
        needed = list(map(str, binary.libraries))
    elif isinstance(binary, lief.PE.Binary):
        exported = [str(entry.name) for entry in binary.get_export().entries]
        needed = list(map(str, binary.libraries))
    else:
        names = (str(symbol.name).removeprefix("_") for symbol in binary.exported_symbols)
        exported = [name for name in names if not _OF_ZIG.fullmatch(name)]
        # The first is its own name.
        needed = [str(entry.name) for entry in binary.libraries if not str(entry.name).startswith("@rpath/")]
    found = [f"needs {name}" for name in needed if not re.fullmatch(needs, name)]
    return found + ([] if exported == [ENTRY] else [f"exports {', '.join(exported) or 'nothing'}"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="one of: %(choices)s", choices=[target.zig for target in TARGETS])
    parser.add_argument("--onnxruntime", type=Path, help="of the system of --only: compile the C++ program with it")
    parser.add_argument("-o", "--output", type=Path, default=Path("build/cross"), help="folder (default: %(default)s)")
    options = parser.parse_args()
    if options.onnxruntime is not None and options.only is None:
        parser.error("--onnxruntime is of one system: name that with --only")
    failed = False
    for target in TARGETS:
        if options.only in (None, target.zig):
            folder = (options.output / target.zig).absolute()
            library = target.compile(folder)
            found = faults(library, target.needs)
            print(f"{target.zig}: {library.name}, {library.stat().st_size:,} bytes, {'; '.join(found) or 'sound'}")
            failed |= bool(found)
            if options.onnxruntime is not None:
                target.compile_program(options.onnxruntime, folder / "program")
                shutil.copy(library, folder / "program")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
