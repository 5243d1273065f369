"""Random networks keep their values; mutants are told; a fault is noticed, even one that ends a process."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from fuzzing import CASES, bundles, corrupted, integers, tables
from fuzzing.answers import faults
from fuzzing.grown import grown
from fuzzing.hostile import FOREIGN, attempt
from fuzzing.quantised import quantised
from fuzzing.workers import outcomes
from pconv_onnx import rewrite
from pconv_onnx.measure.segments import Segment
from pconv_onnx.temporal.kinds import Current
from pconv_onnx.temporal.rules import TRANSFER_RULES


@pytest.mark.parametrize("first", [0, 10, 20, *(pytest.param(first, marks=pytest.mark.slow) for first in (30, 40, 50))])
def test_random_networks_keep_their_values(first):
    assert {seed: found for seed in range(first, first + 10) if (found := faults(seed))} == {}


def test_random_networks_have_every_operator_that_has_a_rule():
    used = {node.op_type for seed in range(200) for node in grown(seed)[0].graph.node}
    assert set(TRANSFER_RULES) <= used


@pytest.mark.slow
@pytest.mark.parametrize("op_type", ["Transpose", "Where"])
def test_random_networks_find_a_rule_made_wrong(op_type, monkeypatch):
    monkeypatch.setitem(TRANSFER_RULES, op_type, lambda site: Current(site.kinds[site.varying[0]].steps))
    assert any(map(_faulty, range(200)))


def _faulty(seed: int) -> bool:
    try:
        return bool(faults(seed))
    except Exception:  # a network that does not run is found as well
        return True


@pytest.mark.parametrize("first", range(0, 30, 10))
def test_random_networks_of_integers_keep_every_bit(first):
    assert {seed: found for seed in range(first, first + 10) if (found := integers.faults(seed))} == {}


def test_sums_beyond_what_floats_hold_in_ones_are_counted_right():
    assert integers.judged(2001094, integers.ALL_MODES)[0] == []


@pytest.mark.slow
def test_few_random_networks_of_integers_are_refused_or_have_floats():
    spared = [integers.judged(seed)[1] for seed in range(100, 130)]
    assert sum(any("can be one of integers" not in told for told in each) for each in spared) < 6


def test_random_networks_of_integers_have_what_integers_find_hard():
    used = {node.op_type for seed in range(100) for node in quantised(seed)[0].graph.node}
    assert used >= {"AveragePool", "BatchNormalization", "Concat", "Gemm", "GlobalAveragePool", "MatMul", "MaxPool",
                    "Pad", "QuantizeLinear", "Slice", "Split", "Sub", "Sum"}  # fmt: skip


def test_weights_that_are_no_integers_are_a_fault(monkeypatch):
    def spoiled(model, **options):
        rewriting = rewrite(model, **options)
        if options["mode"] in integers.INTEGER_MODES:
            return rewriting
        weights = next(node.input[1] for node in rewriting.model.graph.node if node.op_type == "Conv")
        tensor = next(tensor for tensor in rewriting.model.graph.initializer if tensor.name == weights)
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(0.5), weights))
        return rewriting

    monkeypatch.setattr(integers, "rewrite", spoiled)
    assert any("is no integer" in told for told in integers.faults(0))


@pytest.mark.slow
@pytest.mark.parametrize("what", [what for what in CASES if what not in ("networks", "corruptions", "c")])
def test_what_others_made_is_read_refused_or_computed_as_it_should(what):
    found = outcomes(f"{CASES[what]}.faults", range(20), 1, 60)
    # What onnxruntime itself does not survive differs from version to version.
    assert [outcome for outcome in found if outcome.found and outcome.ended_at != FOREIGN] == []


@pytest.mark.parametrize("seed", [6251, 6323])
def test_a_footer_that_contradicts_itself_ends_no_process(seed):
    """Arrow ends it where it is asked for what is stored of a column."""
    assert [outcome.found for outcome in outcomes(f"{tables.__name__}.faults", [seed], 1, 60)] == [[]]


@pytest.mark.parametrize("first", [0, 20, *(pytest.param(first, marks=pytest.mark.slow) for first in (40, 60))])
def test_a_network_with_one_fault_is_called_different_and_the_place_is_named(first):
    found = outcomes(f"{corrupted.__name__}.faults", range(first, first + 20), 1, 60)
    assert [outcome for outcome in found if outcome.found and outcome.ended_at != FOREIGN] == []


def test_a_fault_that_is_not_noticed_or_called_by_another_name_is_told(small_network, monkeypatch):
    snn, feed = rewrite(small_network).model, {"x": np.ones((2, 3, 8, 8), np.float32)}
    spoiled = onnx.ModelProto()
    spoiled.CopyFrom(snn)
    tensor = next(tensor for tensor in spoiled.graph.initializer if tensor.name == "u")
    tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), "u"))
    (reader,) = (node.name for node in spoiled.graph.node if "u" in node.input)
    answer = partial(corrupted.judged, small_network, snn, feed=feed)
    assert answer(corrupted.Corruption(spoiled, "u", [reader])).found == "different"
    assert answer(corrupted.Corruption(spoiled, "u", [reader])).told == ""
    assert "named are ['y'], and not []" in answer(corrupted.Corruption(spoiled, "u", [])).told
    monkeypatch.setattr(Segment, "add", lambda *_: None)
    assert answer(corrupted.Corruption(spoiled, "u", [reader])).told == "outputs change, and it is equal"


def test_a_refusal_that_is_no_sentence_is_a_fault():
    found: list[str] = []
    for error in (KeyError("x"), MemoryError(), RecursionError()):
        attempt(found, "inspect", partial(_raises, error))
    assert [told.split(" at ")[0] for told in found] == [
        "inspect: KeyError",
        "inspect: MemoryError",
        "inspect: RecursionError",
    ]


def test_a_program_of_a_bundle_that_raises_prints_or_leaves_files_is_a_fault(tmp_path):
    (tmp_path / "bundle").mkdir()
    judged = partial(bundles.judged, folder=tmp_path / "bundle")
    assert judged(None, b"y float32 [1]\n") == judged("run.py: a fault", b"") == []
    assert judged(None, b"y\x1b[31m\n") == ["it prints ['y\\x1b[31m']"]
    assert judged(KeyError("x"), b"") == ["KeyError at : \"'x'\""]
    assert "and prints ['a warning']" in judged("run.py: a fault", b"a warning")[0]
    for told in ("run.py: \n", "run.py: " + "x" * 2000, "run.py: [ONNXRuntimeError] : 1"):
        assert "other than one printable line" in judged(told, b"")[0]
    (tmp_path / "out.npz.1.part").touch()
    assert judged(None, b"") == ["it ends with None and leaves ['out.npz.1.part']"]


def _raises(error: Exception) -> None:
    raise error


def test_a_case_that_crashes_hangs_or_wants_too_much_memory_is_told_of_its_seed(tmp_path, monkeypatch):
    (tmp_path / "cases_of_this_test.py").write_text(_CASES)
    monkeypatch.syspath_prepend(str(tmp_path))
    told = {outcome.case: outcome.found for outcome in outcomes("cases_of_this_test.faults", range(5), 2, 5)}
    assert told[0] == []
    assert told[1] == ["the case begins: the process ends by SIGSEGV"]
    assert told[2] == ["the case begins: does not end within 5 s"]
    assert told[3][0].startswith("MemoryError")
    assert told[4] == ["a fault"]


_CASES = """
import os, signal, time

def faults(seed):
    if seed == 1:
        os.kill(os.getpid(), signal.SIGSEGV)
    if seed == 2:
        time.sleep(1000)
    if seed == 3:
        bytearray(1 << 40)
    return ["a fault"] if seed == 4 else []
"""
