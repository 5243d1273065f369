"""Files and folders written whole or not at all.

They are made in a private folder beside their destination, and appear there by a single renaming. The writer holds a
lock on the private folder, which the system releases when the process ends, however it ends. So an old private folder
without a lock was left by a writer that was interrupted, or belongs to one on another machine. Where there are no such
locks, files still appear whole, but nothing is said of leftovers.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import IO

from pconv_onnx.basics import locks
from pconv_onnx.basics.errors import listed, warn
from pconv_onnx.basics.files import open_file
from pconv_onnx.basics.places import make_folder, refusing, require_new_folder, require_writable

Write = Callable[[IO[bytes]], object]

PREFIX = ".pconv-onnx-writing-"
# Seconds after which a private folder without a lock counts as left over: locks may not reach other machines.
_OLD = 3600.0
# Bytes that are read of a note, which anyone may have put there.
_LONGEST_NOTE = 1 << 16
# Errors of a disk that failed or is full; with others, the folder cannot be synchronised and need not be.
_LOST = (errno.EIO, errno.ENOSPC, errno.EDQUOT)


def write_atomically(path: str | os.PathLike[str], write: Write) -> None:
    """Call `write` with a new file beside `path`, then rename that to `path`; on any error `path` stays as it was.

    Raises:
        PconvError: the file cannot be written.
    """
    with replacing(path) as new:
        new.write(write)
        new.appear()


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Replacement]:
    """A context in which a file and the data it needs are written; they appear together, or nothing changes.

    Raises:
        PconvError: it cannot be written.
    """
    require_writable(path)
    target = Path(os.path.realpath(path))
    with _staging(target.parent, path) as beside:
        new = Replacement(target, beside)
        try:
            yield new
        finally:
            new.settle()


class Replacement:
    """A file that replaces another, and a second file that it needs.

    If the writer is interrupted, notes in its private folder say which files are left over. Until the file is renamed
    to its destination it is `result` in that folder, and the file noted in `made` is of no use to anyone; afterwards
    those noted in `older` are. (Hard links would say it as well, but onnx refuses to read data that have any.)
    """

    def __init__(self, target: Path, beside: Path):
        """Begin one.

        Args:
            target: its place, not a link.
            beside: a private folder in the folder of that.
        """
        self.target = target
        self._beside = beside
        self._result = beside / _RESULT
        self._result.touch()

    def write_data(self, write: Write, names: Iterable[Path]) -> Path:
        """Make the second file beside the first, under the first of these names that is free.

        Raises:
            OSError: it cannot be written.
        """
        data = self._beside / "data"
        _write(data, write)
        identity = _identity(data)
        for name in names:
            _note(self._beside / _MADE, {name.name: identity})
            try:
                _take(data, name)
            except FileExistsError:
                # A network file system may say so of its own renaming.
                if _identity(name) != identity:
                    continue
            return name
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))

    def write(self, write: Write) -> None:
        """Make the file itself.

        Raises:
            OSError: it cannot be written.
        """
        _write(self._result, write)

    def appear(self, older: Callable[[], Iterable[Path]] = tuple) -> None:
        """Rename the file to its destination.

        Args:
            older: which files beside it belong to what is there and go with that; asked while nobody else replaces it.

        Raises:
            OSError: it cannot be renamed.
        """
        folder = self.target.parent
        # Should the power fail, the data must not be lost where the file is not.
        _sync(folder)
        with locks.turn(folder):
            _note(self._beside / _OLDER, {file.name: _identity(file) for file in older()})
            os.replace(self._result, self.target)
        # The data of the older file go only after that.
        _sync_renamed(folder)

    def settle(self) -> None:
        """Remove files of no use: those made for a file that did not appear, or those of the file that it replaced."""
        with contextlib.suppress(OSError):
            if self._result.exists():
                # Before `result`: without that, the note would say that the files it names can go.
                (self._beside / _OLDER).unlink(missing_ok=True)
        for file in _unneeded(self._beside):
            with contextlib.suppress(OSError):
                file.unlink()


_RESULT, _MADE, _OLDER = "result", "made", "older"


_Identity = list[int] | None


def _identity(file: Path) -> _Identity:
    """What distinguishes a file from any other that ever has its name; None if there is no file."""
    try:
        status = file.lstat()
    except (OSError, ValueError):  # the second of what no name can be
        return None
    return [status.st_ino, status.st_size, status.st_mtime_ns]


def _note(place: Path, files: Mapping[str, _Identity]) -> None:
    place.write_text(json.dumps(files))


def _unneeded(beside: Path) -> list[Path]:
    """The files beside a private folder that nothing needs, by the notes that `Replacement` describes.

    The folder may be from anywhere: what is in it need not be a note.
    """
    try:
        with open_file(beside / (_MADE if (beside / _RESULT).exists() else _OLDER)) as file:
            noted = json.loads(file.read(_LONGEST_NOTE))
    except (OSError, ValueError, RecursionError):  # nothing is, or its writer got no further
        return []
    if not isinstance(noted, dict):
        return []
    files = {beside.parent / name: identity for name, identity in noted.items() if _is_bare(name)}
    return [file for file, identity in files.items() if identity is not None and _identity(file) == identity]


def _is_bare(name: str) -> bool:
    """Whether a name is that of an entry in a folder, not the folder itself or a path elsewhere."""
    return name not in ("", "..") and Path(name).name == name


def _take(file: Path, name: Path) -> None:
    """Give a file a name that is free.

    Raises:
        OSError: something has it (FileExistsError), or it cannot be given.
    """
    try:
        os.link(file, name)
        file.unlink()
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        with open(name, "xb"):
            pass
        try:
            os.replace(file, name)
        except BaseException:
            name.unlink()
            raise


def _write(place: Path, write: Write) -> None:
    with open(place, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Write a folder's names to the disk itself, where the system can do that.

    Raises:
        OSError: the disk has failed, or is full.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in _LOST:
            raise


def _sync_renamed(folder: Path) -> None:
    """The same after a renaming, when the file is in place and it is too late to fail."""
    with contextlib.suppress(OSError):
        _sync(folder)


@contextlib.contextmanager
def _staging(folder: Path, path: str | os.PathLike[str]) -> Iterator[Path]:
    """A private folder in another, for files that will be renamed into that; warn of what interrupted writers left.

    Args:
        folder: the folder around it.
        path: the destination, as messages call it.

    Raises:
        PconvError: it cannot be made, or what is done meanwhile fails for a reason of the system's.
    """
    with refusing(path):
        beside = Path(tempfile.mkdtemp(dir=folder, prefix=PREFIX))
        with locks.lock(beside) as held:
            try:
                left = _left(beside) if held else []
                if left:
                    names = listed([f"'{file.name}'" for file in left])
                    warn(
                        f"a writer that did not end left in '{folder}': {names}; they can be removed if nothing else "
                        "is writing there, on another machine either"
                    )
                yield beside
            finally:
                shutil.rmtree(beside, ignore_errors=True)


def _left(beside: Path) -> list[Path]:
    """What interrupted writers of the same user left beside a private folder: their own, and files of no use."""
    found: list[Path] = []
    for other in sorted(beside.parent.glob(f"{PREFIX}*")):
        # A living writer may remove its folder at any time; it does so before it releases the lock.
        with contextlib.suppress(OSError):
            status = other.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != beside.stat().st_uid:
                continue
            # A new folder may not be locked yet, and nobody else may lock it then.
            if time.time() - status.st_mtime > _OLD:
                with locks.lock(other) as held:
                    found += [other, *_unneeded(other)] if held and other.exists() else []
    return found


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
    with _staging(target.parent, path) as beside:
        # Inside, so that it has the user's usual permissions: the folder around it is private.
        folder = beside / "folder"
        folder.mkdir()
        _fill(folder, files)
        os.replace(folder, target)
        _sync_renamed(target.parent)


def write_into(folder: Path, files: Mapping[str, bytes | Path], without: Iterable[str] = ()) -> None:
    """Write files into a folder: each appears whole, none before all are written, never mixed with another call's.

    Args:
        folder: the folder.
        files: what each is to hold, or which file to copy, by name.
        without: names of files there that then go.

    Raises:
        PconvError: one cannot be written.
    """
    with _staging(folder, folder) as beside:
        made = beside / "files"
        made.mkdir()
        _fill(made, files)
        with locks.turn(folder):
            for name in files:
                os.replace(made / name, folder / name)
            for name in without:
                with contextlib.suppress(OSError):
                    (folder / name).unlink()
        _sync_renamed(folder)


def _fill(folder: Path, files: Mapping[str, bytes | Path]) -> None:
    """Write files into a private folder, and all of them to the disk itself, so that only whole files are renamed."""
    for name, content in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        _write(place, partial(_put, content))
    for inside, _, _ in os.walk(folder):
        _sync(Path(inside))


def _put(content: bytes | Path, file: IO[bytes]) -> None:
    if isinstance(content, bytes):
        file.write(content)
        return
    with open(content, "rb") as source:
        shutil.copyfileobj(source, file)
