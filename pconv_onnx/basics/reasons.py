"""Why activations are not converted or calibrated, in one line."""

from __future__ import annotations

import re
from collections.abc import Iterable

_MOST = 4
# What differs in reasons of one kind: names, lists, numbers.
_PARTICULARS = re.compile(r"'[^']*'|\[[^]]*\]|\d+")


def by_reason(reasons: Iterable[tuple[str, str]]) -> str:
    """Reasons of activations, given with their names, each kind once: how many have it, and what it says of the first.

    Those that most activations have come first. Reasons are of one kind where they differ in names and numbers alone.
    """
    groups = of_one_kind(reasons)
    told = [f"{_who(group, index == 0)}: {group[0][1]}" for index, group in enumerate(groups[:_MOST])]
    others = sum(map(len, groups[_MOST:]))
    if others:
        told.append(f"and {others} more for other reasons; pconv-onnx inspect lists them")
    return "; ".join(told)


def of_one_kind(reasons: Iterable[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    """Reasons with their names, those of one kind together, the commonest kind first."""
    kinds: dict[str, list[tuple[str, str]]] = {}
    for name, reason in reasons:
        kinds.setdefault(_PARTICULARS.sub("", reason), []).append((name, reason))
    return sorted(kinds.values(), key=len, reverse=True)


def _who(group: list[tuple[str, str]], is_first: bool) -> str:
    name = f"'{group[0][0]}'"
    return name if len(group) == 1 else f"{len(group)}{' activations' if is_first else ''} ({name} first)"
