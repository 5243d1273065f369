"""One model file of another project: what becomes of it, from reading to `verify`."""

from __future__ import annotations

import contextlib
import re
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from fuzzing.workers import enter
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from pconv_onnx import PconvError, calibrate, inspect, rewrite, session, verify
from pconv_onnx.data.reading import random_samples
from pconv_onnx.graph.nesting import nodes_within
from pconv_onnx.graph.passes.pipeline import runnable

STEPS = 4
# Of networks in full size, where correcting weights would take minutes.
_METHODS = {"onnx-backend-light": "mse"}
# What onnxruntime does with a file: where it does not survive that, the fault is not ours.
FOREIGN = "onnxruntime loads the file"

Array = np.ndarray[Any, np.dtype[Any]]
# Of these a network has levels, or could be given some.
_ACTIVATIONS = {
    "BipolarQuant", "Celu", "Clip", "DequantizeLinear", "Elu", "Gelu", "HardSigmoid", "HardSwish",
    "LeakyRelu", "Mish", "MultiThreshold", "PRelu", "Quant", "QuantizeLinear", "QuickGelu", "Relu", "Selu", "Sigmoid",
    "Softplus", "Softsign", "Swish", "Tanh", "ThresholdedRelu",
}  # fmt: skip


@dataclass
class Row:
    """One file.

    Attributes:
        outcome: `unreadable`, `nothing to convert`, `refused`, `needs calibration`, `converted`, or how it ended:
            `timeout` or `crash`.
        reason: why it is unreadable or refused, without its names and numbers.
        loads: whether onnxruntime loads the file.
        activations: how many there are of each status.
        left: why activations are not converted, with how many have that reason.
        verdicts: that of `verify` on the network of each mode, or why there is none.
        calibrated: the same for the network that `calibrate` makes of it.
        data: the largest difference on the data that lie beside the file, as a share of the largest output.
        unseen: operators that could be an activation or hold one, where none was found.
        differences: what `verify` says of networks that are different, and why others do not run.
        faults: exceptions other than PconvError, and what a process ended at.
    """

    suite: str
    file: str
    outcome: str = ""
    reason: str = ""
    loads: bool = False
    activations: dict[str, int] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    verdicts: dict[str, str] = field(default_factory=dict)
    calibrated: dict[str, str] = field(default_factory=dict)
    data: dict[str, float] = field(default_factory=dict)
    unseen: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


class _Stopped(Exception):
    """A call came to no result; the reason is its text."""


def rows(case: tuple[str, str, Path]) -> list[dict[str, Any]]:
    """The row of one file of a suite, as JSON has it."""
    suite, file, path = case
    row = Row(suite, file)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        classify(row, path)
    return [asdict(row)]


def classify(row: Row, path: Path) -> None:
    """Fill in a row."""
    row.loads = _loads(path)
    try:
        report = _tried(row, "inspect", lambda: inspect(path))
    except _Stopped as stopped:
        row.outcome, row.reason = "unreadable", str(stopped)
        return
    row.activations = {status: count for status, count in report["counts"].items() if count}
    left = [nameless(activation["reason"]) for activation in report["activations"] if activation["reason"]]
    row.left = dict(Counter(left))
    if not report["activations"]:
        row.outcome, row.unseen = "nothing to convert", _unseen(path)
        return
    data = given_data(path)
    signs = (False, True) if any("`signed=True`" in reason for reason in left) else (False,)
    for signed in signs:
        _convert(row, row.verdicts, path, data, signed=signed)
    if report["counts"]["needs_calibration"]:
        _calibrate(row, path, data)
    if row.verdicts:
        row.outcome = "converted"
    elif report["counts"]["needs_calibration"]:
        row.outcome = "needs calibration"
    else:
        row.outcome, row.reason = "refused", left[0]


def _convert(
    row: Row, verdicts: dict[str, str], ann: Path | onnx.ModelProto, data: dict[str, Array], *, signed: bool = False
) -> None:
    """Rewrite in both modes that keep values, and judge what comes of it."""
    for mode in ("parallel", "folded"):
        name = f"{mode}{', signed' if signed else ''}"
        with contextlib.suppress(_Stopped):
            snn = _tried(row, f"rewrite {name}", lambda mode=mode: rewrite(ann, mode=mode, signed=signed)).model
            verdicts[name] = _judged(row, name, ann, snn, data)


def _calibrate(row: Row, path: Path, data: dict[str, Array]) -> None:
    """Calibrate on random data, or what the suite has, and convert what comes of it."""
    try:
        settings = _settings(data, "random")
        method = _METHODS.get(row.suite, "refit")
        found = _first(
            row,
            "calibrate",
            settings,
            # So that all modes take them.
            lambda given: calibrate(path, steps=STEPS, method=method, readouts="spiking", **given),
        )
    except _Stopped as stopped:
        row.calibrated["calibrate"] = str(stopped)
        return
    _convert(row, row.calibrated, found.model, data)
    if not row.calibrated:
        row.calibrated["rewrite"] = "refused"


def _judged(row: Row, name: str, ann: Path | onnx.ModelProto, snn: onnx.ModelProto, data: dict[str, Array]) -> str:
    """The verdict, or why there is none."""
    kind = f"{name}, calibrated" if isinstance(ann, onnx.ModelProto) else name
    try:
        found = _first(row, f"verify {kind}", _settings(data), lambda given: verify(ann, snn, **given))
    except _Stopped as stopped:
        if not _runs_alone(ann, snn):
            return f"not compared: {stopped}"
        row.differences.append(f"{kind} does not run, and its source does: {stopped}")
        return "does not run"
    row.differences += [f"{kind}: {told}" for told in found.differences]
    if (difference := _on_data(ann, snn, data)) is not None:
        row.data[kind] = difference
    return found.verdict


