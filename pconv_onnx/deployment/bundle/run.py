"""Run the spiking network of this bundle in onnxruntime, after a check of every file: python run.py --help."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
import os
import platform
import re
import stat
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

try:
    import numpy as np
except ImportError:
    sys.exit("run.py: numpy is not installed; pip install numpy onnxruntime")
except KeyboardInterrupt:
    sys.exit("run.py: stopped")

PROVIDERS: dict[str, list[Any]] = {
    "cpu": ["CPUExecutionProvider"],
    # TF32 would round inputs of convolutions to 10 bits.
    "cuda": [("CUDAExecutionProvider", {"use_tf32": "0"})],
}

# By the kind of an input's type, those of arrays that may be given for it where no value changes.
_GIVEN_FOR = {"b": "b", "i": "biu", "u": "biu", "f": "biuf"}
_TYPES = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64".split()
# Values that are made up for an input; bytes of a manifest; axes that every NumPy has; steps that `rewrite` gives.
_MOST_VALUES, _MOST_BYTES, _MOST_AXES, _MOST_STEPS = 1 << 28, 1 << 26, 32, 256
# What an archive may always expand to; and beyond, how many times its own size.
_ALWAYS, _MOST_TIMES = 1 << 28, 200
# Bytes in front of an array's values, of which NumPy takes 10,000 for a header.
_HEADER = 10_240
# How an archive begins, one without entries as well.
_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
# What onnxruntime says of itself rather than of a fault.
_THEIRS = (
    (r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : |This is an invalid model\. |Load model from .*? failed:", ""),
    (r"Non-zero status code returned while running (\S+) node\. Name:'(.*?)' Status Message: ", r"\1 '\2': "),
    (r"\S+\.(?:cc|cpp|h):\d+ (?:.*? was false\. )?", ""),
)
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def main() -> None:
    """Run the network as the command line says; errors are printed in one line."""
    try:
        with np.errstate(all="ignore"):
            _main()
    except KeyboardInterrupt:
        end("stopped")
    except MemoryError:
        end("there is not enough memory for this network or these inputs")


def _main() -> None:
    parser = _Parser(description="Run this spiking network in onnxruntime.")
    parser.add_argument("inputs", nargs="?", help=".npz of arrays named as the inputs (default: seeded random numbers)")
    parser.add_argument("--provider", choices=PROVIDERS, default="cpu", help="where to run (cpu)")
    parser.add_argument("-o", "--output", metavar="FILE", help="write the outputs to this .npz")
    options = parser.parse_args()
    folder = _folder()
    manifest = checked(folder)
    if manifest["library"] is not None and options.provider not in manifest["providers"]:
        end(f"{printable(manifest['library'], 100)} has kernels for {listed(manifest['providers']) or 'nothing'} only")
    if options.output:
        require_entries(manifest)
        require_writable(options.output)
    feed = complete(manifest, read(options.inputs, manifest) if options.inputs else {})
    session = open_session(folder, manifest, PROVIDERS[options.provider])
    try:
        outputs = run(session, manifest, feed)
    except Exception as error:  # onnxruntime's exceptions have no narrower class in common
        end(f"the network does not run on these inputs: {reason(error)}")
    try:  # neither costs the other, where it fails
        tell(described(name, value) for name, value in outputs.items())
    finally:
        if options.output:
            write(options.output, outputs)


def _folder() -> Path:
    """The bundle: where a link to this program leads, or, where no manifest is there, where the link lies."""
    beside, linked = Path(__file__).absolute().parent, Path(__file__).resolve().parent
    return linked if os.path.lexists(linked / "manifest.json") else beside


# What is told.


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def end(message: str) -> NoReturn:
    """End the program, with one line."""
    sys.exit(f"run.py: {printable(message, 1000)}")


def tell(lines: Iterable[str]) -> None:
    """Print lines, in escapes where the terminal has no letters for them."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        for line in lines:
            print(line)
        print(end="", flush=True)
    except OSError as error:
        sys.stdout = open(os.devnull, "w")  # Python would try again at its end
        end(f"cannot write to stdout: {reason(error)}")


def printable(text: str, most: int = 10_000) -> str:
    """A text on one line, cut if it is too long, with escapes for control characters."""
    line = " ".join(text[: 10 * most].split())
    told = "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in line)
    return told if len(told) <= most else f"{told[: most - 1]}…"


def named(name: str) -> str:
    """A name as part of a message."""
    return f"'{printable(name, 100)}'"


