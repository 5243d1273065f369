"""External data: tensors whose values lie in other files than the model. Where they are, and how to read them."""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import SparseTensorProto, TensorProto, helper, numpy_helper
from onnx.external_data_helper import uses_external_data

from pconv_onnx.basics.arrays import Array
from pconv_onnx.graph.mistaken import GIT_LFS
from pconv_onnx.graph.tensors import references, sparse_tensors

# If a model does not fit in one file, tensors of at least so many bytes stay where they are: weights, not the sizes and
# thresholds that recognisers read.
_LARGE = 1 << 20
# Protobuf messages end at 2 GiB, and rewriting adds tables.
_LARGEST_FILE = (1 << 31) - (1 << 24)
_CHUNK = 1 << 22
# The most bytes of a Git LFS pointer.
_LARGEST_POINTER = 1 << 10
# The key under which a tensor has the name of its file.
_LOCATION = "location"
# Offsets at which a memory map may begin are multiples of this.
_PAGE = 1 << 12
# Elements that do not begin at a byte each: bits of one.
PACKED = {"INT2": 2, "UINT2": 2, "INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "FLOAT6E2M3": 6, "FLOAT6E3M2": 6}


def fits_in_one_file(model: onnx.ModelProto) -> bool:
    """Whether one file can hold a model together with its external data.

    Raises:
        ValueError: one of these has a size that none can have.
    """
    return model.ByteSize() + sum(map(nbytes, references(model))) <= _LARGEST_FILE


def read_references(model: onnx.ModelProto, folder: Path) -> None:
    """Read a model's external data from a folder; large tensors stay there if the model would not fit in one file.

    Raises:
        OSError: a file cannot be read.
        ValueError: which tensor lies nowhere that may be read, and why.
    """
    places = [Place.of(tensor, folder) for tensor in references(model)]
    least = math.inf if fits_in_one_file(model) else _LARGE
    # What is sparse is checked, value by value.
    sparse = {part.name for tensor in sparse_tensors(model) for part in (tensor.values, tensor.indices)}
    for tensor, place in zip(references(model), places, strict=True):
        if place.length < least or tensor.name in sparse:
            _embed(tensor, b"".join(place.chunks()))


def moved(model: onnx.ModelProto, folder: Path) -> tuple[onnx.ModelProto, dict[Place, int]]:
    """A copy of a model that keeps tensors in one file, not named yet, and where in it each part of files is to be.

    Raises:
        ValueError: which tensor lies nowhere in the folder that may be read, and why.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    offsets: dict[Place, int] = {}
    end = 0
    for tensor in references(copy):
        place = Place.of(tensor, folder)
        if place not in offsets:
            offsets[place] = -(-end // _PAGE) * _PAGE
            end = offsets[place] + place.length
        del tensor.external_data[:]
        for key, value in ((_LOCATION, ""), ("offset", offsets[place]), ("length", place.length)):
            tensor.external_data.add(key=key, value=str(value))
    return copy, offsets


def name_file(model: onnx.ModelProto, location: str) -> None:
    """Say that all external data of a model lie in the file of this name."""
    for tensor in references(model):
        for entry in tensor.external_data:
            if entry.key == _LOCATION:
                entry.value = location


def files_of(model: onnx.ModelProto) -> set[str]:
    """The names of the files that hold a model's external data, as the model spells them."""
    entries = (entry for tensor in references(model) for entry in tensor.external_data)
    return {entry.value for entry in entries if entry.key == _LOCATION}


def _embed(tensor: TensorProto, content: bytes) -> None:
    del tensor.external_data[:]
    tensor.ClearField("data_location")
    tensor.raw_data = content


def chunks(tensor: TensorProto, folder: Path) -> Iterator[bytes]:
    """The bytes of a tensor with external data in a folder, whether or not it has been read."""
    return Place.of(tensor, folder).chunks() if uses_external_data(tensor) else iter([tensor.raw_data])


def nbytes(tensor: TensorProto) -> int:
    """How many bytes the values of a tensor take, by its type and shape.

    Raises:
        ValueError: its type is not known or has no fixed size, or a dimension is negative.
    """
    element = tensor.data_type
    if element == TensorProto.STRING or element not in helper.get_all_tensor_dtypes():
        raise ValueError(f"tensor '{tensor.name}' is of a type that has no size")
    return -(-_elements(tensor) * _bits(element) // 8)


def _elements(tensor: TensorProto) -> int:
    if any(size < 0 for size in tensor.dims):
        raise ValueError(f"tensor '{tensor.name}' has the shape {list(tensor.dims)}, with a size below zero")
    return math.prod(tensor.dims)


def _bits(element: int) -> int:
    return PACKED.get(TensorProto.DataType.Name(element)) or 8 * helper.tensor_dtype_to_np_dtype(element).itemsize


class GitLfsPointer(ValueError):
    """A Git LFS pointer, which stands for a file that has not been fetched."""


@dataclass(frozen=True)
class Place:
    """The part of a file that the values of a tensor are in.

    Attributes:
        path: the file, links followed.
        offset: bytes before it.
        length: its bytes.
    """

    path: str
    offset: int
    length: int

    @classmethod
    def of(cls, tensor: TensorProto, folder: Path) -> Place:
        """That of a tensor of a model in a folder.

        Raises:
            ValueError: it has none that may be opened: its file is not one of the folder, or does not hold as much.
        """
        entries = {entry.key: entry.value for entry in tensor.external_data}
        taken = nbytes(tensor)
        try:
            # Protobuf gives bytes for them.
            if not all(isinstance(text, str) for entry in entries.items() for text in entry):
                raise ValueError("has external data whose description is not text")
            location = entries.get(_LOCATION, "")
            path = _file(location, folder)
            offset, length = (_number(entries, key, other) for key, other in (("offset", 0), ("length", taken)))
            size = os.stat(path).st_size
            if size < _LARGEST_POINTER and _is_pointer(path):
                raise GitLfsPointer(f"{_told(location)} is a Git LFS pointer, not the data")
            if length != taken:
                raise ValueError(f"has {length} bytes, and its shape {list(tensor.dims)} takes {taken}")
            if offset + length > size:
                raise ValueError(f"ends at byte {offset + length} of a file of {size}")
        except ValueError as error:
            raise ValueError(f"tensor '{tensor.name}' {error}") from error
        return cls(path, offset, length)

    def chunks(self) -> Iterator[bytes]:
        """Yield its bytes, in pieces.

        Raises:
            OSError: the file cannot be read, or has become shorter.
        """
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            left = self.length
            while left:
                chunk = file.read(min(left, _CHUNK))
                if not chunk:
                    raise OSError(f"'{self.path}' has become shorter")
                left -= len(chunk)
                yield chunk


def _told(location: str) -> str:
    return f"lies in '{location}', which"


def _is_pointer(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(len(GIT_LFS)) == GIT_LFS


def _file(location: str, folder: Path) -> str:
    """The file in a folder that a tensor says its values are in.

    Raises:
        ValueError: it is not there, not in that folder, or not a file.
    """
    told = _told(location)
    if not location:
        raise ValueError("lies in a file without a name")
    if "\0" in location:
        raise ValueError("lies in a file that cannot have its name")
    # Of either kind of system: a model comes from anywhere.
    if location[0] in "/\\" or re.match("[A-Za-z]:", location):
        raise ValueError(f"{told} is not a path from the model's folder")
    if ".." in re.split(r"[/\\]", location):
        raise ValueError(f"{told} leaves the model's folder")
    top, path = os.path.realpath(folder), os.path.realpath(folder / location)
    if os.path.commonpath([top, path]) != top:
        raise ValueError(f"{told} leaves the model's folder through a link")
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise ValueError(f"{told} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(mode):
        raise ValueError(f"{told} is not a file")
    return path


def _number(entries: dict[str, str], key: str, otherwise: int) -> int:
    text = entries.get(key)
    if text is None:
        return otherwise
    if not re.fullmatch("[0-9]{1,18}", text):
        raise ValueError(f"has the {key} '{text[:40]}', which is not a number of bytes")
    return int(text)


def values(tensor: TensorProto | SparseTensorProto, folder: Path | None) -> Array:
    """The values of a tensor. External data, in that folder, are mapped into memory and not read.

    Raises:
        ValueError: they cannot be read.
    """
    if isinstance(tensor, SparseTensorProto):
        return _dense(tensor, folder)
    if not uses_external_data(tensor):
        return np.asarray(numpy_helper.to_array(tensor))
    if folder is None:
        raise ValueError("lies in a file of an unknown folder")
    place = Place.of(tensor, folder)
    # A memory map cannot be empty.
    if not place.length or TensorProto.DataType.Name(tensor.data_type) in PACKED:
        read = TensorProto(dims=tensor.dims, data_type=tensor.data_type, raw_data=b"".join(place.chunks()))
        return np.asarray(numpy_helper.to_array(read))
    mapped = np.memmap(place.path, np.uint8, "r", place.offset, (place.length,))
    return mapped.view(helper.tensor_dtype_to_np_dtype(tensor.data_type)).reshape(tuple(tensor.dims))


def _dense(tensor: SparseTensorProto, folder: Path | None) -> Array:
    filled, indices = values(tensor.values, folder), values(tensor.indices, folder)
    result = np.zeros(tuple(tensor.dims), filled.dtype)
    if indices.ndim == 2:
        result[tuple(indices.T)] = filled
    else:
        result.reshape(-1)[indices] = filled
    return result
