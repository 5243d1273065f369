"""Mutated models that are kept where they reach code that none before them reached, by atheris (libFuzzer).

    python tests/fuzzing/guided.py -runs=20000 -seed=1

Takes libFuzzer's options; folders among them hold models to begin with besides those of `corpus`. The first model that
is neither converted nor refused in one line ends it, and is kept as `crash-…`; that name repeats it.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))

with atheris.instrument_imports(include=["pconv_onnx"]):
    from fuzzing import corpus, hostile, mutants
    from pconv_onnx import inspect, rewrite

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError

# Names of nodes and of the domain that the corpus has make it larger than libFuzzer expects of an input.
_LARGEST = 1 << 16


def main() -> None:
    """Mutate until libFuzzer's options say that it is enough."""
    warnings.simplefilter("ignore")
    onnxruntime.set_default_logger_severity(4)
    with tempfile.TemporaryDirectory() as folder:
        for name, model in _beginnings().items():
            (Path(folder) / name).write_bytes(model.SerializeToString())
        options = [sys.argv[0], f"-max_len={_LARGEST}", "-timeout=60", "-rss_limit_mb=6144", *sys.argv[1:]]
        # A file is run by itself, and needs none to begin with.
        if not any(Path(option).is_file() for option in sys.argv[1:]):
            options.append(folder)
        atheris.Setup(options, _check, custom_mutator=_mutated)
        atheris.Fuzz()


def _beginnings() -> dict[str, onnx.ModelProto]:
    spiking = {f"spiking {name}": model for name, (model, _) in corpus.spiking().items()}
    return corpus.sources() | spiking


def _check(content: bytes) -> None:
    found: list[str] = []
    with tempfile.TemporaryDirectory() as folder, np.errstate(all="ignore"):
        path = Path(folder) / "model.onnx"
        path.write_bytes(content)
        hostile.attempt(found, "inspect", lambda: inspect(path))
        mode = ("parallel", "folded", "serial")[len(content) % 3]
        result = hostile.attempt(found, f"rewrite {mode}", lambda: rewrite(path, mode=mode))
        if result is not None:
            onnx.checker.check_model(result.model)
    if found:
        raise AssertionError("; ".join(found))


def _mutated(content: bytes, largest: int, seed: int) -> bytes:
    random = np.random.default_rng(seed)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
        changed = mutants.of_structure(model, random).SerializeToString()
    except (DecodeError, ValueError):
        changed = b""
    if not changed or random.random() < 0.1:
        changed = mutants.of_bytes(content, random, content)
    return changed if len(changed) <= largest else content


if __name__ == "__main__":
    main()
