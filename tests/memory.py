"""How much memory a call takes, in a process of its own: libraries in C take theirs where Python does not look."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import resource, sys
from pconv_onnx import PconvError
{before}
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = peak()
try:
    {statement}
except PconvError as error:
    print(error, file=sys.stderr)
print((peak() - start) * 1024)
"""


def peak_of(before: str, statement: str) -> tuple[int, str]:
    """Bytes that a statement takes at most, beyond what was taken before, and what it is refused with, if it is."""
    program = _PROGRAM.format(before=before, statement=statement)
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return int(run.stdout), run.stderr.strip()
