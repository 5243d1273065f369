"""What `rewrite` records in a model's metadata, and how it is read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import onnx

METADATA_PREFIX = "pconv_onnx."
# In the metadata of a node: the name of the activation that it is a part of.
ACTIVATION = f"{METADATA_PREFIX}activation"


def recorded(model: onnx.ModelProto) -> dict[str, str]:
    """What `rewrite` recorded in a model, by key; empty where it did not write it."""
    return own({entry.key: entry.value for entry in model.metadata_props})


def own(entries: Mapping[str, str]) -> dict[str, str]:
    """The entries of some metadata that are this project's, without its prefix."""
    ours = (key for key in entries if key.startswith(METADATA_PREFIX))
    return {key.removeprefix(METADATA_PREFIX): entries[key] for key in ours}


def potentials(entries: Mapping[str, str]) -> dict[str, str]:
    """The membrane potentials of a serial network by its own entries: by input the output that the next step takes.

    Raises:
        ValueError: they are not what `rewrite` wrote.
    """
    found = parsed(entries.get("potentials", "{}"))
    if not isinstance(found, dict):
        raise ValueError(f"the potentials are {found!r}")
    return {str(before): str(after) for before, after in found.items()}


def parsed(entry: str) -> Any:
    """An entry that is a JSON document.

    Raises:
        ValueError: it is none.
    """
    try:
        return json.loads(entry)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
