"""Mutants of valid models: bytes that were changed, and structures that were, the same for the same random numbers."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import AttributeProto, TensorProto, helper

_NUMBERS = (0, 1, -1, 2, 3, 7, 255, 256, 2**15, 2**31 - 1, -(2**31), 2**31, 2**32, 2**40, 2**62, 2**63 - 1, -(2**63))
_FLOATS = (0.0, -0.0, 1.0, -1.0, np.nan, np.inf, -np.inf, 1e-45, -1e-45, 1e-38, 3.4e38, -3.4e38, 0.1)
_TEXTS = (
    "",
    "x",
    "a",
    "ai.onnx",
    "pconv",
    "ParallelSpike",
    "no such",
    "\x1b[31mred",
    "\n",
    "../../x",
    "%s{0}",
    "θ" * 300,
)
_OPERATORS = sorted({schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain})
_DEPTH = 2000

Random = np.random.Generator


def of_bytes(content: bytes, random: Random, other: bytes) -> bytes:
    """Content with one to four changes: bits turned, pieces cut, inserted, repeated, or taken from another file."""
    changed = bytearray(content)
    for _ in range(int(random.integers(1, 5))):
        start = int(random.integers(0, len(changed) + 1))
        piece = slice(start, start + int(2 ** random.uniform(0, 7)))
        kind = random.integers(6)
        if kind == 0 and start < len(changed):
            changed[start] ^= 1 << int(random.integers(8))
        elif kind == 1:
            del changed[piece]
        elif kind == 2:
            changed[start:start] = random.bytes(piece.stop - start)
        elif kind == 3:
            changed[start:start] = changed[piece]
        elif kind == 4:
            begin = int(random.integers(0, len(other) + 1))
            changed[piece] = other[begin : begin + piece.stop - start]
        elif start < len(changed):
            changed[start] = int(random.choice([0, 1, 0x7F, 0x80, 0xFF]))
    return bytes(changed)


def of_structure(model: onnx.ModelProto, random: Random) -> onnx.ModelProto:
    """A copy with one to three changes."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for _ in range(int(random.integers(1, 4))):
        _CHANGES[random.integers(len(_CHANGES))](changed, random)
    return changed


def _pick(choices: Any, random: Random) -> Any:
    return choices[int(random.integers(len(choices)))]


def _messages(message: Message) -> Iterator[Message]:
    """A message and all within it."""
    yield message
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for inner in value if field.is_repeated else [value]:
                yield from _messages(inner)


def _all(model: onnx.ModelProto, kind: type[Message]) -> list[Any]:
    return [message for message in _messages(model) if isinstance(message, kind)]


def _value(field: FieldDescriptor, random: Random) -> Any:
    """A value that a field can have, seldom one that it should."""
    if field.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return float(_pick(_FLOATS, random))
    if field.type == FieldDescriptor.TYPE_STRING:
        return _pick(_TEXTS, random)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return random.bytes(int(random.integers(0, 40)))
    if field.type == FieldDescriptor.TYPE_ENUM:
        return int(_pick(field.enum_type.values, random).number)
    number = int(_pick(_NUMBERS, random)) if random.random() < 0.6 else int(random.integers(-2, 30))
    bits = {FieldDescriptor.TYPE_INT32: 32, FieldDescriptor.TYPE_UINT64: 64}.get(field.type, 64)
    if field.type == FieldDescriptor.TYPE_UINT64:
        return number % 2**64
    return (number + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)


def anything(model: onnx.ModelProto, random: Random) -> None:
    """Set, clear, repeat, drop or move a field of any message."""
    message = _pick(list(_messages(model)), random)
    field = _pick(message.DESCRIPTOR.fields, random)
    if random.random() < 0.8 and message.ListFields():
        field = _pick(message.ListFields(), random)[0]
    value = getattr(message, field.name)
    if not field.is_repeated:
        if field.type == FieldDescriptor.TYPE_MESSAGE or random.random() < 0.2:
            message.ClearField(field.name)
        else:
            setattr(message, field.name, _value(field, random))
        return
    kind, index = random.integers(4), int(random.integers(len(value))) if len(value) else None
    if index is None or kind == 0:
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            value.add()
        else:
            value.append(_value(field, random))
    elif kind == 1:
        del value[index]
    elif kind == 2 and field.type == FieldDescriptor.TYPE_MESSAGE:
        value.add().CopyFrom(value[index])
    elif kind == 2:
        value.append(value[index])
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        moved = type(value[index])()
        moved.CopyFrom(value[index])
        del value[index]
        value.insert(int(random.integers(len(value) + 1)), moved)
    else:
        value[index] = _value(field, random)


def transplant(model: onnx.ModelProto, random: Random) -> None:
    """Put a copy of one message in the place of another of its kind."""
    messages = list(_messages(model))
    target = _pick(messages, random)
    source = _pick([message for message in messages if type(message) is type(target)], random)
    copy = type(source)()
    copy.CopyFrom(source)
    if len(copy.SerializeToString()) < 20_000:
        target.CopyFrom(copy)


