"""What a calibration found, or has found so far, in a file, for the next run with the same model, data and settings."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.basics.choices import CORRECTING, MAX_STEPS, TUNE
from pconv_onnx.basics.errors import PconvError
from pconv_onnx.basics.writing import write_atomically
from pconv_onnx.calibration.channels import Channels
from pconv_onnx.calibration.outcome import Outcome
from pconv_onnx.calibration.settings import RULES, Settings
from pconv_onnx.calibration.staircases import Staircase
from pconv_onnx.calibration.sweep import Found
from pconv_onnx.calibration.writing import Correction, Quantised
from pconv_onnx.data.archives import read_npz
from pconv_onnx.neuron.parallel import MAX_LEVELS
from pconv_onnx.recognise import Activation

# Names of what is there beside rules that were tried: what the sweep found, and what was made of it in the end.
SWEEP, RESULT = "sweep", "result"
_VERSION = 17
_MOST_AXES = 64


def digest_of(model: str, samples: bytes, settings: Settings) -> str:
    """What a calibration depends on, as a digest: digests of the model and of the samples, and the settings."""
    return _digest([_VERSION, model, samples.hex(), *settings.told], {})


def store(path: str | os.PathLike[str], key: str, sweeps: Mapping[str, Found], outcome: Outcome | None = None) -> None:
    """Write the file.

    Args:
        path: of the file.
        key: what it all depends on.
        sweeps: what was found, by the name of what found it: a rule that was tried, `SWEEP`, `TUNE`, or `RESULT`
            at the end.
        outcome: of the result.

    Raises:
        PconvError: it cannot be written.
    """
    arrays: dict[str, Array] = {}
    meta = {
        "key": key,
        "sweeps": {name: _document(found, f"{name}/", arrays) for name, found in sweeps.items()},
        "outcome": None if outcome is None else asdict(outcome),
    }
    meta["sha256"] = _digest(meta, arrays)
    arrays["meta"] = np.array(json.dumps(meta))
    # NumPy before 2.1 would take an `allow_pickle` for one more array.
    write_atomically(path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]


def _document(found: Found, prefix: str, arrays: dict[str, Array]) -> dict[str, Any]:
    """What was found, without its arrays, which are added to the others with such names."""
    rows = []
    for index, entry in enumerate(found.activations):
        staircase = entry.staircase
        values = {"threshold": staircase.threshold, "shift": staircase.shift, "amplitude": staircase.amplitude}
        others = {"offset": entry.offset, "thresholds": entry.thresholds}
        values |= {name: value for name, value in others.items() if value is not None}
        arrays |= {f"{prefix}activation/{index}/{name}": value for name, value in values.items()}
        rows.append([entry.activation.name, entry.channels.axis, entry.channels.rank, staircase.steps, staircase.zero])
    for index, correction in enumerate(found.corrections.values()):
        layer = f"{prefix}layer/{index}"
        arrays |= {f"{layer}/weights": correction.weights, f"{layer}/bias": correction.bias}
    return {
        "activations": rows,
        "layers": list(found.corrections),
        "errors": found.errors,
        "uncorrected": found.uncorrected,
        "left": found.left,
        "steps": found.steps,
        "rule": found.rule,
        "rule_errors": found.rule_errors,
        "tuning_errors": found.tuning_errors,
        "finished": found.finished,
    }


def restore(
    path: str | os.PathLike[str], key: str, activations: Sequence[Activation]
) -> tuple[dict[str, Found], Outcome | None]:
    """What the file holds, as `store` takes it; nothing where there is none, or where it has another key.

    Raises:
        PconvError: the file is not one of these.
    """
    if not Path(path).exists():
        return {}, None
    try:
        arrays = read_npz(path)
        meta = json.loads(str(arrays.pop("meta")))
        if meta["key"] != key:
            return {}, None
        if meta.pop("sha256") != _digest(meta, arrays):
            raise ValueError("it is not as it was written")
        named = {activation.name: activation for activation in activations}
        sweeps = dict(meta["sweeps"])
        _require(sweeps.keys() <= {*RULES, SWEEP, TUNE, RESULT}, "sweeps")
        found = {name: _found(told, f"{name}/", arrays, named) for name, told in sweeps.items()}
        return found, _outcome(meta["outcome"])
    except (OSError, MemoryError, KeyError, TypeError, ValueError, RecursionError) as error:
        told = "calibrate has not written it" if isinstance(error, KeyError | TypeError) else error
        raise PconvError(f"'{path}' is not a calibration: {told}", "name another file, or remove it") from error


def _found(
    meta: Mapping[str, Any], prefix: str, arrays: Mapping[str, Array], activations: Mapping[str, Activation]
) -> Found:
    """What was found, of a file that anyone may have written: its digest is no signature."""
    found = Found(
        errors=list(meta["errors"]),
        uncorrected=list(meta["uncorrected"]),
        left=dict(meta["left"]),
        steps=dict(meta["steps"]),
        rule=meta["rule"],
        rule_errors=dict(meta["rule_errors"]),
        tuning_errors=dict(meta["tuning_errors"]),
        finished=meta["finished"],
    )
    for index, (name, axis, rank, steps, zero) in enumerate(meta["activations"]):
        place = f"{prefix}activation/{index}/"
        parts = {key.removeprefix(place): array for key, array in arrays.items() if key.startswith(place)}
        _require(_fit(parts, axis, rank, steps, zero), name)
        staircase = Staircase(parts["threshold"], parts["shift"], parts["amplitude"], steps, zero)
        offset, thresholds = parts.get("offset"), parts.get("thresholds")
        found.activations.append(Quantised(activations[name], staircase, Channels(axis, rank), offset, thresholds))
    for index, output in enumerate(meta["layers"]):
        weights, bias = (arrays[f"{prefix}layer/{index}/{part}"] for part in ("weights", "bias"))
        _require(weights.dtype == bias.dtype == np.float32 and weights.ndim > 1 == bias.ndim, output)
        found.corrections[output] = Correction(output, weights, bias)
    errors = (*found.errors, *found.rule_errors.values(), *found.tuning_errors.values())
    numbers = all(isinstance(error, float) for error in errors)
    _require(found.rule in RULES and found.rule_errors.keys() <= set(RULES), "rule")
    _require(found.tuning_errors.keys() <= set(CORRECTING), "tuning")
    texts = all(isinstance(text, str) for text in (*found.uncorrected, *found.left, *found.left.values()))
    _require(numbers and texts and len(found.errors) == len(found.activations), "errors")
    _require(type(found.finished) is bool, "finished")
    steps = all(type(number) is int and 1 <= number <= MAX_STEPS for number in found.steps.values())
    _require(steps and all(isinstance(name, str) for name in found.steps), "steps")
    return found


def _outcome(told: Any) -> Outcome | None:
    """What it did to the outputs; None of random data."""
    if told is None:
        return None
    outcome = Outcome(**told)
    numbers = (outcome.agreement, outcome.output_error, outcome.cosine, outcome.divergence)
    right = type(outcome.samples) is int and type(outcome.held_out) is bool and isinstance(outcome.sensitivity, dict)
    right = right and all(value is None or isinstance(value, float) for value in numbers)
    _require(right and all(isinstance(value, float) for value in outcome.sensitivity.values()), "outcome")
    return outcome


def _fit(parts: Mapping[str, Array], axis: Any, rank: Any, steps: Any, zero: Any) -> bool:
    """Whether arrays are those of a staircase of so many steps, along an axis of so many."""
    if not all(type(number) is int for number in (rank, steps, zero, 0 if axis is None else axis)):
        return False
    shape = parts["threshold"].shape
    return (
        1 <= steps <= MAX_LEVELS
        and 0 <= zero < steps
        and 0 <= rank <= _MOST_AXES
        and (axis is None or 0 <= axis < rank)
        and len(shape) == 1 <= shape[0]
        and all(
            array.dtype.kind == "f" and array.shape == ((*shape, steps) if name == "thresholds" else shape)
            for name, array in parts.items()
        )
    )


def _require(right: bool, what: Any) -> None:
    if not right:
        raise ValueError(f"what it holds of '{what}' does not fit")


def _digest(meta: Any, arrays: Mapping[str, Array]) -> str:
    total = hashlib.sha256(json.dumps(meta).encode())
    for name, array in sorted(arrays.items()):
        total.update(f"{name} {array.dtype} {array.shape}".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()
