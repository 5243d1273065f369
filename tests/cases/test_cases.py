"""What users brought comes out as the table of docs/cases.md says."""

from __future__ import annotations

import onnxruntime
import pytest

from cases.cases import CASES, PAGE, page, told

# Before, onnxruntime rounds codes of float16 otherwise.
OLD = tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 26)


@pytest.mark.skipif(OLD, reason="the table is of a newer onnxruntime")
@pytest.mark.parametrize("case", CASES, ids=[case.file for case in CASES])
def test_it_comes_out_as_the_table_says(case):
    assert case.outcome() == told()[case.file]


def test_the_page_has_every_case():
    assert PAGE.read_text() == page(list(told().values()))
