"""Files that others name: opened where they are ordinary ones, for a pipe would block and a device not end."""

from __future__ import annotations

import errno
import os
import stat
from typing import IO


def open_file(path: str | os.PathLike[str]) -> IO[bytes]:
    """An ordinary file, or one that a link leads to, for reading.

    Raises:
        OSError: it is none, or cannot be opened.
    """
    try:
        mode = os.stat(path).st_mode
    except ValueError as error:  # of a NUL, or of what no name can be encoded with
        raise OSError(errno.EINVAL, "no file can have that name") from error
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is not a file")
    return open(path, "rb")
