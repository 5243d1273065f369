"""Spells arguments of functions in messages, `steps=T`, as options of the command line, --steps T."""

from __future__ import annotations

import re
from typing import Any

from pconv_onnx.answers.printing import with_texts

# One argument or several between backticks; and one of them with its value, which may hold commas in brackets.
_ARGUMENTS = re.compile(r"`([a-z_]+=[^`]*)`")
_ARGUMENT = re.compile(r"([a-z_]+)=((?:\([^)]*\)|\{[^}]*\}|'[^']*'|[^,({'])*)(?:, )?")
# Options with another name than their argument.
_OTHERS = {"batches": "--batch", "output": "-o", "providers": "--provider"}


def as_options(text: str) -> str:
    """A text with options in place of arguments."""
    return _ARGUMENTS.sub(lambda found: " ".join(_option(*each) for each in _ARGUMENT.findall(found[1])), text)


def spelled(document: Any) -> Any:
    """A document whose texts have options in place of arguments."""
    return with_texts(as_options, document)


def _option(name: str, value: str) -> str:
    """`(0, 1)` is two values, `{'x': 0}` is x=0, and `True` is there by the option itself."""
    option = _OTHERS.get(name, f"--{name.replace('_', '-')}")
    given = re.sub(r"[(){}',]", "", value).replace(": ", "=")
    return option if given in ("", "True") else f"{option} {'none' if given == 'None' else given}"