def _names(model: onnx.ModelProto) -> list[str]:
    nodes = _all(model, onnx.NodeProto)
    return [name for node in nodes for name in (*node.input, *node.output)] + ["", "nowhere"]


def retarget(model: onnx.ModelProto, random: Random) -> None:
    """Have a node read or write another tensor: cycles, shadowed names, missing inputs."""
    node = _pick(_all(model, onnx.NodeProto) or [onnx.NodeProto()], random)
    ends = node.input if random.random() < 0.7 else node.output
    if len(ends):
        ends[int(random.integers(len(ends)))] = _pick(_names(model), random)


def arity(model: onnx.ModelProto, random: Random) -> None:
    """Give a node more or fewer inputs or outputs."""
    node = _pick(_all(model, onnx.NodeProto) or [onnx.NodeProto()], random)
    ends = node.input if random.random() < 0.7 else node.output
    if len(ends) and random.random() < 0.5:
        del ends[int(random.integers(len(ends)))]
    else:
        ends.extend([_pick(_names(model), random)] * int(random.choice([1, 1, 1, 50])))


def another_operator(model: onnx.ModelProto, random: Random) -> None:
    """Have a node be another operator, or one of another domain."""
    node = _pick(_all(model, onnx.NodeProto) or [onnx.NodeProto()], random)
    node.op_type = _pick(_OPERATORS, random)
    if random.random() < 0.1:
        node.domain = _pick(_TEXTS, random)


def attributes(model: onnx.ModelProto, random: Random) -> None:
    """Add an attribute, or give one a value of another type."""
    node = _pick(_all(model, onnx.NodeProto) or [onnx.NodeProto()], random)
    schemas = (schema for schema in onnx.defs.get_all_schemas() if schema.name == node.op_type)
    names = sorted({name for schema in schemas for name in schema.attributes})
    names += [attribute.name for attribute in node.attribute] + ["spikes", "axis", "steps"]
    values: list[Any] = [
        1,
        -1,
        2**62,
        0.5,
        float("nan"),
        "text",
        b"\xff\xfe",
        [1, 2],
        [0, -1],
        [2**62] * 2,
        [0.5],
        ["a"],
    ]
    values += [helper.make_tensor("t", TensorProto.FLOAT, [1], [1.0]), onnx.GraphProto()]
    made = helper.make_attribute(str(_pick(names, random)), _pick(values, random))
    if random.random() < 0.1:
        # Of another type than its value.
        made.type = _pick(AttributeProto.AttributeType.values(), random)
    elif random.random() < 0.1:
        made.ref_attr_name = "other"
    kept = [attribute for attribute in node.attribute if attribute.name != made.name]
    node.ClearField("attribute")
    node.attribute.extend([*kept, made])


def tensors(model: onnx.ModelProto, random: Random) -> None:
    """Change a tensor's values, type, size or where it says that they are."""
    tensor = _pick(_all(model, TensorProto) or [TensorProto()], random)
    kind = random.integers(6)
    try:
        values = onnx.numpy_helper.to_array(tensor)
    except Exception:  # an earlier change has made it invalid
        values = np.zeros(1, np.float32)
    if kind == 0 and values.size and values.dtype.kind == "f":
        values = values.copy()
        values.reshape(-1)[random.integers(values.size)] = _pick(_FLOATS, random)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    elif kind == 1 and values.dtype.kind in "fiu":
        with np.errstate(all="ignore"):
            values = values.astype(_pick(["f4", "f8", "f2", "i8", "i4", "u1", "i1", "?"], random))
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    elif kind == 2 and values.dtype.kind in "fiu":
        shape = [int(size) for size in random.integers(0, 4, int(random.integers(0, 5)))]
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.resize(values, shape), tensor.name))
    elif kind == 3:
        tensor.raw_data = tensor.raw_data[: int(random.integers(0, len(tensor.raw_data) + 1))]
    elif kind == 4:
        tensor.data_type = int(random.integers(0, 30))
    else:
        tensor.data_location = TensorProto.EXTERNAL
        for key in ("location", "offset", "length"):
            text = _pick(["w.bin", "../w.bin", "/etc/passwd", "", "0", "-1", "8", str(2**62), "no\0name"], random)
            if random.random() < 0.8:
                tensor.external_data.add(
                    key=key, value="w.bin" if key == "location" and random.random() < 0.5 else text
                )


def shapes(model: onnx.ModelProto, random: Random) -> None:
    """Declare another shape or type of a tensor."""
    info = _pick(_all(model, onnx.ValueInfoProto) or [onnx.ValueInfoProto()], random)
    kind = random.integers(4)
    dims = info.type.tensor_type.shape.dim
    if kind == 0:
        info.type.tensor_type.elem_type = int(random.integers(0, 26))
    elif kind == 1 and len(dims):
        dims[int(random.integers(len(dims)))].dim_value = int(_pick(_NUMBERS, random))
    elif kind == 2 and len(dims):
        dims[int(random.integers(len(dims)))].dim_param = _pick(_TEXTS, random)
    else:
        name = info.name
        info.CopyFrom(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(random.integers(-1, 5, 3).tolist())))


