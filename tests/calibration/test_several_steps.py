"""Several numbers of time-steps in one call: what each call alone finds, from one run of the source."""

from __future__ import annotations

from collections import Counter

import onnx
import pytest
from calibration_cases import DATA, MODEL
from refusals import refusal_of

from pconv_onnx import calibrate, calibrate_each
from pconv_onnx.basics.errors import Interrupted, PconvError
from pconv_onnx.calibration import sweep
from pconv_onnx.calibration.passes import Passes


@pytest.mark.parametrize(
    ("steps", "options"),
    [
        ((4, 8, 2), {}),
        # Rules are tried at 6 and 8; levels of 8 are kept in two bytes.
        ((6, 2, 8), {"coding": "radix", "sensitivity": True}),
        ((3, 300 // 2), {"method": "fit", "signed": True}),
        ((4, 5), {"method": "mse+da-qcfs", "neurons": "products"}),
        ((4, 16), {"method": "percentile"}),
    ],
)
def test_each_is_bit_for_bit_what_it_is_alone(steps, options):
    together = calibrate_each(MODEL, DATA, steps=steps, **options)
    assert tuple(together) == steps
    for number, found in together.items():
        alone = calibrate(MODEL, DATA, steps=number, **options)
        assert found.model.SerializeToString() == alone.model.SerializeToString()
        assert found.summary() == alone.summary()


def test_of_random_data_as_well():
    together = calibrate_each(MODEL, "random", steps=(2, 7))
    alone = [calibrate(MODEL, "random", steps=number).model for number in (2, 7)]
    assert [found.model for found in together.values()] == alone


def test_the_source_runs_once_for_all(monkeypatch):
    calls: Counter[str] = Counter()

    def counted(name):
        method = getattr(Passes, name)
        return lambda self, *given: (calls.update([name]), method(self, *given))[1]

    names = ("faults", "keep_reference", "hand_on_reference", "count_reference", "keep_quantised")
    for name in names:
        monkeypatch.setattr(Passes, name, counted(name))
    calibrate(MODEL, DATA, steps=4)
    one = dict(calls)
    calls.clear()
    calibrate_each(MODEL, DATA, steps=(4, 8, 16))
    assert calls == one | {"keep_quantised": 3 * one["keep_quantised"]}


def test_files_are_named_by_their_number(tmp_path):
    names = {"output": tmp_path / "out-{steps}.onnx", "cache": str(tmp_path / "kept-{steps}.npz")}
    first = calibrate_each(MODEL, DATA, steps=(4, 8), **names)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "kept-4.npz", "kept-8.npz", "out-4.onnx", "out-8.onnx"
    ]  # fmt: skip
    assert onnx.load(tmp_path / "out-8.onnx") == first[8].model
    # What one call kept is good for any other.
    assert calibrate(MODEL, DATA, steps=8, cache=tmp_path / "kept-8.npz").from_cache
    again = calibrate_each(MODEL, DATA, steps=(8, 2), **names)
    assert [found.from_cache for found in again.values()] == [True, False]
    assert again[8].model == first[8].model


@pytest.mark.parametrize("place", ["output", "cache"])
def test_a_file_for_several_is_refused(place, tmp_path):
    told = refusal_of(calibrate_each, MODEL, DATA, steps=(4, 8), **{place: tmp_path / "one"})
    hint = "name it with {steps} in the place of T, such as 'out-{steps}.onnx'"
    assert told.endswith(f"one' is one file for 2 numbers of time-steps; {hint}")
    assert calibrate_each(MODEL, DATA, steps=(4, 4), **{place: tmp_path / "one"}).keys() == {4}
    assert "there is no number of time-steps" in refusal_of(calibrate_each, MODEL, DATA, steps=())


def test_an_interrupt_keeps_each(tmp_path, monkeypatch):
    choose, calls = sweep.choose, []

    def interrupted(*given, **options):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return choose(*given, **options)

    monkeypatch.setattr(sweep, "choose", interrupted)
    whole = calibrate(MODEL, DATA, steps=8)
    calls.clear()
    told = "kept-4.npz' keeps 2 of 5 activations, '.*kept-8.npz' keeps 2 of 5 activations, and the next run continues"
    with pytest.raises(Interrupted, match=told):
        calibrate_each(MODEL, DATA, steps=(4, 8), cache=tmp_path / "kept-{steps}.npz")
    # Alone it goes on from what both had, and the other one from there beside a new one.
    assert calibrate(MODEL, DATA, steps=8, cache=tmp_path / "kept-8.npz").model == whole.model
    assert len(calls) == 6 + 3
    both = calibrate_each(MODEL, DATA, steps=(4, 2), cache=tmp_path / "kept-{steps}.npz")
    assert len(calls) == 9 + 3 + 5
    assert both[4].model == calibrate(MODEL, DATA, steps=4).model


def test_one_that_fails_stops_no_other_before_the_end(tmp_path, monkeypatch):
    choose = sweep.choose

    def failing(settings, *given, **options):
        if settings.levels == 4:
            raise PconvError("too large")
        return choose(settings, *given, **options)

    monkeypatch.setattr(sweep, "choose", failing)
    told = refusal_of(calibrate_each, MODEL, DATA, steps=(4, 8), cache=tmp_path / "kept-{steps}.npz")
    assert told == "too large"
    # All of the other one is kept.
    calls: list[int] = []
    monkeypatch.setattr(sweep, "choose", lambda *given, **options: calls.append(1) or choose(*given, **options))
    calibrate(MODEL, DATA, steps=8, cache=tmp_path / "kept-8.npz")
    assert not calls
