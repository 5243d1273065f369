"""What a calibration has found so far, kept in its file from time to time, and at an interrupt or an error."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from pconv_onnx.basics.errors import Interrupted, PconvError, note, warn
from pconv_onnx.calibration.cache import store
from pconv_onnx.calibration.sweep import Found

# Seconds between two writings, at least.
_EVERY = 10.0


class Kept:
    """What was found so far, by the name of what found it: a rule that is tried, `SWEEP` or `TUNE`."""

    def __init__(
        self, path: str | os.PathLike[str] | None, key: str, known: Mapping[str, Found], activations: int
    ) -> None:
        """Begin where an earlier run was interrupted.

        Args:
            path: of the file; None keeps nothing.
            key: what the calibration depends on.
            known: what that run found.
            activations: how many there are to calibrate.
        """
        self._path, self._key, self._activations = path, key, activations
        self._known, self._written = dict(known), time.monotonic()
        if known:
            note(f"'{path}' is of a run that was interrupted: calibration continues at {self._done}")

    def __str__(self) -> str:
        return f"'{self._path}' keeps {self._done}"

    def get(self, name: str) -> Found | None:
        """What was found so far under a name."""
        return self._known.get(name)

    def put(self, name: str, found: Found) -> None:
        """Keep what was found so far under a name."""
        self._known[name] = found.copy()
        if time.monotonic() - self._written >= _EVERY:
            self.write()

    def write(self) -> bool:
        """Write the file, if there is anything to write, and say whether it was.

        That this fails is no error: only a later run would have something of it.
        """
        if self._path is None or not self._known:
            return False
        try:
            store(self._path, self._key, self._known)
        except PconvError as error:
            warn(f"what was found so far is not kept: {error}")
            return False
        finally:
            self._written = time.monotonic()
        return True

    @property
    def _done(self) -> str:
        """How far the last sweep is."""
        found = list(self._known.values())[-1]
        return f"{len(found.activations)} of {self._activations - len(found.left)} activations"


@contextmanager
def keeping(several: Sequence[Kept]) -> Iterator[None]:
    """A context that an exception ends only after everything is written.

    Raises:
        Interrupted: it was an interrupt.
    """
    try:
        yield
    except BaseException as error:
        told = [str(kept) for kept in several if kept.write()]
        if told and isinstance(error, KeyboardInterrupt):
            raise Interrupted(f"{', '.join(told)}, and the next run continues there") from error
        raise
