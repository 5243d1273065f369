"""What a sweep found, in a file: the next run with the same model, data and settings takes it from there."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.basics.places import write_atomically
from pconv_onnx.calibration.channels import Channels
from pconv_onnx.calibration.staircases import Staircase
from pconv_onnx.calibration.sweep import Found
from pconv_onnx.calibration.writing import Correction, Quantised
from pconv_onnx.data.archives import read_npz
from pconv_onnx.recognise import Activation

_VERSION = 7


def digest_of(model: str, samples: bytes, steps: int, method: str) -> str:
    """What a calibration depends on, as a digest: digests of the model and of the samples, T and the method."""
    return _digest([_VERSION, model, samples.hex(), int(steps), method], {})


def store(path: str | os.PathLike[str], key: str, found: Found) -> None:
    """Write the file.

    Raises:
        PconvError: it cannot be written.
    """
    arrays: dict[str, Array] = {}
    rows = []
    for index, entry in enumerate(found.activations):
        staircase = entry.staircase
        values = {"threshold": staircase.threshold, "shift": staircase.shift, "amplitude": staircase.amplitude}
        others = {"offset": entry.offset, "thresholds": entry.thresholds}
        values |= {name: value for name, value in others.items() if value is not None}
        arrays |= {f"activation/{index}/{name}": value for name, value in values.items()}
        rows.append([entry.activation.name, entry.channels.axis, entry.channels.rank, staircase.steps])
    for index, correction in enumerate(found.corrections.values()):
        arrays |= {f"layer/{index}/weights": correction.weights, f"layer/{index}/bias": correction.bias}
    meta = {
        "key": key,
        "activations": rows,
        "layers": list(found.corrections),
        "errors": found.errors,
        "uncorrected": found.uncorrected,
        "left": found.left,
    }
    meta["sha256"] = _digest(meta, arrays)
    arrays["meta"] = np.array(json.dumps(meta))
    write_atomically(path, lambda file: np.savez(file, allow_pickle=False, **arrays))


def restore(path: str | os.PathLike[str], key: str, activations: Sequence[Activation]) -> Found | None:
    """What the file holds; None where there is none, or where it is of another model, other data or settings.

    Raises:
        PconvError: the file is not one of these.
    """
    if not Path(path).exists():
        return None
    try:
        arrays = read_npz(path)
        meta = json.loads(str(arrays.pop("meta")))
        if meta["key"] != key:
            return None
        if meta.pop("sha256") != _digest(meta, arrays):
            raise ValueError("it is not as it was written")
    except (OSError, MemoryError, KeyError, TypeError, ValueError, RecursionError) as error:
        told = "calibrate has not written it" if isinstance(error, KeyError | TypeError) else error
        raise PconvError(f"'{path}' is not a calibration: {told}", "name another file, or remove it") from error
    by_name = {activation.name: activation for activation in activations}
    found = Found(errors=meta["errors"], uncorrected=meta["uncorrected"], left=meta["left"])
    for index, (name, axis, rank, steps) in enumerate(meta["activations"]):
        threshold, shift, amplitude = (
            arrays[f"activation/{index}/{part}"] for part in ("threshold", "shift", "amplitude")
        )
        offset, thresholds = (arrays.get(f"activation/{index}/{part}") for part in ("offset", "thresholds"))
        found.activations.append(
            Quantised(
                by_name[name], Staircase(threshold, shift, amplitude, steps), Channels(axis, rank), offset, thresholds
            )
        )
    for index, output in enumerate(meta["layers"]):
        weights, bias = (arrays[f"layer/{index}/{part}"] for part in ("weights", "bias"))
        found.corrections[output] = Correction(output, weights, bias)
    return found


def _digest(meta: Any, arrays: Mapping[str, Array]) -> str:
    total = hashlib.sha256(json.dumps(meta).encode())
    for name, array in sorted(arrays.items()):
        total.update(f"{name} {array.dtype} {array.shape}".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()
