"""Covering arrays: no pair is missing, and there are few cases."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pairwise import covering_array, parametrization

PARAMETERS = {
    "shape, rows": [((7,), 1), ((3, 5), 5), ((2, 3, 4), 3)],
    "steps": [1, 8, pytest.param(255, marks=pytest.mark.slow)],
    "spikes": [0, 1],
    "backwards": [False, True],
}


def pairs(case) -> set:
    """Every two values of a case, with the places of their parameters."""
    return set(itertools.combinations(enumerate(case), 2))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 6), min_size=2, max_size=5))
def test_any_two_values_of_two_parameters_meet(sizes):
    cases = covering_array(sizes)
    assert set().union(*map(pairs, cases)) == set().union(*map(pairs, itertools.product(*map(range, sizes))))
    assert len(set(cases)) == len(cases)


@settings(deadline=None, max_examples=50)
@given(st.permutations([12, 10, 3, 2, 3]))
def test_there_are_few_cases(sizes):
    """No array has fewer than the two largest parameters have pairs."""
    assert 12 * 10 <= len(covering_array(sizes)) <= 1.1 * 12 * 10


def test_cases_are_always_the_same():
    assert covering_array([3, 2, 2]) == [(0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0), (2, 0, 0), (2, 1, 1)]


def test_cases_are_some_of_the_full_product_with_the_same_ids_and_marks():
    (names, few), (all_names, every) = (parametrization(PARAMETERS, full=full) for full in (False, True))
    assert names == all_names == ["shape", "rows", "steps", "spikes", "backwards"]
    assert len(every) == math.prod(map(len, PARAMETERS.values()))
    assert len({case.id for case in every}) == len(every)
    assert [case for case in every if case in few] == sorted(few, key=every.index)
    assert every[0].id == "7-1-1-0-False" and every[0].values == ((7,), 1, 1, 0, False)
    assert all(bool(case.marks) == (case.values[2] == 255) for case in every)


@pytest.mark.every_pair(PARAMETERS)
def test_a_marked_test_gets_its_cases(shape, rows, steps, spikes, backwards, request):
    _, cases = parametrization(PARAMETERS, full=request.config.getoption("full"))
    assert (shape, rows, steps, spikes, backwards) in [case.values for case in cases]
