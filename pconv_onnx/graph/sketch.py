"""A sketch: a network stored in the metadata of another, without tensors that the files already hold."""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper

from pconv_onnx.graph.nesting import every_graph

# The most bytes that a sketch may expand to.
_LARGEST = 1 << 28
# An initializer that another network holds is replaced by a reference: to the source or to the network with the sketch,
# how to convert it, and its digest.
_SOURCE, _OWN = "source", "own"
# A word of such a reference; others are the integers that rows are multiplied by.
_TRANSPOSED = "transposed"


def sketch(network: onnx.ModelProto, source: onnx.ModelProto, own: onnx.ModelProto, *, shapes: bool = False) -> str:
    """The text from which `redrawn` makes the network again.

    Args:
        network: the network, without external data.
        source: a network that will be available as well.
        own: the network that keeps the sketch. Tensors that it has in a narrower type, or as integers, are so in the
            sketch too.
        shapes: whether to keep the shapes of tensors, which inference does not find behind neurons.
    """
    model = onnx.ModelProto()
    model.CopyFrom(network)
    del model.metadata_props[:]
    there = {_SOURCE: _held(source), _OWN: _held(own)}
    for graph in every_graph(model.graph):
        if not shapes:
            del graph.value_info[:]
        for tensor in graph.initializer:
            given, kept = (held.get(tensor.name) for held in (there[_SOURCE], there[_OWN]))
            if given is not None and (digest := _digest(given)) == _digest(tensor):
                _refer(tensor, _SOURCE, digest)
            elif kept is not None and (form := _form(kept, tensor)) is not None:
                _refer(tensor, _OWN, " ".join([_digest(kept), *form]))
    return base64.b64encode(zlib.compress(model.SerializeToString())).decode("ascii")


def redrawn(text: str, source: onnx.ModelProto, own: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """The network of a sketch, and the names of tensors that have changed in `own` since it was drawn.

    Raises:
        ValueError: the text is not a sketch, or needs a tensor that is missing.
    """
    try:
        expanding = zlib.decompressobj()
        content = expanding.decompress(base64.b64decode(text, validate=True), _LARGEST)
        if not expanding.eof:
            raise ValueError("it would expand to too much" if expanding.unconsumed_tail else "it ends early")
        model = onnx.ModelProto.FromString(content)
    except (binascii.Error, zlib.error, DecodeError) as error:
        raise ValueError(str(error)) from error
    there = {_SOURCE: _held(source), _OWN: _held(own)}
    changed = []
    for tensor in (tensor for graph in every_graph(model.graph) for tensor in graph.initializer):
        place, _, digest = tensor.doc_string.partition(" ")
        if not place:
            continue
        digest, *form = digest.split()
        held = there.get(place, {}).get(tensor.name)
        if held is None or math.prod(held.dims) != math.prod(tensor.dims):
            raise ValueError(f"the tensor '{tensor.name}' is not there")
        if _digest(held) != digest:
            changed.append(tensor.name)
        tensor.CopyFrom(_formed(held, form, tensor) if place == _OWN else held)
    return model, changed


def _held(model: onnx.ModelProto) -> Mapping[str, TensorProto]:
    return {tensor.name: tensor for graph in every_graph(model.graph) for tensor in graph.initializer}


def _form(kept: TensorProto, tensor: TensorProto) -> list[str] | None:
    """How a tensor is converted to a float32 tensor, as words of its reference; None if that is not possible.

    It may be equal, or in a narrower float type. Integers may also be transposed, and their rows multiplied by
    integers.
    """
    if tensor.data_type != TensorProto.FLOAT or math.prod(kept.dims) != math.prod(tensor.dims):
        return None
    held, wanted = numpy_helper.to_array(kept), numpy_helper.to_array(tensor)
    if held.dtype.kind not in "iu":
        return [] if held.shape == wanted.shape else None
    if not held.ndim or not held.size or not np.isfinite(wanted).all():
        return None
    for words in ([], [_TRANSPOSED]):
        if words and wanted.ndim != 2:
            continue
        rows = (wanted.T if words else wanted).reshape(held.shape).reshape(len(held), -1).astype(np.float64)
        own = held.reshape(len(held), -1).astype(np.float64)
        if (own == rows).all():
            return words
        largest = abs(own).max(axis=1)
        factors = np.rint(abs(rows).max(axis=1) / np.where(largest, largest, 1))
        if (own * factors[:, np.newaxis] == rows).all():
            return [*words, *(str(int(factor)) for factor in factors)]
    return None


def _formed(held: TensorProto, form: Sequence[str], tensor: TensorProto) -> TensorProto:
    """A tensor converted by the words of a reference to it."""
    value = numpy_helper.to_array(held).astype(np.float32)
    factors = [int(word) for word in form if word != _TRANSPOSED]
    if factors:
        value *= np.array(factors, np.float32).reshape(-1, *[1] * (value.ndim - 1))
    if _TRANSPOSED in form:
        value = value.reshape(len(value), -1).T
    return numpy_helper.from_array(np.ascontiguousarray(value.reshape(tuple(tensor.dims))), held.name)


def _refer(tensor: TensorProto, place: str, digest: str) -> None:
    """Replace a tensor's values by a reference: where they are, and their digest."""
    reference = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    reference.doc_string = f"{place} {digest}"
    tensor.CopyFrom(reference)


def _digest(tensor: TensorProto) -> str:
    total = hashlib.sha256(f"{tensor.data_type} {list(tensor.dims)}".encode())
    total.update(numpy_helper.to_array(tensor).tobytes())
    return total.hexdigest()
