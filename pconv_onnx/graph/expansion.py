"""How many nodes a model is with its functions written out: a function may double one that doubles another.

It is counted, and refused, before anything walks through the calls, as onnx's inference of shapes and its inliner do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import onnx

from pconv_onnx.basics.domain import DOMAIN
from pconv_onnx.graph.nesting import nodes_within
from pconv_onnx.graph.soundness import Fault

# Nodes that calls may stand for altogether. An exported language model has some 100,000, most of them in no function.
_MOST_NODES = 250_000
# Of a small file fewer, so that work grows as the file does: these, and so many for each node in it. A network repeats
# its layers some dozens of times.
_LEAST_NODES, _REPEATED = 10_000, 200
# Functions within each other that the network calls; onnxruntime goes no deeper.
_DEEPEST = 100
# Nodes up to which a function that stands for an operator of this project counts as one: those stay as they are.
_OPERATOR = 256
# Counts are kept up to here: of functions that double, one has as many digits as there are functions.
_UNTOLD = 10**15

_Key = tuple[str, str, str]
_OFTEN = "call them less often, or write what they repeat as a Loop"
_DEEP = "write some of them out, as onnx.inliner does"


def excess_of(model: onnx.ModelProto) -> Fault | None:
    """Which function is too many nodes written out, or too deep; None where none is.

    What is on a circle of functions that call each other counts once: the checker refuses it.
    """
    if not model.functions:
        return None
    calls = {_key(entry, entry.name): _calls(entry.node) for entry in model.functions}
    sizes, depths = _measured(calls)
    own = _calls(model.graph.node)
    deep = next((key for key in own if depths.get(key, 0) > _DEEPEST), None)
    if deep is not None:
        return f"function '{deep[1]}' calls others more than {_DEEPEST} deep within each other", _DEEP
    nodes = {key: count * _written_out(key, sizes[key]) for key, count in own.items() if key in sizes}
    written = own.total() + sum(inner.total() for inner in calls.values())
    allowed = max(written, min(_MOST_NODES, _LEAST_NODES + _REPEATED * written))
    if sum(nodes.values()) <= allowed:
        return None
    most = max(nodes, key=nodes.__getitem__)
    told = f"calls of its functions stand for {_told(sum(nodes.values()))} nodes, {_told(nodes[most])} of them those of"
    return f"{told} '{most[1]}', and no more than {allowed:,} are written out of {written:,} in the file", _OFTEN


def _key(entry: onnx.NodeProto | onnx.FunctionProto, name: str) -> _Key:
    return entry.domain, name, entry.overload


def _calls(nodes: Iterable[onnx.NodeProto]) -> Counter[_Key]:
    """How often each operator or function is there, in bodies as well."""
    return Counter(_key(node, node.op_type) for node in nodes_within(nodes))


def _measured(calls: Mapping[_Key, Counter[_Key]]) -> tuple[dict[_Key, int], dict[_Key, int]]:
    """Nodes of each function written out, and how many functions are within each other there.

    Without recursion: there may be as many functions in a row as there are in the file.
    """
    sizes: dict[_Key, int] = {}
    depths: dict[_Key, int] = {}
    entered: set[_Key] = set()
    waiting = list(calls)
    while waiting:
        key = waiting[-1]
        missing = [inner for inner in calls[key] if inner in calls and inner not in sizes]
        if key not in sizes and missing and key not in entered:
            entered.add(key)
            waiting += missing
            continue
        waiting.pop()
        inner = [depths[other] for other in calls[key] if other in depths]
        nodes = sum(count * sizes.get(other, 1) for other, count in calls[key].items())
        sizes[key], depths[key] = min(nodes, _UNTOLD), 1 + max(inner, default=0)
    return sizes, depths


def _written_out(key: _Key, nodes: int) -> int:
    return 1 if key[0] == DOMAIN and nodes <= _OPERATOR else nodes


def _told(count: int) -> str:
    return f"{count:,}" if count < _UNTOLD else f"{_UNTOLD:,} or more"
