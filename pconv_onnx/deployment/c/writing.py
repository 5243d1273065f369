"""The C files of a program."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from string import Template

import numpy as np

from pconv_onnx.basics.arrays import Array
from pconv_onnx.deployment.c.arena import offsets
from pconv_onnx.deployment.c.program import Call, Program, ctype_of
from pconv_onnx.deployment.c.views import Buffer, View

_HERE = Path(__file__).parent
_WIDTH = 110


def written(program: Program, model: str) -> dict[str, bytes | Path]:
    """`network.c`, `network.h`, an example that runs it and what builds both.

    Args:
        program: whose last calls write the outputs.
        model: name of it, for comments.
    """
    places, size = offsets(program.calls)
    texts = {
        "model": _comment(model),
        "inputs": sum(view.count for view in program.inputs.values()),
        "outputs": sum(view.count for view in program.outputs.values()),
        "input_shapes": _shapes(program.inputs),
        "output_shapes": _shapes(program.outputs),
        "arena_bytes": max(size, 1),
        "tables": "\n\n".join(_table(name, values) for name, values in program.tables.items()),
        "layers": "\n".join(program.functions.values()).rstrip(),
        "structs": "\n".join(
            f"static const struct {kind} {name} = {text};" for (kind, text), name in program.structs.items()
        ),
        "calls": "\n".join(f"    {line}" for call in _by_comment(program, places) for line in call),
    }
    made: dict[str, bytes | Path] = {
        name: Template((_HERE / f"{name}.in").read_text()).substitute(texts).encode()
        for name in ("network.c", "network.h")
    }
    return made | {name: _HERE / name for name in ("main.c", "CMakeLists.txt")}


def _shapes(tensors: Mapping[str, View]) -> str:
    return ", ".join(f"{_comment(name)} {' x '.join(map(str, view.shape))}" for name, view in tensors.items())


def _by_comment(program: Program, places: Mapping[Buffer, int]) -> Iterator[list[str]]:
    """Lines of calls, those of one node under its name."""
    last = ""
    for call in program.calls:
        above = [f"/* {_comment(call.comment)} */"] if call.comment != last else []
        last = call.comment
        yield [*above, _call(call, places)]


def _call(call: Call, places: Mapping[Buffer, int]) -> str:
    arguments = [one if isinstance(one, str) else _pointer(one, places) for one in call.arguments]
    return f"{call.function}({', '.join(arguments)});"


def _pointer(view: View, places: Mapping[Buffer, int]) -> str:
    offset = f" + {view.offset}" if view.offset else ""
    if view.buffer.name:
        return f"{view.buffer.name}{offset}"
    return f"({view.buffer.ctype} *)(bytes + {places[view.buffer]}){offset}"


def _table(name: str, values: Array) -> str:
    words = [_number(value) for value in values.reshape(-1)]
    lines, line = [], "   "
    for word in words:
        if len(line) + len(word) + 2 > _WIDTH:
            lines.append(line)
            line = "   "
        line += f" {word},"
    content = "\n".join([*lines, line])
    return f"static const {ctype_of(values)} {name}[{len(words)}] = {{\n{content}\n}};"


def _number(value: np.generic) -> str:
    if not isinstance(value, np.floating):
        return str(int(value))
    number = float(value)
    if not math.isfinite(number):
        return "NAN" if math.isnan(number) else "INFINITY" if number > 0 else "-INFINITY"
    return f"{number.hex()}f"


def _comment(text: str) -> str:
    """What of a name may stand in a comment."""
    return re.sub(r"[^\w .:()/'-]", "_", text, flags=re.ASCII)
