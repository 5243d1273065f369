"""What users brought comes out as the table of docs/cases.md says."""

from __future__ import annotations

import onnxruntime
import pytest

from cases.cases import CASES, PAGE, page, told

VERSION = tuple(map(int, onnxruntime.__version__.split(".")[:2]))
# The first onnxruntimes of which the table is: older ones read no file of that IR version, or round codes of float16
# towards zero.
SINCE = {"zero_sized": (1, 24), "modelopt_int8_fp16": (1, 30)}


@pytest.mark.parametrize("case", CASES, ids=[case.file for case in CASES])
def test_it_comes_out_as_the_table_says(case):
    if VERSION < SINCE.get(case.file, VERSION):
        pytest.skip("the table is of a newer onnxruntime")
    assert case.outcome() == told()[case.file]


def test_the_page_has_every_case():
    assert PAGE.read_text() == page(list(told().values()))
