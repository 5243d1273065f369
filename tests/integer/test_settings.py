"""What integer weights are asked for with: what needs or excludes what, in one line."""

from __future__ import annotations

import numpy as np
import pytest
from networks import MODES
from refusals import refusal_of

from pconv_onnx import rewrite
from pconv_onnx.basics.errors import WrongArguments
from pconv_onnx.integer.settings import require_integers

RANGE = (-1.0, 1.0)
REFUSED = {
    "no such weights": (("int16", None, None), "there are no weights 'int16'; choose int8 or int4"),
    "a number for weights": ((8, None, None), "there are no weights '8'; choose int8 or int4"),
    "bits of inputs": (("int8", 4, RANGE), "inputs cannot have 4 bits; choose 8"),
    "bits that are no integer": (("int8", 8.0, RANGE), "inputs cannot have 8.0 bits; choose 8"),
    "three numbers": (("int8", 8, (0, 1, 2)), r"\(0, 1, 2\) is no range of inputs"),
    "words": (("int8", 8, ("a", "b")), r"\('a', 'b'\) is no range of inputs"),
    "a number": (("int8", 8, 5), "5 is no range of inputs"),
    "bits without weights": ((None, 8, None), "quantised inputs are for integer weights; pass `weights='int8'`"),
    "a range without bits": (("int8", None, RANGE), "a range of inputs is for quantised ones; pass `input_bits=8`"),
    "a range alone": ((None, None, RANGE), "a range of inputs is for quantised ones; pass `input_bits=8`"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_told_in_one_line(case):
    arguments, told = REFUSED[case]
    assert refusal_of(require_integers, *arguments, {}).startswith(told.replace("\\", ""))


@pytest.mark.parametrize("arguments", [(None, None, None), ("int8", None, None), ("int4", 8, None), ("int8", 8, RANGE),
                                       ("int8", 8, [np.float32(0), 1])])  # fmt: skip
def test_what_can_be_is_not_refused(arguments):
    require_integers(*arguments, {"something else": False})


EXCLUDED = {
    "mode 'serial'": {"mode": "serial"},
    "precision 'float16'": {"precision": "float16"},
    "signed levels with an offset": {"signed": True},
    "outputs at each step": {"per_step_outputs": True},
}


@pytest.mark.parametrize("weights", ["int8", "int4"])
@pytest.mark.parametrize("what", EXCLUDED)
def test_what_integers_exclude(small_network, what, weights):
    with pytest.raises(WrongArguments):
        rewrite(small_network, weights=weights, **EXCLUDED[what])
    assert refusal_of(rewrite, small_network, weights=weights, **EXCLUDED[what]) == (
        f"integer weights and {what} exclude each other; leave one of them out"
    )


@pytest.mark.parametrize("mode", MODES)
def test_other_modes_are_not_excluded(small_network, mode):
    assert rewrite(small_network, weights="int8", mode=mode).integers is not None
