"""Requests and answers of the Open Inference Protocol (KServe v2), with its extension for binary tensors.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import re
from dataclasses import dataclass
from typing import Annotated, Any

import jiter
import numpy as np
from pydantic import AfterValidator, BaseModel, Field, StrictInt, ValidationError

HEADER_LENGTH = "Inference-Header-Content-Length"
# What Python reads from JSON for each kind of NumPy type, by NumPy's letters.
_FROM_JSON = {"b": {bool}, "i": {int}, "u": {int}, "f": {int, float}}
# Lists and objects in the JSON of a request, which take much more memory than their two characters.
_BRACKETS = 1 << 16
# Values that are written as JSON in one call, which lets no other thread run before its end.
_PIECE = 1 << 12


class Refused(Exception):
    """A request that gets no outputs: an HTTP status, and a sentence for the client."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        # Names that a client wrote may be in it, and of any length.
        self.message = "".join(letter if letter.isprintable() else "?" for letter in message[:500])
        self.status = status


def _served(parameters: dict[str, Any]) -> dict[str, Any]:
    for name in parameters:
        if name == "classification" or name.startswith("shared_memory_"):
            raise ValueError(f"this server does not have {name}")
    return parameters


Size = Annotated[StrictInt, Field(gt=-(2**63), lt=2**63)]
Parameters = Annotated[dict[str, Any], AfterValidator(_served)]


class GivenTensor(BaseModel):
    name: str
    shape: list[Size] = Field(max_length=64)
    datatype: str
    data: list[Any] | None = None
    parameters: Parameters = {}


class WantedTensor(BaseModel):
    name: str
    parameters: Parameters = {}


class InferenceRequest(BaseModel):
    id: str | None = Field(None, max_length=1024)
    inputs: list[GivenTensor] = Field(max_length=1024)
    outputs: list[WantedTensor] | None = Field(None, max_length=1024)
    parameters: Parameters = {}


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
        max_batch: samples of a request at most, where it can have several.
    """

    name: str
    inputs: list[Tensor]
    outputs: list[Tensor]
    batched: bool
    max_batch: int

    def metadata(self) -> dict[str, Any]:
        tensors = {"inputs": self.inputs, "outputs": self.outputs}
        described = {key: [tensor.metadata() for tensor in value] for key, value in tensors.items()}
        return {"name": self.name, "versions": ["1"], "platform": "onnxruntime_onnx", **described}


def network_of(manifest: dict[str, Any], name: str, max_batch: int) -> Network:
    """What a bundle's manifest says; a request may have so many samples.

    Raises:
        ValueError: such a network is not served; the sentence says why.
    """
    if manifest["potentials"]:
        raise ValueError("a serial network keeps potentials between requests, which this server does not; "
                         "rewrite it in mode parallel or folded")  # fmt: skip
    sides = [[_tensor(described) for described in manifest[side]] for side in ("inputs", "outputs")]
    first = {tensor.shape[0] if tensor.shape else None for tensor in sum(sides, [])}
    batched = len(first) == 1 and all(isinstance(size, str) for size in first)
    return Network(name, *sides, batched=batched, max_batch=max_batch)


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
        rows: samples in them; 1 where requests cannot be joined.
        wanted: indices of outputs, and whether each goes back as bytes.
    """

    id: str | None
    feed: dict[str, np.ndarray]
    rows: int
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
    end = len(body) if header_length is None else number(header_length)
    if end is None or end > len(body):
        raise Refused(400, f"{HEADER_LENGTH} is no number of bytes of this request")
    try:
        asked = InferenceRequest.model_validate(_parsed(body[:end]))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise Refused(400, f"{where}: {first['msg']}" if where else first["msg"]) from error
    rows = _check_inputs(asked.inputs, network)
    return Request(asked.id, _feed(asked.inputs, body[end:], network), rows, _wanted(asked, network))


def number(text: str) -> int | None:
    """The number in a header; None where there is none, or one that no request has."""
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else None


def _parsed(content: bytes) -> Any:
    """JSON, at a cost that its length bounds."""
    if content.count(b"[") + content.count(b"{") > _BRACKETS:
        raise Refused(400, f"the JSON has more than {_BRACKETS} lists and objects; give data as flat lists")
    try:
        return jiter.from_json(content, allow_inf_nan=False, cache_mode="keys", catch_duplicate_keys=True)
    except ValueError as error:
        raise Refused(400, f"Invalid JSON: {error}") from error


def _wanted(asked: InferenceRequest, network: Network) -> list[tuple[int, bool]]:
    names = [tensor.name for tensor in network.outputs]
    binary = asked.parameters.get("binary_data_output") is True
    if not asked.outputs:
        return [(index, binary) for index in range(len(names))]
    wanted = {output.name: output.parameters.get("binary_data", binary) is True for output in asked.outputs}
    for name in wanted:
        if name not in names:
            raise Refused(400, f"'{name}' is no output of {network.name}; it has {', '.join(names)}")
    if len(wanted) < len(asked.outputs):
        raise Refused(400, "an output is asked for twice")
    return [(names.index(name), binary) for name, binary in wanted.items()]


