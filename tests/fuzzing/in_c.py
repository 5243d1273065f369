"""Random quantised networks of integers as C: do programs under sanitizers give every bit that onnxruntime gives?"""

from __future__ import annotations

import subprocess
import tempfile
import warnings
from pathlib import Path

import numpy as np

from pconv_onnx import PconvError, deploy, rewrite, session

from .quantised import quantised

WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")
SANITIZED = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def faults(seed: int, compiler: str = "cc") -> list[str]:
    """What is wrong with the program of the network of one seed; empty where all is right, or it is refused."""
    model, feed, options = quantised(seed)
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        try:
            rewriting = rewrite(model, mode="integer", **options)
        except PconvError:  # the fuzzing of integers knows why it may be
            return []
        network = Path(folder, "network")
        try:
            deploy(rewriting.model, network, target="c")
        except PconvError as error:
            return [] if rewriting.summary()["integer"]["islands"] else [f"it is refused: {error}"]
        build = [compiler, *WARNINGS, *SANITIZED, "network.c", "main.c", "-o", "run"]
        rows = [values.reshape(len(values), -1) for values in feed.values()]
        np.concatenate(rows, axis=1).tofile(network / "inputs.raw")
        for command in (build, ["./run", "inputs.raw", "outputs.raw"]):
            result = subprocess.run(command, cwd=network, capture_output=True, text=True)
            if result.returncode:
                return [f"{command[0]}: {result.stderr[-1000:]}"]
        given = np.fromfile(network / "outputs.raw", np.uint32)
        runner = session(rewriting.model)
        samples = range(len(rows[0]))
        outputs = [runner.run(None, {name: values[[row]] for name, values in feed.items()}) for row in samples]
    expected = np.concatenate([tensor.reshape(-1) for each in outputs for tensor in each]).view(np.uint32)
    if given.shape != expected.shape:
        return [f"it gives {given.size} numbers, not {expected.size}"]
    differing = int((given != expected).sum())
    return [f"{differing} of {given.size} outputs differ"] if differing else []
