"""Networks of integers as C: bits, flash, memory and instructions on a Cortex-M4, and time on this CPU.

The two ResNet-20 of examples/, of which the one with ReLUs is calibrated first. Bits are compared with onnxruntime's on
the 1,000 images. For the Cortex-M4 it takes arm-none-eabi-gcc and qemu-system-arm (Debian: gcc-arm-none-eabi,
libnewlib-arm-none-eabi, qemu-system-arm), and cortex_m/ has what a program needs there. Times are of one image and one
thread, all in turns.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from measure import arguments, interleaved, machine, rows, write

import pconv_onnx

ROOT = Path(__file__).parents[1]
EXAMPLE, CORTEX_M = ROOT / "examples" / "resnet20", Path(__file__).parent / "cortex_m"
sys.path.append(str(ROOT / "examples"))
from prepare_images import prepare, read_npz  # noqa: E402  # examples are no package

FLAGS = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")
HOST = {"-O2": ("-O2",), "-O3": ("-O3",), "-O3 -march=native": ("-O3", "-march=native")}
ARM = ("-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard")
QEMU = ("qemu-system-arm", "-M", "mps2-an386", "-icount", "shift=0", "-nographic", "-monitor", "none", "-serial",
        "none", "-semihosting-config", "enable=on,target=native")  # fmt: skip
# How many images are run in QEMU.
ON_CORTEX_M = 3
INTEGERS = {"mode": "integer", "input_bits": 8}


def main() -> None:
    parser = arguments(__doc__ or "", 50)
    options = parser.parse_args()
    images, labels = read_npz(EXAMPLE / "cifar10-test-1000.npz")
    images = prepare(images, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], "NCHW")
    networks = {
        "resnet20-qcfs8": {"input_range": (-2.2, 2.8)},
        "resnet20-relu": {"steps": 8, "calibration": {"image": images[:500]}},
    }
    document: dict[str, Any] = {
        "title": "Networks of integers as C",
        "machine": machine(1),
        "compilers": {name: version(name) for name in ("gcc", "clang", "arm-none-eabi-gcc", "qemu-system-arm")},
        "networks": {},
    }
    for name, settings in networks.items():
        with tempfile.TemporaryDirectory() as folder:
            document["networks"][name] = measured(name, settings, Path(folder), images, labels, options.repeats)
            print(name, document["networks"][name])
    write(document, options.output)


def version(program: str) -> str | None:
    """The first line of what a program says of itself; None where it is not there."""
    try:
        return subprocess.run([program, "--version"], capture_output=True, text=True).stdout.splitlines()[0]
    except FileNotFoundError:
        return None


def measured(
    name: str, settings: dict[str, Any], folder: Path, images: np.ndarray, labels: np.ndarray, repeats: int
) -> dict[str, Any]:
    """All figures of one network."""
    source, snn, code = EXAMPLE / f"{name}.onnx", folder / "snn.onnx", folder / "c"
    pconv_onnx.rewrite(source, snn, **INTEGERS, **settings)
    pconv_onnx.deploy(snn, code, target="c")
    expected = pconv_onnx.session(snn).run(None, {"image": images})[0]
    programs = {f"C, {name}": library(code, name, flags) for name, flags in HOST.items()}
    bits = {
        name: int((np.stack([run(image) for image in images]).view(np.uint32) != expected.view(np.uint32)).sum())
        for name, run in programs.items()
    }
    return {
        "images": len(images),
        "outputs": expected.size,
        "outputs_with_other_bits": bits,
        "top1": float((expected.argmax(axis=1) == labels).mean()),
        "cortex_m4": on_cortex_m(code, images[:ON_CORTEX_M], expected[:ON_CORTEX_M]),
        "one_image": timed(source, snn, programs, images[:1], repeats),
    }


def library(code: Path, name: str, flags: tuple[str, ...]) -> Callable[[np.ndarray], np.ndarray]:
    """The network as a function from an image to its outputs."""
    path = code / f"{name.replace(' ', '')}.so"
    subprocess.run(["gcc", *FLAGS, *flags, "-fPIC", "-shared", "network.c", "-o", path], cwd=code, check=True)
    loaded = ctypes.CDLL(str(path))
    arena = np.zeros(ctypes.c_size_t.in_dll(loaded, "pconv_arena_bytes").value // 4 + 1, np.float32)

    def run(image: np.ndarray) -> np.ndarray:
        out = np.empty(10, np.float32)
        failed = loaded.pconv_run(*(ctypes.c_void_p(values.ctypes.data) for values in (image, out, arena)))
        assert not failed
        return out

    return run


def timed(
    source: Path, snn: Path, programs: dict[str, Callable[[np.ndarray], np.ndarray]], image: np.ndarray, repeats: int
) -> list[dict[str, Any]]:
    """Times of one image, of the ANN and of the network of integers in onnxruntime and in C."""

    def options() -> onnxruntime.SessionOptions:
        """Of one session: the native kernels become a part of them."""
        found = onnxruntime.SessionOptions()
        found.intra_op_num_threads = 1
        return found

    sessions = {
        "float ANN, onnxruntime": onnxruntime.InferenceSession(source, options()),
        "integer, onnxruntime with the native kernels": pconv_onnx.session(snn, options=options()),
        "integer, function body in stock onnxruntime": onnxruntime.InferenceSession(snn, options()),
    }
    candidates: dict[str, Callable[[], object]] = {
        name: (lambda session=session: session.run(None, {"image": image})) for name, session in sessions.items()
    }
    candidates |= {name: (lambda run=run: run(image[0])) for name, run in programs.items()}
    return rows(interleaved(candidates, repeats), "integer, onnxruntime with the native kernels")


def on_cortex_m(code: Path, images: np.ndarray, expected: np.ndarray) -> dict[str, Any]:
    """Flash, memory and instructions, by optimisation, and whether the outputs have the same bits."""
    images.tofile(code / "inputs.raw")
    found: dict[str, Any] = {"machine": "Cortex-M4 with FPU, QEMU mps2-an386", "arena_bytes": arena_bytes(code)}
    for level in ("-Os", "-O2", "-O3"):
        arm = ["arm-none-eabi-gcc", *ARM, level]
        subprocess.run([*arm, *FLAGS, "-c", "network.c", "-o", "network.o"], cwd=code, check=True)
        size = subprocess.run(["arm-none-eabi-size", "network.o"], cwd=code, check=True, capture_output=True, text=True)
        text, data, bss = map(int, size.stdout.splitlines()[1].split()[:3])
        parts = ["network.o", CORTEX_M / "count.c", CORTEX_M / "start.c", "-T", CORTEX_M / "mps2-an386.ld", "-I."]
        libraries = ["-nostartfiles", "--specs=rdimon.specs", "-Wl,--gc-sections", "-o", "run.elf"]
        subprocess.run([*arm, *parts, *libraries], cwd=code, check=True)
        told = subprocess.run([*QEMU, "-kernel", "run.elf"], cwd=code, check=True, capture_output=True, text=True)
        counted = [list(map(int, line.split())) for line in told.stdout.splitlines()]
        given = np.fromfile(code / "outputs.raw", np.uint32)
        found[level] = {
            "flash_bytes": text + data,
            "static_memory_bytes": data + bss,
            "stack_bytes": max(stack for _, stack in counted),
            "instructions_by_image": [instructions for instructions, _ in counted],
            "outputs_with_other_bits": int((given != expected.view(np.uint32).reshape(-1)).sum()),
        }
    return found


def arena_bytes(code: Path) -> int:
    """What the header says."""
    (line,) = (line for line in (code / "network.h").read_text().splitlines() if "define PCONV_ARENA_BYTES" in line)
    return int(line.split()[-1])


if __name__ == "__main__":
    main()
