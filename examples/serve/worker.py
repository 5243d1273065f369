"""A process with one session of a bundle's network: arrays come in on stdin, and what they give goes out on stdout.

Each way a message is its length in 8 bytes and a pickle, which is read from the program at the other end only.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import pickle
import signal
import struct
import sys
from pathlib import Path
from types import ModuleType
from typing import IO, Any

LENGTH = struct.Struct("<Q")
# Of Linux's prctl: the signal that a process gets when the one that started it ends.
PR_SET_PDEATHSIG = 1


def program_of(bundle: Path) -> ModuleType:
    """The bundle's own run.py, which checks it and opens its session."""
    spec = importlib.util.spec_from_file_location("run", bundle / "run.py")
    if spec is None or spec.loader is None or not (bundle / "run.py").is_file():
        sys.exit(f"serve.py: '{bundle}' is no bundle; write one with: pconv-onnx deploy --target bundle")
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    return program


def packed(message: Any) -> bytes:
    content = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return LENGTH.pack(len(content)) + content


def received(stream: IO[bytes]) -> Any:
    """The next message; None at the end of the stream."""
    head = stream.read(LENGTH.size)
    return pickle.loads(stream.read(*LENGTH.unpack(head))) if len(head) == LENGTH.size else None


def main() -> None:
    """Answer until stdin ends: a list of outputs, or where there are none why, and whether the values are invalid."""
    if sys.platform == "linux":  # where even a stopped worker ends with the server
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    bundle, threads = Path(sys.argv[1]), int(sys.argv[2])
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not come between the answers
    program = program_of(bundle)
    manifest = program.read_manifest(bundle)
    session = program.open_session(bundle, manifest, program.PROVIDERS["cpu"], threads)
    from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument  # here, since the server needs none

    names = [described["name"] for described in manifest["outputs"]]
    answer: Any = os.getpid()  # the first message says that the session is open
    while True:
        answers.write(packed(answer))
        answers.flush()
        feed = received(sys.stdin.buffer)
        if feed is None:
            return
        try:
            answer = session.run(names, feed)
        except Exception as error:  # onnxruntime's exceptions have no narrower class in common
            answer = " ".join(str(error).split()), isinstance(error, InvalidArgument)


if __name__ == "__main__":
    main()
