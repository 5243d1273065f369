"""What users brought comes out as the table of docs/cases.md says."""

from __future__ import annotations

import pytest

from cases.cases import CASES, PAGE, page, told


@pytest.mark.parametrize("case", CASES, ids=[case.file for case in CASES])
def test_it_comes_out_as_the_table_says(case):
    assert case.outcome() == told()[case.file]


def test_the_page_has_every_case():
    assert PAGE.read_text() == page(list(told().values()))
