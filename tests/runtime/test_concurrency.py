"""Many threads and many sessions: each run gives what it gives alone, and nothing is left behind."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from typing import Any, NamedTuple

import leaks
import numpy as np
import onnx
import onnxruntime
import pytest
from networks import network, qcfs, weight

from pconv_onnx import SerialSession, rewrite, session

THREADS, RUNS = 6, 8
FEEDS = [
    {"x": np.random.default_rng(seed).normal(size=(1 + seed % 3, 3, 8, 8)).astype(np.float32)}
    for seed in range(THREADS)
]


def in_threads(work: Callable[[int], object]) -> list:
    """What the work gives in each of the threads, which begin together; its errors are raised."""
    barrier = Barrier(THREADS, timeout=60)

    def begin(index: int) -> object:
        barrier.wait()
        return work(index)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(begin, range(THREADS)))


def plain(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Stock onnxruntime, where neurons are their function body."""
    return onnxruntime.InferenceSession(model.SerializeToString())


@pytest.fixture(scope="module")
def serial_source() -> onnx.ModelProto:
    nodes = f"c = Conv (x, w) {qcfs('c', 'a')} y = Conv (a, v)"
    weights = {"w": 4 * weight(4, 3, 3, 3), "v": weight(5, 4, 2, 2, seed=1)}
    return network(nodes, outputs="float[N, 5, 5, 5] y", weights=weights)


KINDS = {"parallel": session, "folded": session, "function body": plain, "serial": SerialSession}


class Network(NamedTuple):
    """How to open a network, and what it gives for each feed where nothing else runs."""

    opened: Callable[[], Any]
    expected: list[np.ndarray]

    def runs_as_alone(self, runner, index: int) -> None:
        for _ in range(RUNS):
            np.testing.assert_array_equal(runner.run(None, FEEDS[index])[0], self.expected[index])


@pytest.fixture(scope="module", params=KINDS)
def subject(request, library, small_network, serial_source) -> Network:
    """A network of each kind."""
    mode = "parallel" if request.param == "function body" else request.param
    model = rewrite(serial_source if mode == "serial" else small_network, mode=mode).model
    opened = partial(KINDS[request.param], model)
    runner = opened()
    expected = [runner.run(None, feed)[0] for feed in FEEDS]
    assert all(np.ptp(values) > 0 for values in expected)
    return Network(opened, expected)


def test_threads_that_share_a_session_do_not_meet(subject):
    runner = subject.opened()
    in_threads(lambda index: subject.runs_as_alone(runner, index))


def test_threads_with_sessions_of_their_own_do_not_meet(subject):
    in_threads(lambda index: subject.runs_as_alone(subject.opened(), index))


def test_sessions_come_and_go_while_others_run(subject):
    runner = subject.opened()

    def work(index: int) -> None:
        if index % 2:
            subject.runs_as_alone(runner, index)
        else:
            for _ in range(3):
                np.testing.assert_array_equal(subject.opened().run(None, FEEDS[index])[0], subject.expected[index])

    in_threads(work)


@pytest.mark.usefixtures("library")
def test_options_that_threads_share_are_left_as_they_were(small_network):
    """To open a session they are changed for a while."""
    model, options = rewrite(small_network).model, onnxruntime.SessionOptions()
    sessions = in_threads(lambda _: [session(model, options=options) for _ in range(3)])
    assert options.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    assert (options.optimized_model_filepath, options.log_severity_level) == ("", -1)
    outputs = [runner.run(None, FEEDS[0])[0] for own in sessions for runner in own]
    for output in outputs[1:]:
        np.testing.assert_array_equal(output, outputs[0])


@pytest.mark.usefixtures("library")
def test_time_steps_of_several_threads_follow_each_other(serial_source):
    """No potential is written by two at once: on the same inputs it does not matter whose time-step is whose."""
    model = rewrite(serial_source, mode="serial").model
    alone, shared = SerialSession(model), SerialSession(model)
    expected = [alone.step(None, FEEDS[2])[0] for _ in range(THREADS * RUNS)]
    found = in_threads(lambda _: [shared.step(None, FEEDS[2])[0] for _ in range(RUNS)])
    assert sorted(x.tobytes() for own in found for x in own) == sorted(x.tobytes() for x in expected)
    assert len({x.tobytes() for x in expected}) > 1


@pytest.mark.usefixtures("library")
@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells what a process holds")
@pytest.mark.parametrize(
    "kind", ["parallel, pconv_onnx.session", pytest.param("serial, SerialSession", marks=pytest.mark.slow)]
)
def test_sessions_that_are_dropped_leave_nothing(kind):
    sessions = 40
    first, last = leaks.in_a_process(kind, sessions, warm_up=10, every=sessions)
    for what in ("files", "threads", "temporary_files"):
        assert last[what] == first[what]
    # Half of the neurons' tables of each session would be more.
    assert last["resident_kib"] - first["resident_kib"] < sessions * leaks.table_bytes() / 2048


@pytest.mark.usefixtures("library")
@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells what a process holds")
def test_sessions_that_are_kept_show_in_that():
    first, last = leaks.in_a_process("parallel, pconv_onnx.session", 10, warm_up=2, every=10, keep=True)
    assert last["threads"] > first["threads"]
    assert last["resident_kib"] - first["resident_kib"] > 10 * leaks.table_bytes() / 1024
