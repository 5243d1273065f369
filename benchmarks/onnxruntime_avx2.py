"""A copy of the installed onnxruntime whose kernels do not go beyond AVX2, as on a processor that has no more.

    python benchmarks/onnxruntime_avx2.py FOLDER
    PYTHONPATH=FOLDER python benchmarks/integer_execution.py …

onnxruntime has no switch for it. Its constructor of kernels asks what the processor has; in the copy it goes on as if
each answer that matters were no.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import onnxruntime

# What is asked, by its machine code up to the jump that follows, and the jump that is taken in its place.
_NO_OPERATION, _ALWAYS = "90" * 6, "eb"
_QUESTIONS = {
    "AVX-VNNI (cpuid; test $0x10, %al; je)": ("0fa2a810", "74", _ALWAYS),
    "AVX-VNNI-INT8 (test $0x10, %dl; je)": ("f6c210", "7443", _ALWAYS),
    "registers of AVX-512 (not %rax; test $0xe0, %al; je)": ("48f7d0a8e0", "0f84", _NO_OPERATION),
}


def main() -> int:
    """Write the copy; the exit status is 1 where a question is not found, as in another build of onnxruntime."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the copy goes: a folder for PYTHONPATH")
    target = parser.parse_args().folder / "onnxruntime"
    shutil.copytree(Path(onnxruntime.__file__).parent, target)
    module = next(target.glob("capi/onnxruntime_pybind11_state*.so"))
    content = bytearray(module.read_bytes())
    for asked, codes in _QUESTIONS.items():
        before, jump, instead = map(bytes.fromhex, codes)
        if content.count(before + jump) != 1:
            print(f"{module.name} does not ask for {asked} once: this is for onnxruntime 1.32", file=sys.stderr)
            return 1
        start = content.index(before + jump) + len(before)
        content[start : start + len(instead)] = instead
    module.write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
