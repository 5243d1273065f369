"""A test of many parameters by few cases: any two values of two parameters meet in one of them.

Mark the test with the values of each parameter, or of parameters that belong together::

    @pytest.mark.every_pair({"shape, rows": [((7,), 1), ((3, 5), 5)], "steps": [1, 8], "dtype": [float32, float16]})

With `pytest --full` it takes every combination. A case has the same id in both. `conftest.py` reads the mark.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest


def covering_array(sizes: Sequence[int]) -> list[tuple[int, ...]]:
    """Cases in which any two values of two parameters meet; always the same cases.

    A case begins with the first pair that has not met yet. Each other parameter, that of most values first, then takes
    the value that makes most pairs meet, and of several such values the one that was taken least.

    Args:
        sizes: how many values each parameter has; of two parameters or more.

    Returns:
        For each case, the index of every parameter's value.
    """
    values = [[(parameter, index) for index in range(size)] for parameter, size in enumerate(sizes)]
    # A dict, because sets have no order to begin with the first of.
    apart = dict.fromkeys(pair for two in itertools.combinations(values, 2) for pair in itertools.product(*two))
    taken: Counter[tuple[int, int]] = Counter()
    cases = []
    while apart:
        case = dict(next(iter(apart)))
        for own in sorted(values, key=len, reverse=True):

            def gain(value: tuple[int, int], case: dict[int, int] = case) -> tuple[int, int]:
                meets = sum(tuple(sorted((value, other))) in apart for other in case.items())
                return meets, -taken[value]

            if own[0][0] not in case:
                case.update([max(own, key=gain)])
        chosen = sorted(case.items())
        taken.update(chosen)
        for pair in itertools.combinations(chosen, 2):
            apart.pop(pair, None)
        cases.append(tuple(index for _, index in chosen))
    return cases


def parametrization(parameters: Mapping[str, Sequence[Any]], *, full: bool) -> tuple[list[str], list[Any]]:
    """What `parametrize` takes for a test marked so: the names, and the cases with their ids and marks."""
    groups = [[name.strip() for name in names.split(",")] for names in parameters]
    options = [
        [value if hasattr(value, "marks") else pytest.param(*(value if len(group) > 1 else (value,))) for value in own]
        for group, own in zip(groups, parameters.values(), strict=True)
    ]
    sizes = [len(values) for values in options]
    cases = itertools.product(*map(range, sizes)) if full else covering_array(sizes)
    found = []
    for case in cases:
        chosen = [values[index] for values, index in zip(options, case, strict=True)]
        values = [value for one in chosen for value in one.values]
        marks = [mark for one in chosen for mark in one.marks]
        found.append(pytest.param(*values, marks=marks, id="-".join(map(spelled, chosen))))
    return [name for group in groups for name in group], found


def spelled(one: Any) -> str:
    """The values of one group in the id of a case; shapes are spelled 2x3."""
    values = ("x".join(map(str, value)) if isinstance(value, tuple) else str(value) for value in one.values)
    return one.id or "-".join(values)