def _check_inputs(given: list[GivenTensor], network: Network) -> int:
    """Refuse what the network does not take, before arrays are made; the number of samples."""
    known = {tensor.name: tensor for tensor in network.inputs}
    if sorted(tensor.name for tensor in given) != sorted(known):
        raise Refused(400, f"{network.name} takes the inputs {', '.join(known)}, each once")
    sizes: dict[str, int] = {}
    for tensor in given:
        expected = known[tensor.name]
        if tensor.datatype != expected.datatype:
            raise Refused(400, f"'{tensor.name}' is {expected.datatype}, not {tensor.datatype}")
        _check_shape(tensor, expected, sizes)
    rows = given[0].shape[0] if network.batched else 1
    if rows > network.max_batch:
        raise Refused(400, f"{rows} samples; a request may have {network.max_batch}")
    return rows


def _feed(given: list[GivenTensor], rest: bytes, network: Network) -> dict[str, np.ndarray]:
    known = {tensor.name: tensor for tensor in network.inputs}
    feed: dict[str, np.ndarray] = {}
    position = 0
    for tensor in given:
        expected = known[tensor.name]
        if (length := tensor.parameters.get("binary_data_size")) is None:
            feed[tensor.name] = _from_json(tensor, expected)
            continue
        size = math.prod(tensor.shape) * expected.dtype.itemsize
        if type(length) is not int or length != size or position + length > len(rest):
            raise Refused(400, f"'{tensor.name}' has another number of bytes than its shape {tensor.shape} takes")
        if tensor.data is not None:
            raise Refused(400, f"'{tensor.name}' has data in JSON and as bytes")
        feed[tensor.name] = _from_bytes(rest[position : position + length], tensor, expected)
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


def _from_bytes(content: bytes, tensor: GivenTensor, expected: Tensor) -> np.ndarray:
    if expected.dtype.kind == "b" and np.frombuffer(content, np.uint8).max() > 1:
        raise Refused(400, f"the bytes of '{tensor.name}' are not all 0 or 1")
    return np.frombuffer(content, expected.dtype).reshape(tensor.shape)


def _from_json(tensor: GivenTensor, expected: Tensor) -> np.ndarray:
    values = _flat(tensor)
    if len(values) != math.prod(tensor.shape):
        raise Refused(400, f"'{tensor.name}' has {len(values)} values; its shape {tensor.shape} takes another number")
    if (made := _array(values, expected.dtype)) is None:
        raise Refused(400, f"the data of '{tensor.name}' are not all {expected.datatype}")
    return made.reshape(tensor.shape)


def _array(values: list[Any], dtype: np.dtype) -> np.ndarray | None:
    """What JSON holds; None where one is no value of the type, or is beyond its largest."""
    if not set(map(type, values)) <= _FROM_JSON[dtype.kind]:
        return None
    if dtype.kind in "iu" and not np.iinfo(dtype).min <= min(values) <= max(values) <= np.iinfo(dtype).max:
        return None
    with np.errstate(over="ignore"), contextlib.suppress(OverflowError):  # of an integer that no float has
        made = np.array(values, dtype)
        return made if np.isfinite(made).all() else None
    return None


def _flat(tensor: GivenTensor) -> list[Any]:
    """The data, which are a flat list or lists nested as the shape is."""
    data = tensor.data or []
    if list not in set(map(type, data)):
        return data
    level: list[Any] = [data]
    for size in tensor.shape:
        if any(type(part) is not list or len(part) != size for part in level):
            raise Refused(400, f"the data of '{tensor.name}' are no array of the shape {tensor.shape}")
        level = list(itertools.chain.from_iterable(level))
    return level


def answer(request: Request, values: list[np.ndarray], network: Network) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of an answer."""
    document = {"model_name": network.name, "model_version": "1"} | ({} if request.id is None else {"id": request.id})
    outputs, rest = [], []
    for index, binary in request.wanted:
        value = values[index]
        described = network.outputs[index].metadata() | {"shape": list(value.shape)}
        if binary:
            rest.append(value.tobytes())
            outputs.append(json.dumps(described | {"parameters": {"binary_data_size": value.nbytes}}))
        else:
            outputs.append(f'{json.dumps(described)[:-1]}, "data": [{_data(value)}]}}')
    head = f'{json.dumps(document)[:-1]}, "outputs": [{", ".join(outputs)}]}}'.encode()
    if not rest:
        return head, {"Content-Type": "application/json"}
    headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(head))}
    return b"".join([head, *rest]), headers


def _data(value: np.ndarray) -> str:
    """The values of an array as JSON, without brackets."""
    if not np.isfinite(value).all():
        raise Refused(400, "an output is not finite, which JSON cannot hold; ask for binary data")
    flat = value.ravel()
    return ", ".join(json.dumps(flat[start : start + _PIECE].tolist())[1:-1] for start in range(0, flat.size, _PIECE))
