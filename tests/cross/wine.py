"""A plugin of pytest by which sessions of onnxruntime run on Windows' build of it, under Wine: `make wine`.

A run is one of a bundle's C++ program, with the native library for Windows where the session's options have it. So what
the tests compare are the values that Windows' libraries give. What else they ask a session is answered on this system.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest


class _Options(onnxruntime.SessionOptions):
    """Options that remember whether the native library is registered."""

    registered = False

    def register_custom_ops_library(self, path: str) -> None:
        super().register_custom_ops_library(path)
        self.registered = True


def _session(program: Path) -> type[onnxruntime.InferenceSession]:
    """The sessions of a program."""

    class Session(onnxruntime.InferenceSession):
        def __init__(self, model: bytes | str | Path, sess_options: Any = None, *rest: Any, **named: Any) -> None:
            super().__init__(model, sess_options, *rest, **named)
            registered = sess_options is not None and sess_options.registered
            self._model, self._library = model, program.with_name("pconv_ops.dll") if registered else "-"

        def run(self, wanted: Sequence[str] | None, feed: Mapping[str, Any], *rest: Any) -> list[Any]:
            # What is refused here need not be refused there in the same words.
            super().run(wanted, feed, *rest)
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                model = self._model
                if isinstance(model, bytes):
                    (folder / "model.onnx").write_bytes(model)
                    model = "model.onnx"
                inputs = [f"in{index}.npy" for index in range(len(self.get_inputs()))]
                for path, given in zip(inputs, self.get_inputs(), strict=True):
                    np.save(folder / path, np.ascontiguousarray(feed[given.name]))
                # Into a file: services that Wine starts keep what they inherit open, so that a pipe would not end.
                with (folder / "told").open("w+") as told:
                    done = subprocess.run(
                        ["wine", program, str(model), str(self._library), ".", *inputs],
                        cwd=folder,
                        stdout=told,
                        stderr=told,
                        timeout=300,
                    )
                    told.seek(0)
                    assert done.returncode == 0, told.read()
                names = [output.name for output in self.get_outputs()]
                return [np.load(folder / f"{names.index(output)}.npy") for output in wanted or names]

    return Session


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--windows", type=Path, required=True, help="folder of run_snn.exe and the libraries for Windows")


def pytest_configure(config: pytest.Config) -> None:
    program = config.getoption("windows").absolute() / "run_snn.exe"
    onnxruntime.SessionOptions = _Options
    onnxruntime.InferenceSession = _session(program)