def opsets(model: onnx.ModelProto, random: Random) -> None:
    """Import another version of an operator set, or another one."""
    entry = _pick(model.opset_import, random) if len(model.opset_import) else model.opset_import.add()
    if random.random() < 0.7:
        entry.version = int(random.choice([-1, 0, 1, 5, 6, 8, 12, 14, 19, 24, 99, 2**31, 2**62]))
    else:
        entry.domain = _pick(_TEXTS, random)
    if random.random() < 0.2:
        model.ir_version = int(random.choice([-1, 0, 1, 3, 4, 99, 2**62]))


def functions(model: onnx.ModelProto, random: Random) -> None:
    """Call a function that is its own part, through another or by itself, or that has the name of an operator."""
    node = _pick(model.graph.node, random) if len(model.graph.node) else model.graph.node.add()
    domain = _pick(["own", "", "pconv"], random)
    names = [f"F{i}" for i in range(int(random.choice([1, 2, 30])))] if domain == "own" else [node.op_type]
    for name, called in zip(names, [*names[1:], names[0]], strict=True):
        function = model.functions.add(name=name, domain=domain, input=["p"], output=["q"])
        function.opset_import.extend([helper.make_opsetid("", 17), helper.make_opsetid("own", 1)])
        function.node.add(op_type=called, domain=domain, input=["p"], output=["r"])
        function.node.add(op_type="Add", input=["r", "r"], output=["q"])
    if domain == "own":
        node.op_type, node.domain = names[0], "own"
        model.opset_import.append(helper.make_opsetid("own", 1))


def nesting(model: onnx.ModelProto, random: Random) -> None:
    """Put bodies within bodies, or sequences of sequences."""
    depth = int(random.choice([3, 30, 90]))
    if random.random() < 0.3:
        deep = model.graph.input.add(name="deep").type
        for _ in range(depth):
            deep = deep.sequence_type.elem_type
        deep.tensor_type.elem_type = 1
        return
    node = model.graph.node.add(op_type="If", input=["x"], output=["nested"])
    for _ in range(min(depth, 30)):
        body = node.attribute.add(name="then_branch", type=AttributeProto.GRAPH).g
        body.name = "body"
        body.output.add(name="inner").type.tensor_type.elem_type = 1
        node = body.node.add(op_type="If", input=["x"], output=["inner"])


def chain(model: onnx.ModelProto, random: Random) -> None:
    """Put many nodes in a row, now and then very many."""
    for i in range(_DEPTH if random.random() < 0.02 else 20):
        model.graph.node.add(op_type="Relu", input=[f"chain{i}" if i else "x"], output=[f"chain{i + 1}"])


def metadata(model: onnx.ModelProto, random: Random) -> None:
    """Record something else than `rewrite` did, or what no exporter records."""
    nested = "[" * 300 + "]" * 300
    texts = ["0", "-1", "9" * 30, "1e9", "null", "{}", "[]", '{"x": "y"}', '{"x": 3}', "{", nested, "parallel",
             "serial", "folded", "NaN", "[[1, 2]]", '"text"', "('a', 'b')", "-" * 3000 + "1", "'" * 3,
             "(" * 90 + ")" * 90]  # fmt: skip
    place = model if random.random() < 0.7 or not len(model.graph.node) else _pick(model.graph.node, random)
    props = place.metadata_props
    if len(props) and random.random() < 0.4:
        entry = _pick(props, random)
        with contextlib.suppress(ValueError, IndexError):
            document = json.loads(entry.value)
            # A row of a list, or an entry within an entry: `kinds` has one for each tensor.
            row = _pick(document, random) if isinstance(document, list) else document
            while (
                isinstance(row, dict)
                and random.random() < 0.7
                and isinstance(inner := _pick(list(row.values()), random), dict)
            ):
                row = inner
            if isinstance(row, dict):
                row[_pick(list(row), random)] = _pick([None, -1, 0, 2**70, 0.5, "x", [], {}, [[1]]], random)
                entry.value = json.dumps(document)
    elif len(props) and random.random() < 0.7:
        _pick(props, random).value = _pick(texts, random)
    else:
        keys = [*(f"pconv_onnx.{key}" for key in ("mode", "steps", "potentials", "kinds", "form", "calibration")),
                "pkg.torch.onnx.name_scopes"]  # fmt: skip
        props.add(key=str(_pick(keys, random)), value=_pick(texts, random))


def annotations(model: onnx.ModelProto, random: Random) -> None:
    """Annotate a tensor with parameters that are none."""
    annotation = model.graph.quantization_annotation.add(tensor_name=_pick(_names(model), random))
    annotation.quant_parameter_tensor_names.add(key=_pick(_TEXTS, random), value=_pick(_names(model), random))


_CHANGES: tuple[Callable[[onnx.ModelProto, Random], None], ...] = (
    anything, anything, anything, anything, transplant, transplant, retarget, retarget, arity, another_operator,
    attributes, attributes, tensors, tensors, tensors, tensors, shapes, shapes, opsets, functions, nesting, chain,
    metadata, metadata, annotations,
)  # fmt: skip
