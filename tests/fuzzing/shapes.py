"""Networks of odd shapes through chains of commands: does each give an answer, or one line that says why not?

Sizes of 0, of 1 and far too large ones, negative ones, scalars, one name for two axes, ranks that nobody knows.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import traceback
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from networks import CONSTANTS
from onnx import TensorProto, helper, numpy_helper

from pconv_onnx import PconvError, SerialSession, session
from pconv_onnx.cli.main import main

from .hostile import attempt
from .workers import enter

_SIZES = ("N", "N", "M", None, 0, 0, 1, 1, 2, 3, 4, -1, 2**31, 2**40)
_HELD = (0, 1, 1, 2, 3, 4)
_MOST = 4096
_FORBIDDEN = (
    "Traceback",
    "RuntimeWarning",
    "divide by zero encountered",
    "invalid value encountered",
    "nan",
    "inf ",
    "None %",
)
Array = np.ndarray[Any, np.dtype[Any]]
Random = np.random.Generator


def faults(seed: int) -> list[str]:
    """What is wrong with what commands say of the network of one seed; empty where all is right."""
    random = np.random.default_rng(seed)
    found: list[str] = []
    with tempfile.TemporaryDirectory() as folder, np.errstate(all="warn"):
        path = Path(folder)
        model = _network(random)
        onnx.save(model, path / "ann.onnx")
        data = _data(model, path, random)
        for arguments in _chain(random, path, data):
            found += [f"{' '.join(arguments).replace(folder, '')}: {told}" for told in _told(arguments)]
        for name in ("snn.onnx", "ann.onnx"):
            if (path / name).exists() and random.random() < 0.3:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    _opened(found, path / name, random)
    return found


def _network(random: Random) -> onnx.ModelProto:
    """One or two layers around an activation, of shapes that need not fit."""
    shape = _shape(random)
    nodes: list[onnx.NodeProto] = []
    held: dict[str, Array] = {name: np.array(value, np.float32) for name, value in CONSTANTS.items()}
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    tensor = _layer("x", "c", shape, nodes, held, random)
    tensor = _activation(tensor, nodes, held, random)
    if random.random() < 0.6:
        tensor = _layer(tensor, "y", shape, nodes, held, random)
    if random.random() < 0.1:
        tensor = _activation(tensor, nodes, held, random, "again")
    if random.random() < 0.15:
        held["unused"] = np.zeros(_held(random), np.float32)
        nodes.append(helper.make_node("Neg", ["unused"], ["empty"], "empty"))
    if random.random() < 0.1:
        inputs.append(helper.make_tensor_value_info("second", TensorProto.FLOAT, _shape(random)))
        nodes.append(helper.make_node("Add", [tensor, "second"], ["sum"], "sum"))
        tensor = "sum"
    declared = None if random.random() < 0.7 else _shape(random)
    outputs = [helper.make_tensor_value_info(tensor, TensorProto.FLOAT, declared)]
    if any(node.output[0] == "empty" for node in nodes) and random.random() < 0.5:
        outputs.append(helper.make_tensor_value_info("empty", TensorProto.FLOAT, None))
    read = {name for node in nodes for name in node.input}
    tensors = [numpy_helper.from_array(values, name) for name, values in held.items() if name in read]
    graph = helper.make_graph(nodes, "odd", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _shape(random: Random) -> list[int | str | None] | None:
    """Sizes of an input, mostly such as a run can have."""
    if random.random() < 0.04:
        return None
    rank = int(random.choice([0, 1, 2, 2, 3, 4, 4, 5]))
    batch: list[int | str | None] = ["N", "N", "N", None, 0, 1, 2]
    odd = random.random() < 0.5
    sizes = [_SIZES[random.integers(len(_SIZES))] if odd else int(random.choice([1, 2, 3, 4])) for _ in range(rank)]
    return [batch[random.integers(len(batch))], *sizes[1:]] if rank else []


def _held(random: Random) -> tuple[int, ...]:
    return tuple(int(size) for size in random.choice(_HELD, int(random.integers(0, 4))))


def _layer(
    tensor: str, name: str, shape: list[Any] | None, nodes: list[onnx.NodeProto], held: dict[str, Array], random: Random
) -> str:
    """An operator between inputs and activations, of weights that mostly fit."""
    sizes = [size if isinstance(size, int) and 0 <= size < _MOST else 2 for size in shape or []]
    channels, last = (sizes[1] if len(sizes) > 1 else 2), (sizes[-1] if sizes else 2)
    outputs = int(random.choice([0, 1, 2, 3, 3, 3]))
    kind = str(random.choice(["Conv", "Conv", "MatMul", "MatMul", "Gemm", "Flatten", "Reshape", "Slice", "Resize",
                              "ReduceMean", "GlobalAveragePool", "Concat", "Add", "Identity", "Squeeze"]))  # fmt: skip
    inputs, attributes = [tensor], {}

    def hold(values: Array) -> str:
        held[f"{name}_{len(held)}"] = values
        return f"{name}_{len(held) - 1}"

    if kind == "Conv":
        inputs.append(hold(random.normal(size=(outputs, channels, *[1] * max(len(sizes) - 2, 1))).astype(np.float32)))
    elif kind == "MatMul":
        inputs.append(hold(random.normal(size=(last, outputs)).astype(np.float32)))
    elif kind == "Gemm":
        inputs += [hold(random.normal(size=(last, outputs)).astype(np.float32)), hold(np.zeros(outputs, np.float32))]
    elif kind == "Reshape":
        inputs.append(hold(np.array([[0, -1], [-1], [0, 0, -1], [1, -1], [0], []][random.integers(6)], np.int64)))
    elif kind == "Slice":
        inputs += [hold(np.array([int(random.integers(0, 3))])), hold(np.array([int(random.integers(0, 4))]))]
        inputs.append(hold(np.array([int(random.integers(-1, 2))])))
    elif kind == "Resize":
        scales = [1.0, 1.0, *[2.0] * (len(sizes) - 2)][: len(sizes)]
        inputs += [hold(np.zeros(0, np.float32)), hold(np.array(scales, np.float32))]
    elif kind == "ReduceMean":
        attributes = {"axes": [[-1], [1], [0, 1]][random.integers(3)], "keepdims": int(random.integers(2))}
    elif kind == "Concat":
        inputs.append(
            hold(np.zeros([0 if axis == len(sizes) - 1 else size for axis, size in enumerate(sizes)], np.float32))
        )
        attributes = {"axis": -1}
    elif kind == "Add":
        inputs.append(hold(random.normal(size=_held(random)).astype(np.float32)))
    nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
    return name


def _activation(
    tensor: str, nodes: list[onnx.NodeProto], held: dict[str, Array], random: Random, name: str = "a"
) -> str:
    """QCFS, quantisers, or what is to be calibrated."""
    kind = str(random.choice(["qcfs", "qdq", "Relu", "clip"]))
    if kind == "qcfs":
        theta = f"{name}_theta"
        held[theta] = np.full(_held(random) if random.random() < 0.3 else (), 2, np.float32)
        steps = [("Div", [tensor, theta]), ("Mul", ["", "count"]), ("Add", ["", "half"]), ("Floor", [""]),
                 ("Div", ["", "count"]), ("Clip", ["", "zero", "one"]), ("Mul", ["", theta])]  # fmt: skip
        for index, (op_type, inputs) in enumerate(steps):
            output = name if index == len(steps) - 1 else f"{name}_{index}"
            nodes.append(helper.make_node(op_type, [entry or tensor for entry in inputs], [output], output))
            tensor = output
        return name
    if kind == "qdq":
        rows = _held(random)[:1] if random.random() < 0.3 else ()
        held |= {f"{name}_s": np.full(rows, 0.25, np.float32), f"{name}_z": np.zeros(rows, np.uint8)}
        for op_type, output in (("QuantizeLinear", f"{name}_q"), ("DequantizeLinear", name)):
            attributes = {"axis": 1} if rows else {}
            nodes.append(helper.make_node(op_type, [tensor, f"{name}_s", f"{name}_z"], [output], output, **attributes))
            tensor = output
        return name
    bounds = ["zero", "one"] if kind == "clip" else []
    nodes.append(helper.make_node("Clip" if bounds else "Relu", [tensor, *bounds], [name], name))
    return name


def _data(model: onnx.ModelProto, path: Path, random: Random) -> Path | None:
    """Samples for the inputs, where they have sizes that samples can have."""
    arrays, count = {}, int(random.choice([0, 1, 3, 3]))
    for info in model.graph.input:
        dims = info.type.tensor_type.shape.dim
        sizes = [dim.dim_value if dim.HasField("dim_value") else 2 for dim in dims][1:]
        if any(not 0 <= size < _MOST for size in sizes) or np.prod(sizes, dtype=float) > _MOST:
            return None
        arrays[info.name] = random.normal(size=(count, *sizes)).astype(np.float32)
    if random.random() < 0.4:
        arrays["labels"] = np.arange(count) % 2
    np.savez(path / "data.npz", **arrays)
    return path / "data.npz"


def _chain(random: Random, path: Path, data: Path | None) -> list[list[str]]:
    """Commands that follow each other, the files of some being those of others."""
    ann, snn, mode = (
        str(path / "ann.onnx"),
        str(path / "snn.onnx"),
        str(random.choice(["parallel", "folded", "serial"])),
    )
    given = ["--data", str(data)] if data is not None and random.random() < 0.6 else []
    needed = ["--data", str(data if data is not None else path / "data.npz")]
    rewritten = ["rewrite", ann, "-o", snn, "--mode", mode]
    if random.random() < 0.3:
        rewritten.append("--signed")
    if random.random() < 0.5:
        rewritten += ["--steps", str(random.choice([1, 2, 8]))]
        if random.random() < 0.6:
            rewritten += ["--calibration", str(data) if data is not None and random.random() < 0.7 else "random"]
            rewritten += (
                ["--method", str(random.choice(["refit", "max", "percentile"]))] if random.random() < 0.3 else []
            )
    first = [["inspect", ann], ["calibrate", ann, *needed, "--steps", "2", "-o", str(path / "q.onnx")]]
    behind = [
        ["verify", ann, snn, *given],
        ["stats", snn, *given],
        ["evaluate", snn, *needed],
        ["evaluate", ann, *needed, "--steps", "1", "2"],
        ["bench", ann, "--steps", "2", "--batch", "1", "--repeats", "1", *given, "-o", str(path / "report")],
        *(["deploy", snn, "-o", str(path / target), "--target", target] for target in ("bundle", "triton", "nir")),
    ]  # fmt: skip
    behind[-1].append("--allow-lossy")
    some = [behind[index] for index in random.permutation(len(behind))[: int(random.integers(1, 3))]]
    chosen = [*(command for command in first if random.random() < 0.4), rewritten, *some]
    return [[*command, "--json"] if random.random() < 0.3 else command for command in chosen]


def _told(arguments: list[str]) -> list[str]:
    """What is wrong with what a command prints."""
    enter(" ".join(arguments)[:79])
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(arguments)
    except SystemExit as error:  # of wrong arguments
        status = int(error.code or 0)
    except BaseException as error:  # whatever it is, it is a fault
        place = traceback.extract_tb(error.__traceback__)[-1]
        return [f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}: {str(error)[:200]!r}"]
    told, answer = err.getvalue(), out.getvalue()
    found = [f"stderr has {line[:200]!r}" for line in told.splitlines() if not line.startswith("pconv-onnx: ")]
    errors = [
        line for line in told.splitlines() if not line.startswith(("pconv-onnx: warning: ", "pconv-onnx: note: "))
    ]
    if "--json" in arguments:
        json.loads(answer)
    elif status and not answer and len(errors) != 1:
        found.append(f"status {status} and {len(errors)} lines of errors: {told[:300]!r}")
    words = f"{told}\n{answer}".lower()
    found += [f"tells '{word}': {_line_of(words, word)}" for word in _FORBIDDEN if _line_of(words, word)]
    return found


def _line_of(text: str, word: str) -> str:
    padded = {"nan": (" nan", "nan "), "inf ": (" inf", "inf ")}.get(word, (word.lower(),))
    return next((line[:200] for line in text.splitlines() if any(f" {part}" in f" {line} " for part in padded)), "")


def _opened(found: list[str], path: Path, random: Random) -> None:
    """Open it as users do; running refuses in one line where it is a session of this project."""
    opener = SerialSession if random.random() < 0.5 else session
    runner = attempt(found, opener.__name__, lambda: opener(path))
    if runner is None or opener is session:
        return
    shape = [[size if isinstance(size, int) else int(random.integers(0, 3)) for size in info.shape]
             for info in runner.get_inputs()]  # fmt: skip
    if all(np.prod(sizes, dtype=float) <= _MOST for sizes in shape):
        feed = {info.name: np.ones(sizes, np.float32) for info, sizes in zip(runner.get_inputs(), shape, strict=True)}
        with contextlib.suppress(PconvError):
            attempt(found, "SerialSession runs", lambda: runner.run(None, feed))
