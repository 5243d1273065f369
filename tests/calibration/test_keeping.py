"""A calibration that is interrupted continues where it was, and finds what it would have found."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
from calibration_cases import ACTIVATIONS, DATA, MODEL
from refusals import refusal_of

from pconv_onnx import calibrate
from pconv_onnx.basics.errors import Interrupted, PconvError
from pconv_onnx.calibration import cache, calibrating, keeping, sweep


class Interruption:
    """Raises instead of one of the choices of a staircase, and counts all of them."""

    def __init__(self, monkeypatch, error=KeyboardInterrupt):
        self.choices, self.before, self._error, self._choose = 0, 0, error, sweep.choose
        monkeypatch.setattr(sweep, "choose", self)

    def __call__(self, *arguments, **options):
        self.choices += 1
        if self.choices == self.before:
            raise self._error
        return self._choose(*arguments, **options)


def arrays_of(path) -> dict[str, bytes]:
    with np.load(path) as arrays:
        return {name: array.dtype.str.encode() + array.tobytes() for name, array in arrays.items()}


@pytest.mark.parametrize(
    ("options", "choices", "befores"),
    [
        ({"steps": 4}, 5, {2: 1, 4: 3, 5: 4}),
        ({"steps": 4, "method": "fit", "signed": True}, 5, {2: 1, 5: 4}),
        ({"steps": 4, "method": "da-qcfs", "neurons": "products"}, 5, {3: 2}),
        # Three rules are tried first, side by side.
        ({"steps": 6, "coding": "radix"}, 20, {5: 3, 13: 12, 15: 12, 16: 15, 18: 17}),
    ],
)
def test_what_an_interrupted_run_found_is_not_looked_for_again(options, choices, befores, tmp_path, monkeypatch):
    """Interrupted before so many choices, so many are kept."""
    interruption = Interruption(monkeypatch)
    whole, parts = tmp_path / "whole.npz", tmp_path / "parts.npz"
    first = calibrate(MODEL, DATA, cache=whole, **options)
    assert interruption.choices == choices
    for before, kept in befores.items():
        parts.unlink(missing_ok=True)
        interruption.choices, interruption.before = 0, before
        with pytest.raises(Interrupted, match="parts.npz' keeps [1-5] of 5 activations"):
            calibrate(MODEL, DATA, cache=parts, **options)
        interruption.choices, interruption.before = 0, 0
        again = calibrate(MODEL, DATA, cache=parts, **options)
        assert interruption.choices == choices - kept
        assert again.model.SerializeToString() == first.model.SerializeToString()
        assert again.summary() == first.summary() and not again.from_cache
        assert arrays_of(parts) == arrays_of(whole)
    assert calibrate(MODEL, DATA, cache=parts, **options).from_cache


def test_corrected_weights_are_not_solved_for_again(tmp_path, monkeypatch):
    interruption, solved = Interruption(monkeypatch), []
    interruption.before = 4
    with pytest.raises(Interrupted):
        calibrate(MODEL, DATA, steps=4, cache=tmp_path / "kept.npz")
    solve = sweep.cross_validated
    monkeypatch.setattr(sweep, "cross_validated", lambda *given: solved.append(1) or solve(*given))
    result = calibrate(MODEL, DATA, steps=4, cache=tmp_path / "kept.npz")
    # The one in front of the output is the last.
    assert list(result.found.corrections) == ["a", "b", "c", "y"] and len(solved) == 1


def test_a_run_that_fails_is_kept_as_well(tmp_path, monkeypatch, caplog):
    interruption = Interruption(monkeypatch, MemoryError)
    interruption.before = 3
    with pytest.raises(MemoryError):
        calibrate(MODEL, DATA, steps=4, cache=tmp_path / "kept.npz")
    interruption.before = 0
    caplog.set_level("INFO", "pconv_onnx")
    calibrate(MODEL, DATA, steps=4, cache=tmp_path / "kept.npz")
    (line,) = (record.getMessage() for record in caplog.records if "interrupted" in record.getMessage())
    assert line.endswith("kept.npz' is of a run that was interrupted: calibration continues at 2 of 5 activations")


def test_of_other_settings_nothing_is_taken(tmp_path, monkeypatch):
    interruption = Interruption(monkeypatch)
    interruption.before = 4
    with pytest.raises(Interrupted):
        calibrate(MODEL, DATA, steps=4, cache=tmp_path / "kept.npz")
    interruption.choices, interruption.before = 0, 0
    calibrate(MODEL, DATA, steps=5, cache=tmp_path / "kept.npz")
    assert interruption.choices == ACTIVATIONS


def test_what_a_sweep_found_outlives_an_interrupt_of_tuning(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    def tuned(_, found, __):
        return replace(found, tuning_errors={"refit": 0.5, "tune": 0.25})

    path, interruption = tmp_path / "kept.npz", Interruption(monkeypatch)
    monkeypatch.setattr(calibrating, "_require_torch", lambda: None)
    monkeypatch.setattr(calibrating, "_tuned", interrupted)
    for _ in range(2):
        with pytest.raises(Interrupted, match="keeps 5 of 5 activations"):
            calibrate(MODEL, DATA, steps=4, method="tune", cache=path)
        assert interruption.choices == ACTIVATIONS
    monkeypatch.setattr(calibrating, "_tuned", tuned)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(calibrating, "outcomes_of", interrupted)
        calibrate(MODEL, DATA, steps=4, method="tune", cache=path)
    monkeypatch.setattr(calibrating, "_tuned", interrupted)
    result = calibrate(MODEL, DATA, steps=4, method="tune", cache=path)
    assert interruption.choices == ACTIVATIONS and result.found.tuning_errors == {"refit": 0.5, "tune": 0.25}


@pytest.mark.parametrize(("every", "written"), [(0.0, 7), (1e9, 1)])
def test_it_is_written_from_time_to_time(every, written, tmp_path, monkeypatch):
    stored, store = [], keeping.store
    for module in (keeping, calibrating):
        monkeypatch.setattr(module, "store", lambda *given: stored.append(given) or store(*given))
    monkeypatch.setattr(keeping, "_EVERY", every)
    calibrate(MODEL, DATA, steps=4, cache=tmp_path / "kept.npz")
    # One for each of six segments, and the result.
    assert len(stored) == written


def test_a_disk_that_is_full_stops_nothing_before_the_end(tmp_path, monkeypatch):
    def full(*_):
        raise PconvError("no space left")

    monkeypatch.setattr(keeping, "store", full)
    monkeypatch.setattr(keeping, "_EVERY", 0.0)
    with pytest.warns(UserWarning, match="what was found so far is not kept: no space left"):
        result = calibrate(MODEL, DATA, steps=6, coding="radix", cache=tmp_path / "kept.npz")
    assert result.found.rule_errors.keys() == {"fit", "channel", "tensor"}
    interruption = Interruption(monkeypatch)
    interruption.before = 2
    with warnings.catch_warnings(), pytest.raises(KeyboardInterrupt) as caught:
        warnings.simplefilter("ignore")
        calibrate(MODEL, DATA, steps=4, cache=tmp_path / "other.npz")
    assert not isinstance(caught.value, Interrupted)


def test_without_a_file_an_interrupt_is_one(monkeypatch):
    interruption = Interruption(monkeypatch)
    interruption.before = 2
    with pytest.raises(KeyboardInterrupt) as caught:
        calibrate(MODEL, DATA, steps=4)
    assert not isinstance(caught.value, Interrupted)


@pytest.mark.parametrize(
    ("array", "shape", "name"),
    [("layer/0/weights", (4, 2, 1, 1), "a"), ("layer/0/bias", (3,), "a"), ("activation/0/", (3,), "r")],
)
def test_what_was_kept_of_another_network_is_refused(array, shape, name, tmp_path, monkeypatch):
    """The digest of a file is no signature."""
    path, interruption = tmp_path / "kept.npz", Interruption(monkeypatch)
    interruption.before = 2
    with pytest.raises(Interrupted):
        calibrate(MODEL, DATA, steps=4, cache=path)
    with np.load(path) as file:
        arrays = dict(file)
    meta = json.loads(str(arrays.pop("meta")))
    del meta["sha256"]
    arrays |= {key: np.zeros(shape, value.dtype) for key, value in arrays.items() if f"/{array}" in key}
    meta["sha256"] = cache._digest(meta, arrays)
    np.savez(path, meta=json.dumps(meta), **arrays)
    told = refusal_of(calibrate, MODEL, DATA, steps=4, cache=path)
    assert told.startswith(f"what an earlier run kept of '{name}' does not fit this network; remove the file")
