"""Requests and answers of the Open Inference Protocol (KServe v2), with its extension for binary tensors.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel, ValidationError

HEADER_LENGTH = "Inference-Header-Content-Length"
# What JSON may hold for each kind of NumPy type, by NumPy's letters.
_FROM_JSON = {"b": "b", "i": "i", "u": "iu", "f": "fiu"}


class Refused(Exception):
    """A request that gets no outputs: an HTTP status, and a sentence for the client."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class GivenTensor(BaseModel):
    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | None = None
    parameters: dict[str, Any] = {}


class WantedTensor(BaseModel):
    name: str
    parameters: dict[str, Any] = {}


class InferenceRequest(BaseModel):
    id: str | None = None
    inputs: list[GivenTensor]
    outputs: list[WantedTensor] | None = None
    parameters: dict[str, Any] = {}


@dataclass(frozen=True)
class Tensor:
    """An input or output: numbers in `shape` are sizes, the rest are open."""

    name: str
    dtype: np.dtype
    shape: list[int | str | None]

    @property
    def datatype(self) -> str:
        """The protocol's name of the type."""
        kinds = {"f": "FP", "i": "INT", "u": "UINT"}
        return "BOOL" if self.dtype.kind == "b" else f"{kinds[self.dtype.kind]}{8 * self.dtype.itemsize}"

    def metadata(self) -> dict[str, Any]:
        shape = [size if isinstance(size, int) else -1 for size in self.shape]
        return {"name": self.name, "datatype": self.datatype, "shape": shape}


@dataclass(frozen=True)
class Network:
    """What a server has to know of a bundle's network.

    Attributes:
        name: in URLs.
        inputs: of the network.
        outputs: of the network.
        batched: whether all of them begin with one open dimension, so that requests can be joined.
    """

    name: str
    inputs: list[Tensor]
    outputs: list[Tensor]
    batched: bool

    def metadata(self) -> dict[str, Any]:
        tensors = {"inputs": self.inputs, "outputs": self.outputs}
        described = {key: [tensor.metadata() for tensor in value] for key, value in tensors.items()}
        return {"name": self.name, "versions": ["1"], "platform": "onnxruntime_onnx", **described}


def network_of(manifest: dict[str, Any], name: str) -> Network:
    """What a bundle's manifest says.

    Raises:
        ValueError: such a network is not served; the sentence says why.
    """
    if manifest["potentials"]:
        raise ValueError("a serial network keeps potentials between requests, which this server does not; "
                         "rewrite it in mode parallel or folded")  # fmt: skip
    sides = [[_tensor(described) for described in manifest[side]] for side in ("inputs", "outputs")]
    first = {tensor.shape[0] if tensor.shape else None for tensor in sum(sides, [])}
    return Network(name, *sides, batched=len(first) == 1 and all(isinstance(size, str) for size in first))


def _tensor(described: dict[str, Any]) -> Tensor:
    try:
        dtype = np.dtype(described["type"])
    except TypeError:  # bfloat16, which NumPy does not have
        dtype = np.dtype(object)
    if dtype.kind not in _FROM_JSON:
        raise ValueError(f"'{described['name']}' is of type {described['type']}, which this server does not have")
    return Tensor(described["name"], dtype, described["shape"])


@dataclass(frozen=True)
class Request:
    """A request that the network can take.

    Attributes:
        id: the client's.
        feed: arrays by input.
        wanted: indices of outputs, and whether each goes back as bytes.
    """

    id: str | None
    feed: dict[str, np.ndarray]
    wanted: list[tuple[int, bool]]


def read(body: bytes, header_length: str | None, network: Network) -> Request:
    """The request in an HTTP body.

    Args:
        body: JSON, and after it the bytes of binary tensors.
        header_length: the value of `HEADER_LENGTH`: how long the JSON is; None where it is everything.
        network: that it is for.

    Raises:
        Refused: it is malformed, or not for this network.
    """
    if header_length is not None and not (header_length.isascii() and header_length.isdigit()):
        raise Refused(400, f"{HEADER_LENGTH} is no number")
    end = len(body) if header_length is None else int(header_length)
    try:
        asked = InferenceRequest.model_validate_json(body[:end])
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise Refused(400, f"{where}: {first['msg']}" if where else first["msg"]) from error
    wanted = _wanted(asked, network)
    return Request(asked.id, _feed(asked.inputs, body[end:], network), wanted)


