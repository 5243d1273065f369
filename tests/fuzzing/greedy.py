"""Small files that ask for much: is each read, or refused in one line, in little time and memory?

Functions that double, bodies within bodies, names of a megabyte, constants that would be huge, loops that do not end.
"""

from __future__ import annotations

import resource
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pconv_onnx import inspect, rewrite
from pconv_onnx.runtime import trial

from .hostile import attempt
from .workers import enter

# What one case may take of the processor, and of memory beside what its process had at most before. One that waits is
# ended with its process.
_SECONDS, _MEBIBYTES = 20, 1024
_TRIAL_SECONDS = 1.0
_LONGEST_LINE = 5000
_FLOAT = TensorProto.FLOAT


def faults(seed: int) -> list[str]:
    """What is wrong with what becomes of the file of one seed; empty where all is right."""
    random = np.random.default_rng(seed)
    enter("the file is made")
    model = _KINDS[random.integers(len(_KINDS))](random)
    found: list[str] = []
    before = _mebibytes()
    with (
        mock.patch.object(trial, "SECONDS", _TRIAL_SECONDS),
        warnings.catch_warnings(record=True) as told,
        tempfile.TemporaryDirectory() as folder,
    ):
        warnings.simplefilter("always")
        path = Path(folder, "m.onnx")
        path.write_bytes(model.SerializeToString())
        start = time.process_time()
        attempt(found, "inspect", lambda: inspect(path))
        for mode in ("folded", "parallel", "serial"):
            attempt(found, f"rewrite {mode}", lambda mode=mode: rewrite(path, mode=mode))
        seconds = time.process_time() - start
    if seconds > _SECONDS:
        found.append(f"it takes {seconds:.0f} s")
    if (taken := _mebibytes() - before) > _MEBIBYTES:
        found.append(f"it takes {taken} MiB")
    found += [
        f"a warning has {len(str(one.message))} characters" for one in told if len(str(one.message)) > _LONGEST_LINE
    ]
    return found


def _mebibytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def _functions(random: np.random.Generator) -> onnx.ModelProto:
    """Functions that call the next once or more, some in the branches of an If."""
    count, calls = int(random.integers(1, 120)), int(random.integers(1, 4))
    if random.random() < 0.4:
        count, calls = int(random.integers(1, 8)), 2
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("d", 1)]
    made = []
    for index in range(count):
        last = index == count - 1
        tensors = ["x", *(f"y{call}" for call in range(1 if last else calls))]
        op_type, domain = ("Relu", "") if last else (f"f{index + 1}", "d")
        nodes = [helper.make_node(op_type, [a], [b], domain=domain) for a, b in zip(tensors, tensors[1:], strict=False)]
        made.append(helper.make_function("d", f"f{index}", ["x"], [tensors[-1]], nodes, imports))
    return _model([helper.make_node("f0", ["x"], ["y"], domain="d")], functions=made)


def _nested(random: np.random.Generator) -> onnx.ModelProto:
    """Ifs within Ifs, as deep as protobuf lets them be."""
    inner, name = [helper.make_node("Relu", ["x"], ["r"])], "r"
    for depth in range(int(random.integers(1, 30))):
        one = helper.make_graph(inner, "b", [], [helper.make_tensor_value_info(name, _FLOAT, None)])
        name = f"o{depth}"
        inner = [helper.make_node("If", ["condition"], [name], then_branch=one, else_branch=one)] if depth < 4 else [
            helper.make_node("If", ["condition"], [name], then_branch=one, else_branch=_leaf(depth))
        ]  # fmt: skip
    inner.append(helper.make_node("Identity", [name], ["y"]))
    return _model(inner, {"condition": np.array(True)})


def _leaf(depth: int) -> onnx.GraphProto:
    made = helper.make_tensor_value_info(f"e{depth}", _FLOAT, None)
    return helper.make_graph([helper.make_node("Neg", ["x"], [made.name])], "e", [], [made])