def listed(names: Iterable[str]) -> str:
    """Names for a message: the first few of them."""
    told = [printable(name, 100) for name in names]
    return ", ".join(told[:5]) + (f" and {len(told) - 5} more" if len(told) > 5 else "")


def reason(error: BaseException) -> str:
    """The message of an error; of onnxruntime's only the first sentence, without codes and places in its sources."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    text = " ".join(text[:2000].split())
    for theirs, ours in _THEIRS:
        text = re.sub(theirs, ours, text)
    return re.split(r"(?<=[^.\s]{2})\. (?=[A-Z])", text)[0].rstrip(" .") or type(error).__name__


def described(name: str, value: Any) -> str:
    """An output on one line."""
    told = f"{printable(name, 100)} {value.dtype} {list(value.shape)}"
    # Logits: one row of classes a sample.
    if value.ndim == 2 and value.shape[1] > 1 and np.issubdtype(value.dtype, np.floating):
        told += f", top-1 {' '.join(map(str, value.argmax(1)))}"
    return told


# The manifest. Once it is read, its form is certain.


def _is_text(value: Any) -> bool:
    # No longer than an archive lets a name be, and one that files can have.
    return isinstance(value, str) and 0 < len(value) <= 10_000 and not re.search("[\0\ud800-\udfff]", value)


def _is_number(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _are(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(holds, value))


def _maps(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(_is_text, value)) and all(map(holds, value.values()))


def _is_size(value: Any) -> bool:
    return value is None or _is_text(value) or _is_number(value, 0, (1 << 63) - 1)


def _is_tensor(value: Any) -> bool:
    if not isinstance(value, dict) or not _is_text(value.get("name")) or not _is_text(value.get("type")):
        return False
    return _are(_is_size)(value.get("shape")) and len(value["shape"]) <= _MOST_AXES


def _are_tensors(value: Any) -> bool:
    return _are(_is_tensor)(value) and len({tensor["name"] for tensor in value}) == len(value)


def _is_platform(value: Any) -> bool:
    return _maps(_is_text)(value) and set(value) == {"system", "machine"}


def _is_version(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r">=[0-9]{1,4}\.[0-9]{1,4}", value) is not None


# What each entry must be.
_FORM: dict[str, tuple[Callable[[Any], bool], str]] = {
    "pconv_onnx": (_is_text, "a version"),
    "onnxruntime": (_is_version, "a version such as >=1.20"),
    "platform": (_is_platform, "a system and a machine"),
    "model": (_is_text, "the name of a file"),
    "mode": (_is_text, "the name of a mode"),
    "steps": (lambda value: value is None or _is_number(value, 1, 1 << 31), "a number of time-steps"),
    "opsets": (_maps(lambda value: _is_number(value, 1, 1 << 31)), "versions by domain"),
    "inputs": (_are_tensors, "a list of tensors, each with a name of its own, a type and a shape"),
    "outputs": (_are_tensors, "a list of tensors, each with a name of its own, a type and a shape"),
    "potentials": (_maps(_is_text), "outputs by input"),
    "library": (lambda value: value is None or _is_text(value), "the name of a file"),
    "operators": (_are(_is_text), "a list of names"),
    "providers": (_are(_is_text), "a list of names"),
    "files": (_maps(lambda value: isinstance(value, str)), "hashes by file"),
}


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a bundle, checked: it has the right form, and hashes of all files that it names."""
    with opened(folder, "manifest.json") as file:
        try:
            manifest = json.loads(file.read(_MOST_BYTES), object_pairs_hook=_each_once)
        except (OSError, ValueError, RecursionError) as error:
            _refuse(f"({reason(error)})")
    if not isinstance(manifest, dict) or type(manifest.get("format")) is not int:
        _refuse("(it has no number of a 'format')")
    if manifest["format"] != 1:
        end(f"this is for bundles of format 1, the manifest has format {printable(str(manifest['format']), 100)}")
    for key, (holds, wanted) in _FORM.items():
        if key not in manifest or not holds(manifest[key]):
            _refuse(f"(its '{key}' is not {wanted})")
    if unlisted := {manifest["model"], manifest["library"]} - {None, *manifest["files"]}:
        end(f"the manifest has no hash of {listed(sorted(unlisted))}; copy the whole bundle again")
    _require_potentials(manifest)
    return manifest


