"""How candidates are timed: in turns, with the ratios of the same rounds, on a machine that is described."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pconv_onnx.measure import timing
from pconv_onnx.measure.timing import OtherWork, machine, ratio, rounds, spread, threads_of


def test_each_round_runs_every_candidate_once_and_starts_with_the_next():
    calls: list[str] = []
    candidates = {name: (lambda name=name: calls.append(name)) for name in "abc"}
    found = list(rounds(candidates, 4))
    assert "".join(calls) == "abc" + "bca" + "cab" + "abc"
    assert all(row.keys() == set("abc") and min(row.values()) >= 0 for row in found)


def test_rounds_that_were_measured_outlive_an_interruption():
    def run():
        if len(found) == 2:
            raise KeyboardInterrupt

    found = []
    with pytest.raises(KeyboardInterrupt):
        for seconds in rounds({"a": run}, 5):
            found.append(seconds)
    assert len(found) == 2


def test_figures_are_milliseconds_and_ratios_those_of_the_same_round():
    assert spread([0.001 * n for n in range(1, 12)]) == pytest.approx({"median_ms": 6, "p10_ms": 2, "p90_ms": 10})
    # The median of the one over that of the other would be 2.
    assert ratio([1, 2, 30], [1, 1, 30]) == 1


def test_the_machine_is_described():
    found = machine()
    assert (found["cores"], found["python"]) == (os.cpu_count(), sys.version.split()[0])
    assert found["onnxruntime"] and found["cpu"]


@pytest.mark.parametrize(("others", "quiet"), [(0.0, True), (0.04, True), (0.5, False)])
def test_a_machine_is_quiet_where_others_leave_the_cpu_alone(others, quiet, monkeypatch):
    # 100 s of CPU time, of which this process used 40.
    readings = iter([(1000.0, 300.0, 20.0), (1100.0, 300.0 + 40 + 100 * others, 60.0)])
    monkeypatch.setattr(timing, "cpu_seconds", lambda: next(readings))
    assert OtherWork().summary() == {"quiet": quiet, "other_work": pytest.approx(others)}


def test_nothing_is_said_of_others_where_the_system_does_not_tell(monkeypatch):
    monkeypatch.setattr(timing, "cpu_seconds", lambda: None)
    assert OtherWork().summary() == {"quiet": None, "other_work": None}


@pytest.mark.skipif(not os.path.exists("/proc/stat"), reason="no /proc here")
def test_the_work_of_children_is_not_that_of_others():
    total, busy, own = timing.cpu_seconds()
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.3: pass"], check=True)
    later = timing.cpu_seconds()
    assert later[0] > total and later[1] > busy
    assert later[2] - own >= 0.28


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="no /proc here")
def test_threads_are_counted():
    import onnxruntime
    from networks import network, qcfs

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 3
    model = network(qcfs("x", "y")).SerializeToString()
    _, count = threads_of(lambda: onnxruntime.InferenceSession(model, options))
    assert count == 3
