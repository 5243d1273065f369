"""Mutated requests to examples/serve: is each refused in one line, or one that fits the network?"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from .mutants import of_bytes

sys.path.append(str(Path(__file__).parents[2] / "examples" / "serve"))

import protocol  # noqa: E402  # a script's module

_DTYPES = ("float32", "float16", "float64", "int64", "int8", "uint8", "bool")
_MOST = 4
_ANYTHING = (
    *(None, True, False, 0, -1, 1, 2, 255, 256, 2**31, 2**63, -(2**63), 2**64, 10**30, 10**400),
    *(0.5, -0.0, 1e39, 65520.0, 1e308, "", "x", "y", "FP32", "\n\x1b[31m", "\ud800", "θ" * 2000),
    *([], {}, [[]], [None], [1, [2]], [[1, 2], [3]], {"binary_data_size": 4}, {"binary_data": True}),
)
_LENGTHS = ("", "-1", "1.5", "0x1", "9" * 5000, "1,2", "\xb2", " 1", "0", "1")
_PIECES = (b"NaN", b"-Infinity", b"1e400", b"1" * 5000, b"[" * 300, b'"x":1,"x":1,', b"\xff", b"\0", b"1.", b"01")

Random = np.random.Generator


def faults(seed: int) -> list[str]:
    """What is wrong with what becomes of the request of one seed; empty where all is right."""
    random = np.random.default_rng(seed)
    network = _network(random)
    body, length = _request(random, network)
    if length is not None and random.random() < 0.15:
        length = str(random.choice(_LENGTHS)) if random.random() < 0.7 else str(random.integers(0, 2 * len(body)))
    try:
        request = protocol.read(body, length, network)
    except protocol.Refused as refused:
        right = 400 <= refused.status < 500 and refused.message and refused.message.isprintable()
        return [] if right and len(refused.message) <= 500 else [f"refused with {refused.status} {refused.message!r}"]
    return _unfit(request, network) or _unanswered(request, network)


def _network(random: Random) -> protocol.Network:
    batched = bool(random.random() < 0.7)

    def tensor(name: str) -> protocol.Tensor:
        sizes = random.choice(["H", "1", "2", "3"], int(random.integers(0, 3))).tolist()
        shape: list[Any] = [size if size == "H" else int(size) for size in sizes]
        return protocol.Tensor(name, np.dtype(random.choice(_DTYPES)), ["N", *shape] if batched else shape)

    inputs = [tensor(name) for name in ("x", "y", "a name")[: int(random.integers(1, 4))]]
    return protocol.Network("snn", inputs, [tensor("y"), tensor("z")], batched, _MOST)


def _request(random: Random, network: protocol.Network) -> tuple[bytes, str | None]:
    """A request that is mostly one for the network, and what its header says."""
    inputs, rest = [], b""
    sizes = {"N": int(random.integers(1, _MOST + 1)), "H": int(random.integers(1, 4))}
    for tensor in network.inputs:
        array = random.integers(0, 2, [sizes.get(size, size) for size in tensor.shape]).astype(tensor.dtype)
        given = {"name": tensor.name, "shape": list(array.shape), "datatype": tensor.datatype}
        if random.random() < 0.3:
            given["parameters"] = {"binary_data_size": array.nbytes}
            rest += array.tobytes()
        else:
            given["data"] = array.tolist() if array.ndim and random.random() < 0.5 else array.ravel().tolist()
        inputs.append(given)
    document: dict[str, Any] = {"id": "7", "inputs": inputs, "outputs": [{"name": "z"}, {"name": "y"}]}
    for _ in range(int(random.integers(0, 3))):
        document = _changed(document, random)
    head = json.dumps(document).encode()
    kind = random.random()
    if kind < 0.2:
        head = of_bytes(head, random, json.dumps(inputs).encode())
    elif kind < 0.4:
        start = int(random.integers(0, len(head) + 1))
        head = head[:start] + _PIECES[random.integers(len(_PIECES))] + head[start + int(random.integers(0, 3)) :]
    return head + rest, str(len(head)) if rest or random.random() < 0.3 else None


def _changed(document: Any, random: Random) -> Any:
    """A copy in which one value, somewhere within, is another, gone, or there twice."""
    changed = copy.deepcopy(document)
    places: list[tuple[Any, Any]] = [(None, None)]
    found = [changed] if isinstance(changed, (dict, list)) else []
    for holder in found:
        for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
            places.append((holder, key))
            if isinstance(holder[key], (dict, list)):
                found.append(holder[key])
    holder, key = places[random.integers(len(places))]
    value = copy.deepcopy(_ANYTHING[random.integers(len(_ANYTHING))])
    if holder is None:
        return value if random.random() < 0.2 else changed
    if random.random() < 0.2:
        del holder[key]
    elif isinstance(holder, list) and random.random() < 0.3:
        holder.append(copy.deepcopy(holder[key]))
    else:
        holder[key] = value
    return changed


def _unfit(request: protocol.Request, network: protocol.Network) -> list[str]:
    """How a request that was read does not fit the network."""
    found = []
    sizes: dict[Any, int] = {"N": request.rows}
    for tensor in network.inputs:
        array = request.feed[tensor.name]
        expected = [size if isinstance(size, int) else sizes.setdefault(size, array.shape[axis])
                    for axis, size in enumerate(tensor.shape)]  # fmt: skip
        if array.dtype != tensor.dtype or list(array.shape) != expected:
            found.append(f"'{tensor.name}' is {array.dtype} {array.shape}, not {tensor.dtype} {expected}")
    if len(request.feed) != len(network.inputs) or not 1 <= request.rows <= _MOST:
        found.append(f"{len(request.feed)} inputs of {request.rows} rows")
    indices = [index for index, _ in request.wanted]
    if not indices or len(set(indices)) < len(indices) or not set(indices) <= {0, 1}:
        found.append(f"the outputs {indices}")
    return found


def _unanswered(request: protocol.Request, network: protocol.Network) -> list[str]:
    """How the answer to a request is not what it asked for."""
    values = [np.ones((request.rows, 2), tensor.dtype) for tensor in network.outputs]
    body, headers = protocol.answer(request, values, network)
    document = json.loads(body[: int(headers.get(protocol.HEADER_LENGTH, len(body)))])
    names = [network.outputs[index].name for index, _ in request.wanted]
    right = document.get("id") == request.id and [output["name"] for output in document["outputs"]] == names
    return [] if right else [f"answered with {document}"]
