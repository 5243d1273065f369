"""Mutated model files: is each refused in one sentence, or converted without a change of value?"""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from pconv_onnx import PconvError, SerialSession, deploy, inspect, rewrite, session, stats, verify

from . import corpus, mutants
from .workers import enter

_MODES = ("folded", "parallel", "serial")
_LARGEST = 4096
Array = np.ndarray[Any, np.dtype[Any]]

# What runs a network that onnxruntime may not survive: not ours to mend, and not counted as a fault of ours.
FOREIGN = "onnxruntime runs the source"


def faults(seed: int) -> list[str]:
    """What is wrong with what becomes of the mutant of one seed; empty where all is right."""
    random = np.random.default_rng(seed)
    with warnings.catch_warnings(), np.errstate(all="ignore"), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        if random.random() < 0.3:
            name = list(corpus.spiking())[random.integers(len(corpus.spiking()))]
            model, source = corpus.spiking()[name]
            return _spiking(_mutant(model, random, Path(folder)), source, random, Path(folder))
        name = list(corpus.sources())[random.integers(len(corpus.sources()))]
        return _source(_mutant(corpus.sources()[name], random, Path(folder)), random)


def _mutant(model: onnx.ModelProto, random: np.random.Generator, folder: Path) -> onnx.ModelProto | Path:
    """A mutant in memory, or in a file with or without external data."""
    changed = model
    by_structure = random.random() < 0.75
    if by_structure:
        enter("the mutant is made")
        changed = mutants.of_structure(model, random)
        if random.random() < 0.4:
            return changed
    path = folder / "model.onnx"
    (folder / "w.bin").write_bytes(random.bytes(256))
    if not by_structure and random.random() < 0.2:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        onnx.save(copy, path, save_as_external_data=True, location="w.bin", size_threshold=0)
        content = path.read_bytes()
    else:
        content = changed.SerializeToString()
    if not by_structure:
        other = list(corpus.sources().values())[random.integers(len(corpus.sources()))].SerializeToString()
        content = mutants.of_bytes(content, random, other)
    elif random.random() < 0.1:
        content = content.replace(b"c_scaled", b"c_\xff\xfe\xfdled").replace(b"\nConv", b"\n\xc3\xc3\xc3v")
    path.write_bytes(content)
    return path


def _source(mutant: onnx.ModelProto | Path, random: np.random.Generator) -> list[str]:
    found: list[str] = []
    attempt(found, "inspect", lambda: inspect(mutant))
    models = {}
    for mode in random.permutation(_MODES)[: 1 + int(3 * random.random() ** 2)].tolist():
        result = attempt(
            found, f"rewrite {mode}", lambda mode=mode: rewrite(mutant, mode=mode, signed=bool(random.integers(2)))
        )
        if result is not None:
            models[mode] = result.model
    if not models or found:
        return found
    source = _in_memory(mutant)
    feed = None if source is None else _feed(source, random)
    expected = None if feed is None else _foreign(source, feed)
    for mode, model in models.items():
        enter(f"{mode} runs")
        problem, outputs = _run(model, feed or {}) if feed is not None else (_opened(model), None)
        if problem and expected is not None:
            found.append(f"{mode} does not run where the source does: {problem}")
        if mode == "folded" and outputs is not None and expected is not None:
            found += _differences(source, feed or {}, expected, outputs)
    return found


def _spiking(
    mutant: onnx.ModelProto | Path, source: onnx.ModelProto, random: np.random.Generator, folder: Path
) -> list[str]:
    found: list[str] = []
    kind = int(random.integers(6))
    if kind == 0:
        attempt(found, "verify", lambda: verify(source, mutant))
    elif kind == 1:
        attempt(found, "stats", lambda: stats(mutant))
    elif kind == 2:
        target = str(random.choice(["bundle", "triton"]))
        attempt(found, "deploy", lambda: deploy(mutant, folder / "out", target=target))
        if not (folder / "out").exists() and list(folder.glob(".pconv*")):
            found.append("deploy leaves files behind")
    elif kind == 3:
        attempt(found, "rewrite", lambda: rewrite(mutant))
        attempt(found, "inspect", lambda: inspect(mutant))
    elif kind == 4:
        runner = attempt(found, "SerialSession", lambda: SerialSession(mutant))
        feed = None if runner is None else _drawn(runner.get_inputs(), random)
        if runner is not None and feed is not None:
            attempt(found, "SerialSession runs", lambda: runner.run(None, feed, steps=2))
    else:
        runner = attempt(found, "session", lambda: session(mutant))
        feed = None if runner is None else _drawn(runner.get_inputs(), random)
        if runner is not None and feed is not None:
            enter("the session runs")
            with contextlib.suppress(*_OWN_ERRORS):
                runner.run(None, feed)
    return found


