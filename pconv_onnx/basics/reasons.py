"""Why activations are not converted or calibrated, in one line."""

from __future__ import annotations

import re
from collections.abc import Iterable

_MOST = 4
# The parts in which reasons of one kind may differ: names, lists, numbers.
_PARTICULARS = re.compile(r"'[^']*'|\[[^]]*\]|\d+")


def by_reason(reasons: Iterable[tuple[str, str]]) -> str:
    """One line for reasons given with the names of activations: each kind once, with how many activations have it.

    The commonest comes first. Reasons are of one kind if they differ only in names and numbers; the text is that of the
    first activation.
    """
    groups = of_one_kind(reasons)
    told = [f"{_who(group, index == 0)}: {group[0][1]}" for index, group in enumerate(groups[:_MOST])]
    others = sum(map(len, groups[_MOST:]))
    if others:
        told.append(f"and {others} more for other reasons; pconv-onnx inspect lists them")
    return "; ".join(told)


def of_one_kind(reasons: Iterable[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    """Reasons with their names, grouped by kind, the commonest kind first."""
    kinds: dict[str, list[tuple[str, str]]] = {}
    for name, reason in reasons:
        kinds.setdefault(_PARTICULARS.sub("", reason), []).append((name, reason))
    return sorted(kinds.values(), key=len, reverse=True)


def _who(group: list[tuple[str, str]], is_first: bool) -> str:
    name = f"'{group[0][0]}'"
    return name if len(group) == 1 else f"{len(group)}{' activations' if is_first else ''} ({name} first)"