def _refuse(why: str) -> NoReturn:
    end(f"manifest.json cannot be read {why}; copy the whole bundle again")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def _require_potentials(manifest: dict[str, Any]) -> None:
    potentials = manifest["potentials"]
    inputs, outputs = ({tensor["name"] for tensor in manifest[side]} for side in ("inputs", "outputs"))
    after = set(potentials.values())
    if not inputs.issuperset(potentials) or not outputs.issuperset(after) or len(after) < len(potentials):
        _refuse("(its 'potentials' are not inputs with an output each)")
    if potentials and not _is_number(manifest["steps"], 1, _MOST_STEPS):
        _refuse(f"(its 'steps' are not 1 to {_MOST_STEPS}, and it has potentials)")


# Files of the bundle.


def ordinary(path: str) -> io.BufferedReader | None:
    """An ordinary file for reading; None if it is something else: a pipe would block, a device never end."""
    file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if stat.S_ISREG(os.fstat(file).st_mode):
        return open(file, "rb")
    os.close(file)
    return None


def opened(folder: Path, name: str) -> io.BufferedReader:
    """A file of a bundle, for reading; the program ends if it is missing, not a file, or outside the bundle."""
    told = printable(name, 100)
    if name[0] in "/\\" or re.match("[A-Za-z]:", name) or ".." in re.split(r"[/\\]", name):
        end(f"the manifest names {told}, which is outside of the bundle")
    top, path = os.path.realpath(folder), os.path.realpath(folder / name)
    if os.path.commonpath([top, path]) != top:
        end(f"{told} leads out of the bundle through a link; copy the files, not the links (cp -rL)")
    try:
        file = ordinary(path)
    except FileNotFoundError:
        end(f"{told} is missing; copy the whole bundle again")
    except OSError as error:
        end(f"{told} cannot be read: {reason(error)}")
    return file or end(f"{told} is not a file; copy the whole bundle again")


def _digest(file: io.BufferedReader) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def checked(folder: Path) -> dict[str, Any]:
    """The manifest of a bundle, with all files checked; the program ends if one differs, or is for another machine."""
    manifest = read_manifest(folder)
    for name, digest in manifest["files"].items():
        with opened(folder, name) as file:
            try:
                found = _digest(file)
            except OSError as error:
                end(f"{printable(name, 100)} cannot be read: {reason(error)}")
        if found != digest:
            told = f"{printable(name, 100)} is not the file that was deployed"
            end(f"{told} (its SHA-256 differs); copy the bundle again")
    library, here = manifest["platform"], {"system": platform.system(), "machine": platform.machine()}
    if manifest["library"] is not None and library != here:
        both = [f"{printable(place['system'], 100)} on {printable(place['machine'], 100)}" for place in (library, here)]
        end(f"the library is for {both[0]}, this machine is {both[1]}; deploy it there")
    return manifest


# Inputs.


def read(path: str, manifest: dict[str, Any]) -> dict[str, Any]:
    """The arrays of an .npz file that are named as inputs; others are not read.

    None takes far more memory than the file. Membrane potentials may be missing, other inputs not.
    """
    try:
        file = ordinary(path) or end(f"{named(path)} is not a file")
        with file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy's, of old headers
            if file.read(4) not in _MAGIC:  # NumPy would take it for a pickle
                end(f"{named(path)} is not an .npz archive")
            with zipfile.ZipFile(file) as archive:
                entries = _entries(archive, manifest, os.fstat(file.fileno()).st_size)
                return {name: _array(archive, entry) for name, entry in entries.items()}
    except MemoryError:
        raise
    except Exception as error:  # zipfile and NumPy raise many kinds of errors for damaged files
        end(f"{named(path)} cannot be read as .npz: {reason(error)}")


