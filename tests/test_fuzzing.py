"""Random networks in exact arithmetic: what `rewrite` makes of them has their values, element for element."""

from __future__ import annotations

import pytest
from fuzzing.answers import faults


@pytest.mark.parametrize("first", range(0, 80, 10))
def test_random_networks_keep_their_values(first):
    assert {seed: found for seed in range(first, first + 10) if (found := faults(seed))} == {}
