"""Model files of other projects end in no traceback and become no other network; `make suites` takes all of them."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from fuzzing.workers import Outcome
from onnx import parser

from pconv_onnx import PconvError
from suites import classify, run, table
from suites.onnx_backend import DATA

ROOT = Path(__file__).parents[2]
SHIPPED = [(str(path.relative_to(DATA)), path) for path in sorted(DATA.glob("pytorch-*/*/*.onnx"))]


def row_of(file: str, path: Path) -> dict:
    (row,) = classify.rows(("onnx-backend", file, path))
    return row


@pytest.mark.parametrize("first", range(4))
def test_models_of_onnx_end_in_no_traceback_and_become_no_other_network(first):
    rows = [row_of(*each) for each in SHIPPED[first::4]]
    assert len(rows) > 20
    assert {
        row["file"]: row["faults"] + row["differences"] for row in rows if row["faults"] or row["differences"]
    } == {}
    assert {row["outcome"] for row in rows} <= {"unreadable", "nothing to convert", "refused", "needs calibration"}


def test_a_relu_is_calibrated_and_compared_with_what_calibration_made():
    row = row_of(*next(each for each in SHIPPED if "test_ReLU/" in each[0]))
    assert row["outcome"] == "needs calibration" and row["loads"]
    assert row["activations"] == {"needs_calibration": 1}
    assert row["calibrated"] == {"parallel": "equal", "folded": "equal"}
    assert set(row["data"]) == {"parallel, calibrated", "folded, calibrated"}
    assert max(row["data"].values()) < 1e-6


def test_an_exception_of_ours_is_a_fault_and_a_refusal_is_none(monkeypatch):
    monkeypatch.setattr(classify, "inspect", _raising(KeyError("x")))
    row = row_of(*SHIPPED[0])
    assert row["outcome"] == "unreadable"
    assert row["faults"][0].startswith("inspect: KeyError: 'x' (test_suites.py:")
    monkeypatch.setattr(classify, "inspect", _raising(PconvError("'a', 'b' have 3 rows")))
    row = row_of(*SHIPPED[0])
    assert (row["outcome"], row["reason"], row["faults"]) == ("unreadable", "… have … rows", [])


def _raising(error):
    def call(*_, **__):
        raise error

    return call


def test_a_network_that_does_not_run_where_its_source_does_is_told(monkeypatch, small_network):
    monkeypatch.setattr(classify, "verify", _raising(PconvError("onnxruntime cannot run it")))
    broken = onnx.ModelProto()
    broken.CopyFrom(small_network)
    broken.graph.node[0].op_type = "NoSuchOperator"
    row = classify.Row("onnx-backend", "a")
    assert classify._judged(row, "parallel", small_network, broken, {}) == "does not run"
    assert row.differences == ["parallel, calibrated does not run, and its source does: onnxruntime cannot run it"]
    row = classify.Row("onnx-backend", "a")
    told = "not compared: onnxruntime cannot run it"
    assert classify._judged(row, "parallel", small_network, small_network, {}) == told
    assert classify._judged(row, "parallel", broken, broken, {}) == told
    assert row.differences == []


def test_operators_that_could_hold_an_activation_are_told_where_none_is_found(tmp_path):
    for domain, attribute, unseen in (
        ("com.microsoft", '<activation: string = "Relu">', ["com.microsoft.Odd"]),
        ("com.microsoft", "", []),
    ):
        model = parser.parse_model(
            f'<ir_version: 8, opset_import: ["": 17, "{domain}": 1]> g (float[1] x) => (float[1] y) '
            f"{{ y = {domain}.Odd {attribute} (x) }}"
        )
        (tmp_path / "odd.onnx").write_bytes(model.SerializeToString())
        assert classify._unseen(tmp_path / "odd.onnx") == unseen


def test_a_process_that_ends_is_a_fault_unless_onnxruntime_ended_it():
    case = ("onnx-backend", "a", Path("a.onnx"))
    row = run.row_of(Outcome(case, ["inspect: does not end within 60 s"], "inspect"))
    assert (row["outcome"], row["faults"]) == ("timeout", ["inspect: does not end within 60 s"])
    row = run.row_of(Outcome(case, [f"{classify.FOREIGN}: the process ends by SIGSEGV"], classify.FOREIGN))
    assert (row["outcome"], row["faults"]) == ("crash of onnxruntime", [])


def test_reasons_are_equal_whatever_they_name():
    told = "'a.onnx' uses opset 7 which onnx cannot convert to 13: [1, 2] of 'b', 'c' in uint8"
    assert classify.nameless(told) == "… uses opset … which onnx cannot convert to …: … of … in uint8"


def test_the_page_has_the_rows_of_the_file():
    document = json.loads((ROOT / "benchmarks" / "results" / "suites.json").read_text())
    section = table.markdown(document["rows"], document["machine"], classify.STEPS)
    page = (ROOT / "docs" / "support.md").read_text(encoding="utf-8")
    assert f"<!-- suites -->\n{section}<!-- end of suites -->" in page
    assert {row["suite"] for row in document["rows"]} == set(run.SUITES) == set(table.ABOUT)
