"""Runs one command, from its arguments to its exit status. Answers go to stdout, everything else to stderr."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from pconv_onnx.answers.printing import as_text
from pconv_onnx.basics.errors import Interrupted, PconvError, WrongArguments, printable
from pconv_onnx.basics.process import flush_c_streams
from pconv_onnx.basics.progress import showing
from pconv_onnx.cli.arguments import parser
from pconv_onnx.cli.commands import ANSWER_IS_NO, INTERRUPTED, WRONG_ARGUMENTS
from pconv_onnx.cli.spelling import as_options, spelled

_STDOUT, _STDERR = 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 1 the answer is no, or an error, 2 wrong arguments."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    as_json = "--json" in arguments
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            options = parser().parse_args(arguments)
            with _ending_as_interrupt(), _stdout_kept(), _notes(_level(options)):
                with showing(not options.quiet):
                    answer = options.command(options)
                document = spelled(answer.document)
                text = json.dumps(document, allow_nan=False) if as_json else as_options(as_text(answer.lines, document))
        return _print(text, answer.status)
    except PconvError as error:
        status = WRONG_ARGUMENTS if isinstance(error, WrongArguments) else ANSWER_IS_NO
        if as_json:
            return _print(json.dumps({"error": spelled({"message": error.message, "hint": error.hint})}), status)
        print(f"pconv-onnx: {as_options(str(error))}", file=sys.stderr)
        return status
    except KeyboardInterrupt as error:
        told = f"interrupted; {error}" if isinstance(error, Interrupted) else "interrupted"
        print(f"pconv-onnx: {as_options(printable(told))}", file=sys.stderr)
        return INTERRUPTED


@contextlib.contextmanager
def _ending_as_interrupt() -> Iterator[None]:
    """Take the signal by which schedulers end a job for Ctrl-C: what was found is kept, and temporary files go."""
    before = signal.getsignal(signal.SIGTERM)
    # What ignores it goes on ignoring it. No thread but the main one may say what signals do.
    if before is signal.SIG_IGN or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        # None is of a program that is not Python.
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


@contextlib.contextmanager
def _stdout_kept() -> Iterator[None]:
    """Keep stdout for the answer: what libraries print meanwhile, also from C++, goes to stderr."""
    try:
        stdout = os.dup(_STDOUT)
    except OSError:  # it is closed
        with contextlib.redirect_stdout(sys.stderr):
            yield
        return
    _flush()
    try:
        _point(_STDOUT, _STDERR)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _flush()
        os.dup2(stdout, _STDOUT)
        os.close(stdout)


def _point(descriptor: int, to: int) -> None:
    """Redirect a file descriptor to another one, or to nowhere if that is closed."""
    try:
        os.dup2(to, descriptor)
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


def _flush() -> None:
    """Flush Python's and C's streams, so that their content goes to the right place."""
    with contextlib.suppress(OSError, ValueError):
        if sys.__stdout__ is not None:
            sys.__stdout__.flush()
    flush_c_streams()


def _print(text: str, status: int) -> int:
    """Print an answer on stdout and return its status, or 1 if it cannot be printed."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names in a model may have letters that the terminal's encoding has not.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        print(text, flush=True)
    except OSError as error:
        # The interpreter writes what is left in the buffer when it exits; that must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        # The reader of a pipe that went away (`| head`) has all it wants.
        if not isinstance(error, BrokenPipeError):
            print(f"pconv-onnx: cannot write the answer to stdout: {error.strerror}", file=sys.stderr)
            return ANSWER_IS_NO
    return status


def _level(options: argparse.Namespace) -> int:
    """The level from which on messages of the log are printed."""
    return logging.DEBUG if options.verbose else logging.WARNING if options.quiet else logging.INFO


@contextlib.contextmanager
def _notes(level: int) -> Iterator[None]:
    """Print messages of the log, from this level on, on stderr."""
    log, handler = logging.getLogger("pconv_onnx"), _Notes(level)
    before = log.level
    log.addHandler(handler)
    log.setLevel(level)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


class _Notes(logging.Handler):
    """Prints each message once, however often a command reads a model."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.told: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message not in self.told:
            self.told.add(message)
            kind = "note: " if record.levelno >= logging.INFO else ""
            print(f"pconv-onnx: {kind}{as_options(message)}", file=sys.stderr)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"pconv-onnx: warning: {as_options(printable(str(message)))}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
