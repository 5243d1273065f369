"""How many nodes a model has once its functions are inlined: functions that call each other twice grow exponentially.

Too many are refused before anything follows the calls, as onnx's shape inference and its inliner do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import onnx

from pconv_onnx.basics.domain import DOMAIN
from pconv_onnx.graph.nesting import nodes_within
from pconv_onnx.graph.soundness import Fault

# The most nodes that calls may become. An exported language model has some 100,000, most of them in no function.
_MOST_NODES = 250_000
# For a small file fewer, so that work grows with the file: these, and so many for each of its nodes. A network repeats
# its layers some dozens of times.
_LEAST_NODES, _REPEATED = 10_000, 200
# How deep functions may call each other; onnxruntime goes no deeper.
_DEEPEST = 100
# A function body of this project's operators with at most so many nodes counts as one node, since it is not inlined.
_OPERATOR = 256
# Counting stops here: exponential counts would have as many digits as there are functions.
_UNTOLD = 10**15

_Key = tuple[str, str, str]
_OFTEN = "call them less often, or write what they repeat as a Loop"
_DEEP = "write some of them out, as onnx.inliner does"


def excess_of(model: onnx.ModelProto) -> Fault | None:
    """Message and hint if functions become too many nodes, or call each other too deep; else None.

    Functions that call each other in a circle count once; the checker refuses them.
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
    """How often each operator or function is called, bodies included."""
    return Counter(_key(node, node.op_type) for node in nodes_within(nodes))


def _measured(calls: Mapping[_Key, Counter[_Key]]) -> tuple[dict[_Key, int], dict[_Key, int]]:
    """The number of nodes of each function once it is inlined, and how deep its calls go.

    Computed without recursion, since the chain of calls may be as long as the file has functions.
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