def _runs_alone(ann: Path | onnx.ModelProto, snn: onnx.ModelProto) -> bool:
    """Whether a source runs on random inputs and what was made of it does not, for another reason than memory."""
    try:
        runner = session(runnable(ann).proto)
        feed = dict(random_samples(runner).arrays)
        runner.run(None, feed)
    except Exception:  # onnxruntime's own, or there is no input that could be drawn
        return False
    try:
        session(snn).run(None, feed)
    except Exception as error:
        return not any(told in str(error) for told in ("bad_alloc", "Failed to allocate memory"))
    return False


def _settings(data: dict[str, Array], default: str | None = None) -> list[dict[str, Any]]:
    """Samples for a network, in the order to try: random along the first axis or along none, and what is given."""
    settings: list[dict[str, Any]] = [{"data": default}, {"data": default, "batch_axis": None}]
    if data:
        one = {name: value[np.newaxis] for name, value in data.items()}
        settings.append({"data": one, "batch_axis": None})
    return settings


def _first(row: Row, what: str, settings: list[dict[str, Any]], call: Callable[[dict[str, Any]], Any]) -> Any:
    """What a call gives with the first settings that it takes.

    Raises:
        _Stopped: it takes none; the reason is that of the first.
    """
    reasons = []
    for given in settings:
        try:
            return _tried(row, what, lambda given=given: call(given))
        except _Stopped as stopped:
            reasons.append(str(stopped))
    raise _Stopped(reasons[0])


def _tried(row: Row, what: str, call: Callable[[], Any]) -> Any:
    """What a call gives; an exception other than PconvError is a fault of ours.

    Raises:
        _Stopped: it raises either.
    """
    enter(what)
    try:
        return call()
    except PconvError as error:
        raise _Stopped(nameless(error.message)) from error
    except Exception as error:  # whatever it is, users see it as a traceback
        place = traceback.extract_tb(error.__traceback__)[-1]
        last = traceback.format_exception_only(error)[-1].strip()
        told = f"{what}: {last[:300]} ({Path(place.filename).name}:{place.lineno})"
        row.faults += [told] if told not in row.faults else []
        raise _Stopped("traceback") from error


def _loads(path: Path) -> bool:
    """Whether onnxruntime loads a file."""
    enter(FOREIGN)
    try:
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception:  # it has many of its own
        return False
    return True


def _unseen(path: Path) -> list[str]:
    model = onnx.load(path, load_external_data=False)
    bodies = [model.graph.node, *(function.node for function in model.functions)]
    nodes = [node for body in bodies for node in nodes_within(body)]
    fused = {
        f"{node.domain}.{node.op_type}" for node in nodes for entry in node.attribute if entry.name == "activation"
    }
    return sorted(fused | ({node.op_type for node in nodes} & _ACTIVATIONS))


def given_data(path: Path) -> dict[str, Array]:
    """The first inputs that lie beside a model, in the form of onnx's backend tests; nothing where they are none."""
    inputs = [file.read_bytes() for file in _inputs_beside(path)]
    model = onnx.load(path, load_external_data=False)
    constants = {tensor.name for tensor in model.graph.initializer}
    wanted = [info.name for info in model.graph.input if info.name not in constants]
    try:
        arrays = [numpy_helper.to_array(onnx.TensorProto.FromString(content)) for content in inputs]
    except (DecodeError, TypeError, ValueError):  # a sequence or a map
        return {}
    return dict(zip(wanted, arrays, strict=True)) if len(wanted) == len(arrays) else {}


def _inputs_beside(path: Path) -> Iterator[Path]:
    folder = path.parent / "test_data_set_0"
    return iter(sorted(folder.glob("input_*.pb"), key=lambda file: int(file.stem.removeprefix("input_"))))


def _on_data(ann: Path | onnx.ModelProto, snn: onnx.ModelProto, data: dict[str, Array]) -> float | None:
    """How far outputs are apart on given data, as a share of the largest; None where onnxruntime runs neither."""
    if not data:
        return None
    try:
        expected, outputs = (session(model).run(None, data) for model in (ann, snn))
    except Exception:  # QONNX's operators, for example, which onnxruntime does not know
        return None
    numbers = [(one, other) for one, other in zip(expected, outputs, strict=True) if getattr(one, "size", 0)]
    numbers = [(one, other) for one, other in numbers if one.dtype.kind in "fiub"]
    largest = max((float(np.abs(one.astype(float)).max()) for one, _ in numbers), default=0.0)
    apart = max((float(np.abs(one.astype(float) - other.astype(float)).max()) for one, other in numbers), default=0.0)
    return apart / (largest or 1.0)


def nameless(sentence: str) -> str:
    """A sentence without what it quotes and counts, so that equal reasons are one."""
    sentence = re.sub(r"'[^']*'|\"[^\"]*\"", "…", sentence)
    sentence = re.sub(r"\[[^\]]*\]|(?<![\w…])-?\d[\d.,]*(e[+-]?\d+)?", "…", sentence)
    return re.sub(r"…(, …)+", "…", sentence)