# What onnxruntime raises while a session that the user holds runs.
_OWN_ERRORS = (RuntimeError, ValueError, *(value for value in vars(onnxruntime.capi.onnxruntime_pybind11_state).values()
               if isinstance(value, type) and issubclass(value, Exception)))  # fmt: skip


def attempt(found: list[str], what: str, call: Callable[[], Any]) -> Any:
    """The result of a call that may refuse, in one line; anything else that it raises is a fault."""
    enter(what)
    try:
        return call()
    except PconvError as error:
        told = str(error)
        if len(told.splitlines()) != 1 or not told.strip() or not told.isprintable():
            found.append(f"{what} is refused in other than one printable line: {told[:200]!r}")
    except Exception as error:  # whatever it is, it is a fault
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = "" if trace is None else f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        found.append(f"{what}: {type(error).__name__} at {place}: {str(error)[:200]!r}")
    return None


def _in_memory(mutant: onnx.ModelProto | Path) -> onnx.ModelProto | None:
    if isinstance(mutant, onnx.ModelProto):
        return mutant
    try:
        return onnx.load(mutant)
    except Exception:  # it has loaded before; but never mind
        return None


def _feed(model: onnx.ModelProto, random: np.random.Generator) -> dict[str, Array] | None:
    """Small inputs; None where the model takes others."""
    constants = {tensor.name for tensor in model.graph.initializer}
    feed = {}
    for info in model.graph.input:
        if info.name in constants:
            continue
        tensor = info.type.tensor_type
        shape = [size.dim_value if size.HasField("dim_value") else 2 for size in tensor.shape.dim]
        array = _values(shape, tensor.elem_type, random)
        if array is None:
            return None
        feed[info.name] = array
    return feed


def _drawn(inputs: list[Any], random: np.random.Generator) -> dict[str, Array] | None:
    """Small inputs of a session."""
    kinds = {"tensor(float)": 1, "tensor(float16)": 10, "tensor(int64)": 7}
    feed = {}
    for info in inputs:
        shape = [size if isinstance(size, int) else 2 for size in info.shape]
        array = _values(shape, kinds.get(info.type, 0), random)
        if array is None:
            return None
        feed[info.name] = array
    return feed


def _values(shape: list[int], element: int, random: np.random.Generator) -> Array | None:
    small = all(0 <= size <= _LARGEST for size in shape) and np.prod(shape, dtype=float) <= _LARGEST
    if not small or element not in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT64):
        return None
    return np.asarray(random.normal(0, 2, shape)).astype(helper.tensor_dtype_to_np_dtype(element))


def _options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def _opened(model: onnx.ModelProto) -> str:
    try:
        session(model, options=_options())
    except PconvError as error:
        return str(error)
    return ""


def _run(model: onnx.ModelProto, feed: dict[str, Array]) -> tuple[str, list[Array] | None]:
    """Why a network does not run, or its outputs, without optimisations."""
    names = {info.name for info in model.graph.input}
    try:
        runner = session(model, options=_options())
        full = {name: values for name, values in feed.items() if name in names}
        for info in runner.get_inputs():
            if info.name not in full:
                shape = [size if isinstance(size, int) else 2 for size in info.shape]
                full[info.name] = np.zeros(shape, np.float16 if "16" in info.type else np.float32)
        return "", list(runner.run(None, full))
    except (PconvError, *_OWN_ERRORS) as error:
        return str(error)[:200], None


def _foreign(model: onnx.ModelProto, feed: dict[str, Array]) -> list[Array] | None:
    """What the source gives, if onnxruntime takes it at all and it gives the same each time."""
    enter(FOREIGN)
    try:
        runner = onnxruntime.InferenceSession(model.SerializeToString(), _options(), ["CPUExecutionProvider"])
        first, second = (list(runner.run(None, feed)) for _ in range(2))
    except Exception:  # onnxruntime's own, without a common base
        return None
    return first if _equal(first, second) else None


def _differences(
    source: onnx.ModelProto, feed: dict[str, Array], expected: list[Array], outputs: list[Array]
) -> list[str]:
    if _equal(outputs, expected) or _meets_nan(source, feed):
        return []
    return [f"folded gives another value: {outputs} for {expected}"[:600]]


def _equal(some: list[Array], others: list[Array]) -> bool:
    return len(some) == len(others) and all(
        np.array_equal(one, other, equal_nan=one.dtype.kind == "f") for one, other in zip(some, others, strict=True)
    )


def _meets_nan(source: onnx.ModelProto, feed: dict[str, Array]) -> bool:
    """Whether a tensor within the source is NaN, for which neurons are silent, or that cannot be seen."""
    seen = onnx.ModelProto()
    seen.CopyFrom(source)
    declared = {info.name for info in seen.graph.output}
    names = {name for node in seen.graph.node for name in node.output if name}
    seen.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(names - declared))
    values = _foreign(seen, feed)
    if values is None:
        return True
    return any(
        value.dtype.kind == "f" and bool(np.isnan(value).any()) for value in values if isinstance(value, np.ndarray)
    )