def _entries(archive: zipfile.ZipFile, manifest: dict[str, Any], size: int) -> dict[str, zipfile.ZipInfo]:
    """Those of inputs, by name."""
    inputs = {f"{tensor['name']}.npy": tensor["name"] for tensor in manifest["inputs"]}
    entries = [entry for entry in archive.infolist() if entry.filename in inputs]
    found = {inputs[entry.filename]: entry for entry in entries}
    if len(found) < len(entries):
        raise ValueError("it has two arrays of one name")
    for name in inputs.values():
        if name not in found and name not in manifest["potentials"]:
            given = listed(entry.removesuffix(".npy") for entry in archive.namelist() if entry.endswith(".npy"))
            end(f"the input {named(name)} is missing; the arrays given are {given or 'none'}")
    expanded = sum(entry.file_size for entry in entries)
    if expanded > max(_ALWAYS, _MOST_TIMES * size):
        raise ValueError(f"it would expand from {size:,} to {expanded:,} bytes")
    return found


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Any:
    # Others expand by more than they say before zipfile sees it.
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{named(entry.filename)} is compressed in another way than NumPy does it")
    with archive.open(entry) as stream:
        _require_plain(io.BytesIO(stream.read(_HEADER)), entry)
    with archive.open(entry) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def _require_plain(head: Any, entry: zipfile.ZipInfo) -> None:
    """Raise where an entry is not an array of numbers, as large as it says."""
    told, version = named(entry.filename), np.lib.format.read_magic(head)
    if version not in _HEADERS:
        raise ValueError(f"{told} is of format {version}")
    try:
        shape, _, dtype = _HEADERS[version](head)
    except MemoryError as error:  # Python's, for what is nested too deep
        raise ValueError(f"{told} has a header that cannot be read") from error
    if dtype.kind not in "biuf":
        raise ValueError(f"{told} holds {dtype}, and inputs are real numbers")
    if min(shape, default=0) < 0 or head.tell() + math.prod(shape) * dtype.itemsize != entry.file_size:
        raise ValueError(f"{told} does not hold the array {printable(str(list(shape)), 100)} that it says")


