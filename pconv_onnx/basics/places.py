"""Checks of paths, made before anything takes long: whether they can be written, and whether two are one file."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pconv_onnx.basics.errors import PconvError

_ELSEWHERE = "choose another place"
# In the name of a file, what stands for the number of time-steps T.
PLACE_OF_STEPS = "{steps}"


def for_steps(path: str | os.PathLike[str], steps: int) -> str:
    """A path with a number of time-steps in its place."""
    return os.fspath(path).replace(PLACE_OF_STEPS, str(steps))


def require_place(path: Path) -> None:
    """Raise if a file or folder cannot be made at a path; folders around it may have to be made first.

    Raises:
        PconvError: it cannot.
    """
    with refusing(path):
        _look_at(path)
        there = next((folder for folder in path.absolute().parents if os.path.lexists(folder)), None)
        if there is None:
            raise PconvError(f"cannot write '{path}': it is the root folder", _ELSEWHERE)
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise PconvError(f"cannot write '{path}': nothing can be made in '{there}'", _ELSEWHERE)
        # Of those that are still to be made, whether they can have such names there.
        for name in path.absolute().relative_to(there).parts:
            _look_at(there / name)


def require_writable(path: str | os.PathLike[str]) -> None:
    """Raise if `write_atomically` could not write a file; to be called before anything takes long.

    Raises:
        PconvError: it cannot.
    """
    with refusing(path):
        _look_at(path)
        # Through a link: the file that it names is written, the link stays.
        target = Path(os.path.realpath(path))
        if target.exists() and not target.is_file():
            raise PconvError(f"cannot write '{path}': it exists and is not a file", _ELSEWHERE)
        tempfile.TemporaryFile(dir=target.parent).close()


@contextlib.contextmanager
def refusing(path: str | os.PathLike[str], what: str = "write") -> Iterator[None]:
    """Turn an error of the system at a path into a sentence.

    Raises:
        PconvError: it says something.
    """
    try:
        yield
    except OSError as error:
        raise PconvError(f"cannot {what} '{path}': {error.strerror or error}", _ELSEWHERE) from error


def _look_at(path: str | os.PathLike[str]) -> None:
    """Raise for a name that no file can have, and for a link that leads nowhere.

    Raises:
        OSError: no file can have that name.
        PconvError: the link leads to a place that does not exist, or in a circle.
    """
    link = Path(path)  # without a slash at its end, which would mean what the link leads to
    try:
        link.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except ValueError as error:  # for a NUL, or characters that file names cannot be encoded with
        raise OSError(errno.EINVAL, "no file can have that name") from error
    if link.is_symlink() and not os.path.exists(link):
        told = f"cannot write '{path}': it is a link to '{os.readlink(link)}', which leads nowhere"
        raise PconvError(told, f"remove the link, or {_ELSEWHERE}")


def make_folder(path: Path) -> None:
    """Make a folder, and those that it lies in, if they do not exist.

    Raises:
        PconvError: it cannot be made.
    """
    with refusing(path, "make"):
        path.mkdir(parents=True, exist_ok=True)


def require_new_folder(path: str | os.PathLike[str]) -> None:
    """Raise if a new folder cannot be made at a path, for example because something is there already.

    Raises:
        PconvError: it is a file or a folder that is not empty, or lies where nothing can be made.
    """
    folder = Path(path)
    with refusing(path):
        _look_at(path)
        if folder.exists() and not folder.is_dir():
            raise PconvError(f"cannot write '{path}': it exists and is not a folder", _ELSEWHERE)
        if folder.is_dir() and any(folder.iterdir()):
            raise PconvError(f"'{path}' is not empty", "name a new folder with `output=`, or remove this one")
    require_place(folder)


def same_file(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> bool:
    """Whether two paths name one file, whether or not it exists."""
    # One of them may not exist yet, or not be readable; reading and writing will tell.
    with contextlib.suppress(OSError, ValueError):
        return os.path.samefile(first, second)
    with contextlib.suppress(ValueError):
        return os.path.realpath(first) == os.path.realpath(second)
    return False
