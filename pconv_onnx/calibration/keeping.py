"""What a calibration has found so far, kept in its file from time to time, and at an interrupt or an error."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from types import TracebackType

from pconv_onnx.basics.errors import Interrupted, PconvError, note, warn
from pconv_onnx.calibration.cache import store
from pconv_onnx.calibration.sweep import Found

# Seconds between two writings, at least.
_EVERY = 10.0


class Keeping:
    """A context in which what sweeps find is kept; leaving it by an exception writes the last of it."""

    def __init__(
        self, path: str | os.PathLike[str] | None, key: str, known: Mapping[str, Found], activations: int
    ) -> None:
        """Begin where an earlier run was interrupted.

        Args:
            path: of the file; None keeps nothing.
            key: what the calibration depends on.
            known: what that run found, by the name of what found it.
            activations: how many there are to calibrate.
        """
        self._path, self._key, self._activations = path, key, activations
        self._known, self._written = dict(known), time.monotonic()
        if known:
            note(f"'{path}' is of a run that was interrupted: calibration continues at {self._done}")

    def __enter__(self) -> Keeping:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what there is, if an exception ends it.

        Raises:
            Interrupted: it was an interrupt.
        """
        if error is None or self._path is None or not self._known:
            return
        if self._write() and isinstance(error, KeyboardInterrupt):
            raise Interrupted(f"'{self._path}' keeps {self._done}, and the next run continues there") from error

    def known(self, name: str) -> Found | None:
        """What was found so far under a name."""
        return self._known.get(name)

    def keep(self, name: str, found: Found) -> None:
        """Keep what was found so far under a name."""
        self._known[name] = found.copy()
        if self._path is not None and time.monotonic() - self._written >= _EVERY:
            self._write()

    @property
    def _done(self) -> str:
        """How far the last sweep is."""
        found = list(self._known.values())[-1]
        return f"{len(found.activations)} of {self._activations - len(found.left)} activations"

    def _write(self) -> bool:
        """Write the file. That it fails is no error: only a later run would have something of it."""
        assert self._path is not None  # or there is no file
        try:
            store(self._path, self._key, self._known)
        except PconvError as error:
            warn(f"what was found so far is not kept: {error}")
            return False
        finally:
            self._written = time.monotonic()
        return True
