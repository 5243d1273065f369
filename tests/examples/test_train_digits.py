"""The digits example, all of it."""

from __future__ import annotations

import pytest
import train_digits


@pytest.mark.slow
def test_quantising_costs_less_than_a_point_and_spiking_nothing(tmp_path, capsys):
    found = train_digits.run(tmp_path)
    train_digits.report(found)
    assert found["relu_accuracy"] > 0.97
    assert found["qcfs_accuracy"] > found["relu_accuracy"] - 0.01
    assert found["verify"]["passed"]
    assert abs(found["spiking_accuracy"]["4"] - found["qcfs_accuracy"]) < 0.005
    assert "(T = L, lossless)" in capsys.readouterr().out