def _named(random: np.random.Generator) -> onnx.ModelProto:
    """Names of up to a megabyte, of letters, spaces, quotes and what a terminal acts on."""
    parts = ["n", "a b", '", (', "\x1b[2J", "é", "/", "'", 'In Node, ("', " -> (", "\n"]
    part = parts[random.integers(len(parts))]
    name = part * int(10 ** random.uniform(1, 6) / len(part) + 1)
    operators = ["Relu", "Floor", name, "Clip", "NoSuchOperator"]
    op_type = operators[random.integers(len(operators))]
    nodes = [
        helper.make_node(op_type, ["x"], [f"{name}1"], name=name),
        helper.make_node("Clip", [f"{name}1", "zero", "one"], ["y"], name=f"{name}2"),
    ]
    if random.random() < 0.3:
        nodes[1].input[1] = name  # nobody makes it
    if random.random() < 0.3:
        nodes[0].domain = name
    model = _model(nodes, {"zero": np.float32(0), "one": np.float32(1)})
    model.graph.doc_string = model.producer_name = name
    model.metadata_props.add(key=name, value=name)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = name
    return model


def _huge(random: np.random.Generator) -> onnx.ModelProto:
    """Constants of few bytes that make a tensor of many."""
    size = int(10 ** random.uniform(2, 12))
    shape = [[size], [size, size], [1, size, 3]][random.integers(3)]
    kinds = {
        "ConstantOfShape": [helper.make_node("ConstantOfShape", ["shape"], ["t"])],
        "Expand": [helper.make_node("Expand", ["one", "shape"], ["t"])],
        "Tile": [helper.make_node("Reshape", ["one", "ones"], ["o"]), helper.make_node("Tile", ["o", "shape"], ["t"])],
        "Range": [helper.make_node("Range", ["zero", "end", "one"], ["t"])],
    }
    nodes = kinds[list(kinds)[random.integers(len(kinds))]]
    nodes.append(helper.make_node("ReduceMax", ["t"], ["m"], keepdims=0))
    foreign = random.random() < 0.4
    nodes.append(
        helper.make_node("BiasGelu" if foreign else "Add", ["x", "m"], ["s"], domain="com.microsoft" * foreign)
    )
    nodes.append(helper.make_node("Relu", ["s"], ["y"]))
    constants = {
        "shape": np.array(shape, np.int64),
        "ones": np.ones(len(shape), np.int64),
        "zero": np.float32(0),
        "one": np.float32(1),
        "end": np.float32(size),
    }
    return _model(nodes, constants)


def _endless(random: np.random.Generator) -> onnx.ModelProto:
    """A Loop of up to 10^12 iterations, before an operator that onnx does not know or in an old opset."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Neg", ["v"], ["v2"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", _FLOAT, ["N", 4]),
        ],
        [
            helper.make_tensor_value_info("c2", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v2", _FLOAT, ["N", 4]),
        ],
    )
    foreign = random.random() < 0.5
    nodes = [
        helper.make_node("Loop", ["n", "true", "x"], ["z"], body=body),
        helper.make_node("FusedMatMul" if foreign else "MatMul", ["z", "w"], ["u"], domain="com.microsoft" * foreign),
        helper.make_node("Relu", ["u"], ["y"]),
    ]
    constants = {"n": np.int64(10 ** random.uniform(0, 12)), "true": np.array(True), "w": np.eye(4, dtype=np.float32)}
    return _model(nodes, constants, opset=int(random.choice([11, 20])))


_KINDS: tuple[Callable[[np.random.Generator], onnx.ModelProto], ...] = (_functions, _nested, _named, _huge, _endless)


def _model(
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray | np.generic] | None = None,
    functions: list[onnx.FunctionProto] | None = None,
    opset: int = 20,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "greedy",
        [helper.make_tensor_value_info("x", _FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", _FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    imports = [("", opset), ("com.microsoft", 1), ("d", 1)]
    opsets = [helper.make_opsetid(*entry) for entry in imports]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=functions or [])
