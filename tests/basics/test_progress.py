"""How far long functions are: a bar on a terminal, lines elsewhere, or the caller's own function."""

from __future__ import annotations

import logging
import os
import pty
import sys
import time

import numpy as np
import pytest
from networks import network, weight

import pconv_onnx
from pconv_onnx.basics import progress
from pconv_onnx.basics.progress import showing, shows_progress, track

# As it is without the fixture that keeps tests quiet.
EVERY = progress._EVERY


def test_nothing_is_shown_unless_it_is_asked_for(capfd):
    assert list(track([1, 2, 3], "counting", 3)) == [1, 2, 3]
    with showing(True), showing(False):
        assert list(track([1, 2, 3], "counting", 3)) == [1, 2, 3]
    assert capfd.readouterr() == ("", "")


def test_a_terminal_is_shown_a_bar(capfd, monkeypatch):
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("TERM", "xterm")
        with showing(True):
            assert list(track([1, 2, 3], "counting", 3)) == [1, 2, 3]
        terminal.flush()
        shown = os.read(ours, 10000)
    os.close(ours)
    assert b"counting" in shown
    assert capfd.readouterr() == ("", "")


def test_a_file_gets_a_line_every_so_often_within_long_parts_too(capfd, monkeypatch):
    monkeypatch.setattr(progress, "_EVERY", 0.05)
    with showing(True):
        time.sleep(0.08)
        for _ in track([1, 2], "counting", 2):
            time.sleep(0.08)
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "pconv-onnx: working, 0 s"
    assert "pconv-onnx: counting 0 of 2, 0 s" in lines and "pconv-onnx: counting 1 of 2, 0 s" in lines
    assert EVERY <= 30 and progress._duration(61) == "1 min 1 s"


def test_a_function_is_called_and_those_inside_call_it_too():
    calls = []

    @shows_progress
    def outer(progress=None):
        return inner()

    @shows_progress
    def inner(progress=None):
        return list(track("ab", "counting", 2))

    assert outer(progress=lambda *told: calls.append(told)) == ["a", "b"]
    assert calls == [("counting", 0, 2), ("counting", 1, 2), ("counting", 2, 2)]
    outer()
    assert len(calls) == 3


@pytest.mark.usefixtures("library")
def test_long_functions_tell_how_far_they_are(caplog):
    ann = network(
        "a = Conv (x, w) r = Relu (a) y = Flatten (r)", outputs="float[N, M] y", weights={"w": weight(4, 3, 1, 1)}
    )
    data = {"x": np.random.default_rng(0).normal(size=(8, 3, 8, 8)).astype(np.float32)}
    told = []

    def shown(what, done, total):
        told.append(what)
        assert 0 <= done <= total

    with caplog.at_level(logging.DEBUG, "pconv_onnx"):
        snn = pconv_onnx.rewrite(ann, steps=4, calibration=data, progress=shown).model
    assert set(told) == {"calibrating"} and "calibrating: 1 done in" in caplog.text
    told.clear()
    pconv_onnx.verify(ann, snn, data, progress=shown)
    pconv_onnx.stats(snn, data, progress=shown)
    pconv_onnx.evaluate(ann, data, steps=4, calibration=data, progress=shown)
    assert list(dict.fromkeys(told)) == ["verifying", "counting", "rewriting", "calibrating", "evaluating"]
