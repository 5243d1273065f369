"""What is logged for users, for every function that says something of a model."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager


class _Kept(logging.Handler):
    def __init__(self, messages: list[str]) -> None:
        super().__init__()
        self.messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextmanager
def noted(match: str | None = None) -> Iterator[list[str]]:
    """What is logged at level INFO meanwhile; some of it has to match, if that is asked for."""
    messages: list[str] = []
    log, handler, level = logging.getLogger("pconv_onnx"), _Kept(messages), logging.getLogger("pconv_onnx").level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield messages
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
    assert match is None or any(re.search(match, message) for message in messages), messages
