"""One network of a benchmark: how it is opened, and run alone in a process to measure peak memory.

`python -m pconv_onnx.measure.candidate` is that process.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pconv_onnx.basics.choices import PROVIDERS
from pconv_onnx.basics.process import peak_memory
from pconv_onnx.measure.timing import session_options
from pconv_onnx.plan.modes import MODES
from pconv_onnx.runtime.opening import session, stock_session
from pconv_onnx.runtime.serial_session import SerialSession

# Candidates other than the modes.
ANN, STOCK, QUANTISED, BODY = "ANN", "int8 ANN", "quantised ANN", "function body"
_RUNS = 3


@dataclass(frozen=True)
class Candidate:
    """A network to be measured.

    Attributes:
        mode: the ANN as given, in 8 bits as onnxruntime makes it, or quantised; the parallel network without the native
            library, through its function body; or, by the name of its mode, a spiking network with it.
        path: its file.
        provider: a name in `PROVIDERS`.
    """

    mode: str
    path: str
    provider: str

    def open(self) -> Any:
        """Open a session of it.

        Raises:
            PconvError: it does not load, or not there.
        """
        providers = PROVIDERS[self.provider]
        options = session_options()
        options.log_severity_level = 4  # errors are raised; logged as well they would be told twice
        if self.mode == BODY:
            return stock_session(self.path, providers=providers, options=options)
        if self.mode in MODES and MODES[self.mode].one_step:
            return SerialSession(self.path, providers=providers, options=options)
        return session(self.path, providers=providers, options=options)

    def peak_memory(self, inputs: list[str], feed: str) -> float | None:
        """The peak resident memory, in MiB, of a process that opens a session and runs it a few times.

        Of a process on a GPU that is its memory outside of the GPU.

        Args:
            inputs: names of its inputs.
            feed: an .npz of unnamed arrays, one an input.

        Returns:
            None where the process fails, or the system does not tell.
        """
        task = json.dumps({"candidate": asdict(self), "inputs": inputs, "feed": feed})
        command = [sys.executable, "-m", "pconv_onnx.measure.candidate", task]
        with suppress(OSError, ValueError):
            # A session of its own: Ctrl-C is for the one who asked.
            done = subprocess.run(command, capture_output=True, text=True, start_new_session=True)
            return float(done.stdout)
        return None


def _main(task: dict[str, Any]) -> None:
    runner = Candidate(**task["candidate"]).open()
    with np.load(task["feed"]) as arrays:
        feed = dict(zip(task["inputs"], arrays.values(), strict=True))
    for _ in range(_RUNS):
        runner.run(None, feed)
    print(peak_memory())


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
