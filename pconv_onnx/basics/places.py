"""Places on disk: asked for before anything takes long, written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from pconv_onnx.basics.errors import PconvError

_ELSEWHERE = "choose another place"


def require_place(path: Path) -> None:
    """Raise where a file or folder cannot be made, in folders that may have to be made first.

    Raises:
        PconvError: it cannot.
    """
    there = next(folder for folder in path.absolute().parents if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise PconvError(f"cannot write '{path}': nothing can be made in '{there}'", _ELSEWHERE)


def require_writable(path: str | os.PathLike[str]) -> None:
    """Raise where a file cannot be written, as `write_atomically` does; to be asked before anything takes long.

    Raises:
        PconvError: it cannot.
    """
    # Through a link: the file that it names is written, the link stays.
    target = Path(os.path.realpath(path))
    try:
        if target.exists() and not target.is_file():
            raise PconvError(f"cannot write '{path}': it exists and is not a file", _ELSEWHERE)
        tempfile.TemporaryFile(dir=target.parent).close()
    except OSError as error:
        raise PconvError(f"cannot write '{path}': {error.strerror or error}", _ELSEWHERE) from error


def make_folder(path: Path) -> None:
    """Make a folder, and those that it lies in, where they are not there.

    Raises:
        PconvError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PconvError(f"cannot make '{path}': {error.strerror}", _ELSEWHERE) from error


def write_atomically(path: str | os.PathLike[str], write: Callable[[IO[bytes]], object]) -> None:
    """Call `write` with a file beside `path`, then rename it to `path`; on any fault `path` is as it was.

    Raises:
        PconvError: the file cannot be written.
    """
    require_writable(path)
    target = Path(os.path.realpath(path))
    temporary = None
    try:
        # mkstemp makes a private file; a result should be as readable as any other that the user writes.
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".pconv-onnx-", delete=False) as file:
            temporary = file.name
            write(file)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, target)
    except OSError as error:
        raise PconvError(f"cannot write '{path}': {error.strerror or error}", _ELSEWHERE) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)


def require_new_folder(path: str | os.PathLike[str]) -> None:
    """Raise where a folder cannot appear as a whole, because there is something already.

    Raises:
        PconvError: it is a file or a folder that is not empty, or lies where nothing can be made.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise PconvError(f"cannot write '{path}': it exists and is not a folder", _ELSEWHERE)
    if folder.is_dir() and any(folder.iterdir()):
        raise PconvError(f"'{path}' is not empty", "name a new folder with -o, or remove this one")
    require_place(folder)


def write_folder(path: str | os.PathLike[str], files: Mapping[str, bytes | Path]) -> None:
    """Write a new folder that appears whole or not at all.

    Args:
        path: the folder; not there yet, or empty.
        files: what each is to hold, or which file to copy, by path in the folder.

    Raises:
        PconvError: it is there, or cannot be written.
    """
    require_new_folder(path)
    target = Path(os.path.realpath(path))
    make_folder(target.parent)
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".pconv-onnx-") as beside:
            # Inside, with the permissions of any other folder that the user makes: the one around it is private.
            folder = Path(beside, target.name)
            for name, content in files.items():
                place = folder / name
                place.parent.mkdir(parents=True, exist_ok=True)
                if isinstance(content, Path):
                    shutil.copyfile(content, place)
                else:
                    place.write_bytes(content)
            os.replace(folder, target)
    except OSError as error:
        raise PconvError(f"cannot write '{path}': {error.strerror or error}", _ELSEWHERE) from error


def same_file(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> bool:
    """Whether two paths are of one file, there or not."""
    # One of them may not be there yet, or be nothing that can be looked at; reading and writing will tell.
    with contextlib.suppress(OSError, ValueError):
        return os.path.samefile(first, second)
    with contextlib.suppress(ValueError):
        return os.path.realpath(first) == os.path.realpath(second)
    return False
