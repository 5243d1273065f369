"""Model files: load, with every error in one sentence; save, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import count
from pathlib import Path
from typing import IO

import onnx
from google.protobuf.message import DecodeError, EncodeError
from onnx.external_data_helper import uses_external_data

from pconv_onnx.basics.errors import PconvError, note
from pconv_onnx.basics.foreign_errors import reason_of
from pconv_onnx.basics.places import same_file
from pconv_onnx.basics.writing import replacing
from pconv_onnx.graph import nesting
from pconv_onnx.graph.checking import InvalidModel, check, newer_operators, too_new
from pconv_onnx.graph.expansion import excess_of
from pconv_onnx.graph.external import GitLfsPointer, Place, chunks, files_of, moved, name_file, read_references
from pconv_onnx.graph.mending import mended, with_open_sizes, with_output_types
from pconv_onnx.graph.mistaken import GIT_LFS_HINT, mistaken
from pconv_onnx.graph.network import Network
from pconv_onnx.graph.record import is_rewritten
from pconv_onnx.graph.soundness import flaw_of
from pconv_onnx.graph.tensors import references

# Error and hint for a model in memory whose external data lie in an unknown folder.
NOT_LOADED = "the model keeps tensors in other files, which are not loaded", "pass its path"

ModelSource = str | os.PathLike[str] | onnx.ModelProto


def require_source(source: object) -> None:
    """Raise if a model is given as neither a path nor a model in memory.

    Raises:
        TypeError: it is.
    """
    if not isinstance(source, str | os.PathLike | onnx.ModelProto):
        raise TypeError(f"a model is given as a path or an onnx.ModelProto, not as {type(source).__name__}")


def load(source: ModelSource) -> Network:
    """Load and check a model.

    Args:
        source: path of an ONNX file, or a model in memory. External data beside the file are read as well; large
            tensors stay there if the model would be too large for one file.

    Raises:
        PconvError: there is no such file, or it is not a valid ONNX model.
        TypeError: `source` is neither.
    """
    require_source(source)
    if isinstance(source, onnx.ModelProto):
        if references(source):
            raise PconvError(*NOT_LOADED)
        return _checked(source, "the model", hashlib.sha256(source.SerializeToString(deterministic=True)).hexdigest())
    path = Path(source)
    name = f"'{path}'"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PconvError(f"cannot read {name}: {error.strerror or error}", "check the path") from error
    if not content:
        raise PconvError(f"{name} is empty", "export the model again")
    if other := mistaken(content):
        raise PconvError(f"{name} is {other[0]}, not the model", other[1])
    digest = hashlib.sha256(content).hexdigest()
    try:
        proto = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise PconvError(f"{name} is not an ONNX model, or is cut short", "export or copy it again") from error
    folder = path.absolute().parent
    external = [tensor for tensor in proto.graph.initializer if uses_external_data(tensor)]
    try:
        read_references(proto, folder)
        for tensor in external:
            following = hashlib.sha256(digest.encode())
            for chunk in chunks(tensor, folder):
                following.update(chunk)
            digest = following.hexdigest()
    except (OSError, ValueError) as error:
        hint = GIT_LFS_HINT if isinstance(error.__cause__, GitLfsPointer) else "keep it beside the model"
        raise PconvError(f"cannot read the external data of {name}: {error}", hint) from error
    return _checked(proto, name, digest, folder)


def _checked(source: onnx.ModelProto, name: str, digest: str, folder: Path | None = None) -> Network:
    if newer := too_new(source):
        raise PconvError(f"{name} has the {newer}", "install a newer onnx, or export the model with an older one")
    if unknown := newer_operators(source):
        raise PconvError(f"{name} {unknown[0]}", unknown[1])
    try:
        proto, mends = mended(source)
        if excess := excess_of(proto):
            raise PconvError(f"{name} is too large: {excess[0]}", excess[1])
        check(proto)
    except InvalidModel as error:
        raise PconvError(f"{name} is not a valid ONNX model: {error}", error.hint) from error
    if flaw := flaw_of(proto):
        raise PconvError(f"{name} is not a valid ONNX model: {flaw[0]}", flaw[1])
    try:
        proto, opened = with_open_sizes(proto)
        network = Network(nesting.with_names_of_their_own(with_output_types(proto)), name, digest, folder)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:  # of functions, for example
        raise PconvError(f"{name} is not a valid ONNX model: {reason_of(error)}", "") from error
    except MemoryError as error:  # inference takes memory for every element of what it believes to be a shape
        raise PconvError(
            f"the shapes in {name} cannot be inferred: they are too large", "declare the sizes that it has"
        ) from error
    except KeyError as error:  # the checker lets through element types that onnx itself cannot name
        raise PconvError(f"{name} has a tensor of the unknown type {error}", "export or copy it again") from error
    except UnicodeDecodeError as error:
        raise PconvError(f"{name} has an attribute that is not text: {error}", "export or copy it again") from error
    if told := (*mends, *opened):
        note(f"{name} was mended on reading: {', '.join(told)}")
    return network


def refuse_to_overwrite(source: ModelSource, output: str | os.PathLike[str]) -> None:
    """Raise if the output would be written over the model that it is made from.

    Raises:
        PconvError: it would.
    """
    if not isinstance(source, onnx.ModelProto) and same_file(source, output):
        raise PconvError(f"'{output}' is the input", "choose another name with `output=`, or pass `force=True`")


def require_own_file(written: str | os.PathLike[str], others: Mapping[str, object]) -> None:
    """Raise if the output file is also used for something else.

    Args:
        written: its path.
        others: other sources in use, by their name in messages; those that are not paths are ignored.

    Raises:
        PconvError: it is one of these.
    """
    for told, other in others.items():
        if isinstance(other, str | os.PathLike) and same_file(written, other):
            raise PconvError(f"'{written}' is {told} as well, and would be overwritten", "name another file")


def save(proto: onnx.ModelProto, path: str | os.PathLike[str], folder: Path | None = None) -> None:
    """Write a model to a file that appears whole or not at all, whoever else writes it at the same time.

    External data are copied to one file beside it: `<name>.data`, or `<name>.1.data` and so on if that exists. Until
    the model is replaced, an older model keeps its own data file, which is removed with it.

    Args:
        proto: the model.
        path: the file.
        folder: the folder of its external data, if it has any.

    Raises:
        PconvError: the model is too large for one file, a file cannot be written, or external data cannot be read.
    """
    sources: set[Path] = set()
    with replacing(path) as new:
        if folder is not None and references(proto):
            try:
                proto, parts = moved(proto, folder)
            except ValueError as error:
                raise PconvError(
                    f"cannot write '{path}': {error}", "keep the external data of its source as it was"
                ) from error
            sources = {Path(place.path) for place in parts}
            data = new.write_data(partial(_copy, parts), _data_names(new.target))
            name_file(proto, data.name)
        try:
            content = proto.SerializeToString()
        except (ValueError, EncodeError) as error:
            raise PconvError(f"'{path}' would be larger than the 2 GB of one ONNX file", "") from error
        new.write(lambda file: file.write(content))
        new.appear(lambda: _data_of(new.target) - sources)


def _copy(parts: Mapping[Place, int], file: IO[bytes]) -> None:
    for place, offset in parts.items():
        file.seek(offset)
        for chunk in place.chunks():
            file.write(chunk)


def _data_names(target: Path) -> Iterator[Path]:
    """The files that a model's external data may be written to, in the order in which they are tried."""
    yield target.with_name(f"{target.name}.data")
    yield from (target.with_name(f"{target.name}.{number}.data") for number in count(1))


def _data_of(target: Path) -> set[Path]:
    """Those of them that hold external data of the model in a file, if `rewrite` wrote it."""
    name = re.compile(re.escape(target.name) + r"(\.[0-9]+)?\.data")
    # `rewrite` makes no links, so a link is the user's.
    there = {file for file in target.parent.glob("*.data") if name.fullmatch(file.name) and not file.is_symlink()}
    if not there or not target.is_file():
        return set()
    try:
        model = onnx.load(target, load_external_data=False)
    except (OSError, DecodeError):
        return set()
    locations = files_of(model) if is_rewritten(model) else set()
    return {file for file in there if file.name in locations}