def complete(manifest: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """All inputs: those given, zeros for membrane potentials, and seeded random numbers for the rest."""
    sizes: dict[str, int] = {}
    feed = {t["name"]: fitting(t, given[t["name"]], sizes) for t in manifest["inputs"] if t["name"] in given}
    draw = np.random.default_rng(0)
    for tensor in manifest["inputs"]:
        name = tensor["name"]
        if name in feed:
            continue
        shape = [size if isinstance(size, int) else sizes.get(size, 1) for size in tensor["shape"]]
        if math.prod(shape) > _MOST_VALUES:
            end(f"the input {named(name)} has the shape {_shape(shape, {})}, too large to make up; give it in an .npz")
        values = np.zeros(shape) if name in manifest["potentials"] else draw.normal(size=shape)
        feed[name] = values.astype(type_of(tensor))
    return feed


def fitting(tensor: dict[str, Any], array: Any, sizes: dict[str, int]) -> Any:
    """An array in the type of its input, checked; `sizes` collects the sizes of open dimensions, by name."""
    name, dtype = named(tensor["name"]), type_of(tensor)
    known, fits = dict(sizes), len(array.shape) == len(tensor["shape"])
    for size, fixed_or_open in zip(array.shape, tensor["shape"], strict=False):
        needed = sizes.setdefault(fixed_or_open, size) if isinstance(fixed_or_open, str) else fixed_or_open
        fits = fits and needed in (None, size)
    if not fits:
        found, wanted = _shape(array.shape, {}), _shape(tensor["shape"], known)
        end(f"the input {name} has the shape {found}; the network takes {wanted}")
    if array.dtype.kind not in _GIVEN_FOR[dtype.kind]:
        end(f"the input {name} is {array.dtype}; the network takes {dtype}")
    made = np.require(array, dtype, ["C", "ALIGNED"])
    same = np.isfinite(made) == np.isfinite(array) if dtype.kind == "f" else made == array
    if not same.all():
        end(f"the input {name} has values that {dtype} does not have")
    return made


def type_of(tensor: dict[str, Any]) -> Any:
    """The NumPy type of an input."""
    if tensor["type"] not in _TYPES:
        end(f"the input {named(tensor['name'])} is of type {named(tensor['type'])}, which NumPy does not have")
    return np.dtype(tensor["type"])


def _shape(shape: Iterable[int | str | None], known: dict[str, int]) -> str:
    told = (f"{size}={known[size]}" if isinstance(size, str) and size in known else size for size in shape)
    return printable(f"[{', '.join('?' if size is None else printable(str(size), 40) for size in told)}]", 200)


# The network.


def open_session(folder: Path, manifest: dict[str, Any], providers: list[Any], threads: int = 0) -> Any:
    """An onnxruntime session of the network, with the library if there is one; `threads` 0 is one for each core."""
    try:
        import onnxruntime
        from onnxruntime import InferenceSession, SessionOptions, __version__
    except Exception as error:  # a module of C++ may fail in its own ways
        end(f"onnxruntime cannot be imported ({reason(error)}); pip install onnxruntime")
    oldest = manifest["onnxruntime"].removeprefix(">=")
    if _numbers(__version__) < _numbers(oldest):
        end(f"onnxruntime {__version__} is installed; {oldest} or newer is needed")
    wanted = providers[0] if isinstance(providers[0], str) else providers[0][0]
    if wanted not in onnxruntime.get_available_providers():  # the session would warn, and run elsewhere
        end(f"the onnxruntime installed here has no {wanted}")
    options = SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what it would log of the model, its exceptions tell
    try:
        if manifest["library"] is not None:  # without one, function bodies run
            options.register_custom_ops_library(str(folder / manifest["library"]))
        # A fallback to other providers would be printed.
        session = InferenceSession(folder / manifest["model"], options, providers=providers, enable_fallback=0)
    except Exception as error:  # onnxruntime's exceptions have no narrower class in common
        end(f"onnxruntime {__version__} does not load the network or its library: {reason(error)}")
    if wanted not in session.get_providers():
        end(f"onnxruntime's {wanted} does not start on this machine")
    return session


def run(session: Any, manifest: dict[str, Any], feed: dict[str, Any]) -> dict[str, Any]:
    """The outputs by name; for a serial network their means over T time-steps, without membrane potentials.

    Outputs that are not floats do not depend on spikes, and are the same at each step.
    """
    potentials = manifest["potentials"]
    names = [tensor["name"] for tensor in manifest["outputs"]]
    if not potentials:
        return _step(session, names, feed)
    sums: dict[str, Any] = {}
    for _ in range(manifest["steps"]):
        step = _step(session, names, feed)
        feed = feed | {before: step.pop(after) for before, after in potentials.items()}
        for name, value in step.items():
            sums[name] = value.astype(np.float64) + sums.get(name, 0) if value.dtype.kind == "f" else value
    return {name: _mean(sums[name], manifest["steps"], value.dtype) for name, value in step.items()}


def _mean(total: Any, steps: int, dtype: Any) -> Any:
    return np.asarray(total / steps, dtype) if dtype.kind == "f" else total


def _step(session: Any, names: list[str], feed: dict[str, Any]) -> dict[str, Any]:
    values = session.run(names, feed)
    for name, value in zip(names, values, strict=True):
        if not isinstance(value, np.ndarray) or value.dtype.hasobject:
            end(f"the output {named(name)} is no tensor of numbers")
    return dict(zip(names, values, strict=True))


def _numbers(text: str) -> list[int]:
    return [int(part) for part in re.findall("[0-9]+", text)[:2]]


# Outputs.


def require_entries(manifest: dict[str, Any]) -> None:
    """End the program if names of outputs cannot be names in an archive."""
    names = {tensor["name"] for tensor in manifest["outputs"]}
    for name in sorted(names):
        if ".." in re.split(r"[/\\]", name):
            end(f"the output {named(name)} would lead out of where an archive is unpacked, and is not written")
        if f"{name}.npy" in names:
            end(f"NumPy cannot tell the outputs {named(name)} and {named(f'{name}.npy')} in one archive apart")


def require_writable(path: str) -> None:
    """End the program if an .npz cannot be written; called before the network runs."""
    target = _target(path)
    if os.path.exists(target) and not os.path.isfile(target):
        end(f"cannot write {named(path)}: it is there, and is not a file")
    try:
        tempfile.TemporaryFile(dir=os.path.dirname(target)).close()
    except OSError as error:
        end(f"cannot write {named(path)}: {reason(error)}")


def _target(path: str) -> str:
    """The file to write: if the path is a link, the file that it leads to."""
    path = path if path.endswith(".npz") else f"{path}.npz"
    if os.path.islink(path) and not os.path.exists(path):
        end(f"cannot write {named(path)}: it is a link to {named(os.readlink(path))}, which leads nowhere")
    return os.path.realpath(path)


def write(path: str, outputs: dict[str, Any]) -> None:
    """Write an .npz like `numpy.savez`; it appears whole or not at all."""
    target = _target(path)
    # A name of its own, which no other writer removes; unlike tempfile's, the file has ordinary permissions.
    part = Path(target).with_name(f"{os.urandom(8).hex()}.part")
    try:
        file = part.open("xb")
        try:
            with file, zipfile.ZipFile(file, "w") as archive:
                for name, value in outputs.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                        np.lib.format.write_array(entry, value, allow_pickle=False)  # type: ignore[arg-type]
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        end(f"cannot write {named(path)}: {reason(error)}")


if __name__ == "__main__":
    main()