def _wanted(asked: InferenceRequest, network: Network) -> list[tuple[int, bool]]:
    names = [tensor.name for tensor in network.outputs]
    binary = asked.parameters.get("binary_data_output") is True
    if not asked.outputs:
        return [(index, binary) for index in range(len(names))]
    for output in asked.outputs:
        if output.name not in names:
            raise Refused(400, f"'{output.name}' is no output of {network.name}; it has {', '.join(names)}")
    return [
        (names.index(output.name), output.parameters.get("binary_data", binary) is True) for output in asked.outputs
    ]


def _feed(given: list[GivenTensor], rest: bytes, network: Network) -> dict[str, np.ndarray]:
    known = {tensor.name: tensor for tensor in network.inputs}
    if sorted(tensor.name for tensor in given) != sorted(known):
        raise Refused(400, f"{network.name} takes the inputs {', '.join(known)}, each once")
    feed: dict[str, np.ndarray] = {}
    sizes: dict[str, int] = {}
    position = 0
    for tensor in given:
        expected = known[tensor.name]
        if tensor.datatype != expected.datatype:
            raise Refused(400, f"'{tensor.name}' is {expected.datatype}, not {tensor.datatype}")
        _check_shape(tensor, expected, sizes)
        if (length := tensor.parameters.get("binary_data_size")) is None:
            feed[tensor.name] = _from_json(tensor, expected)
            continue
        size = math.prod(tensor.shape) * expected.dtype.itemsize
        if type(length) is not int or length != size or position + length > len(rest):
            raise Refused(400, f"'{tensor.name}' has another number of bytes than its shape {tensor.shape} takes")
        feed[tensor.name] = np.frombuffer(rest[position : position + length], expected.dtype).reshape(tensor.shape)
        position += length
    if position != len(rest):
        raise Refused(400, f"{len(rest) - position} bytes after the JSON belong to no input")
    return feed


def _check_shape(tensor: GivenTensor, expected: Tensor, sizes: dict[str, int]) -> None:
    """Refuse a shape that the network does not have; `sizes` holds the open dimensions that are known, by name."""
    told = [size if size is not None else "?" for size in expected.shape]
    if len(tensor.shape) != len(expected.shape) or any(size < 1 for size in tensor.shape):
        raise Refused(400, f"'{tensor.name}' has the shape {tensor.shape}; it takes {told}")
    for size, open_or_fixed in zip(tensor.shape, expected.shape, strict=True):
        needed = sizes.setdefault(open_or_fixed, size) if isinstance(open_or_fixed, str) else open_or_fixed
        if needed not in (None, size):
            raise Refused(400, f"'{tensor.name}' has the shape {tensor.shape}; it takes {told}")


def _from_json(tensor: GivenTensor, expected: Tensor) -> np.ndarray:
    try:
        found = np.array(tensor.data if tensor.data is not None else [])
    except ValueError as error:  # nested lists of different lengths
        raise Refused(400, f"the data of '{tensor.name}' are no array") from error
    if found.size != math.prod(tensor.shape):
        raise Refused(400, f"'{tensor.name}' has {found.size} values; its shape {tensor.shape} takes another number")
    made = found.astype(expected.dtype) if found.dtype.kind in _FROM_JSON[expected.dtype.kind] else None
    if made is None or (made.dtype.kind in "iu" and (made != found).any()):
        raise Refused(400, f"the data of '{tensor.name}' are not all {expected.datatype}")
    return made.reshape(tensor.shape)


def answer(request: Request, values: list[np.ndarray], network: Network) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of an answer."""
    outputs: list[dict[str, Any]] = []
    rest = []
    for index, binary in request.wanted:
        value = values[index]
        described = network.outputs[index].metadata() | {"shape": list(value.shape)}
        if binary:
            rest.append(value.tobytes())
            described["parameters"] = {"binary_data_size": value.nbytes}
        else:
            described["data"] = value.ravel().tolist()
        outputs.append(described)
    document = {"model_name": network.name, "model_version": "1", "outputs": outputs}
    if request.id is not None:
        document["id"] = request.id
    try:
        head = json.dumps(document, allow_nan=False).encode()
    except ValueError as error:
        raise Refused(500, "an output is not finite, which JSON cannot hold; ask for binary data") from error
    if not rest:
        return head, {"Content-Type": "application/json"}
    headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(head))}
    return head + b"".join(rest), headers
