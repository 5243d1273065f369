"""Bad networks: what cannot be exact or has no integers is told in one line, and absurd numbers are no crash."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from networks import network, qcfs, weight
from refusals import refusal_of

from pconv_onnx import PconvError, rewrite, session

INPUTS = {"weights": "int8", "input_bits": 8, "input_range": (-4, 4)}


def wide(**weights: np.ndarray | float) -> onnx.ModelProto:
    """A Gemm of 32,768 inputs of 255 levels: no float32 holds its sums with weights of 8 bits."""
    nodes = f"c = Conv (x, w) {qcfs('c', 'a')} f = Flatten (a) y = Gemm (f, u)"
    own = {"w": weight(8, 3, 1, 1), "u": np.random.default_rng(0).normal(0, 1, (32768, 2)).astype(np.float32)}
    return network(nodes, inputs="float[N, 3, 64, 64] x", outputs="float[N, 2] y",
                   weights={**own, "count": 255.0, **weights})  # fmt: skip


@pytest.mark.parametrize("options", [{"coding": "radix"}, {"coding": "rate"}, {"mode": "folded"}])
def test_sums_that_may_overflow_are_named_with_their_bound(options, tmp_path):
    told = refusal_of(rewrite, wide(), tmp_path / "snn.onnx", **INPUTS, **options)
    start, _, rest = told.partition(" may reach ")
    bound, _, rest = rest.partition(", and its type holds integers below ")
    # Over time what is too large is the mean of the rows.
    assert start in ("sums of Gemm 'y'", "sums of TemporalMean 'y/integer/decode'")
    assert int(bound.replace(",", "")) >= 2**24
    assert rest.startswith("16,777,216 exactly")
    assert "`weights='int4'`" in rest
    assert not (tmp_path / "snn.onnx").exists()


def test_fewer_bits_or_levels_leave_room():
    assert rewrite(wide(), mode="folded", **INPUTS | {"weights": "int4"}).integers.proof.exact
    assert rewrite(wide(count=3.0), mode="folded", **INPUTS).integers.proof.exact


def test_a_dry_run_proves_nothing():
    assert rewrite(wide(), mode="folded", dry_run=True, **INPUTS).integers.summary()["exact"] is None


def test_a_network_without_a_layer_behind_a_neuron_has_no_integers():
    model = network(
        f"c = Conv (x, w) {qcfs('c', 'y')}", outputs="float[N, 4, 6, 6] y", weights={"w": weight(4, 3, 3, 3)}
    )
    assert refusal_of(rewrite, model, weights="int8") == (
        "no layer of the model can have integer weights: 'c': it reads 'x', which are floats; "
        "docs/integers.md says which layers can"
    )
    assert rewrite(model, **INPUTS).integers.proof.exact


def test_why_no_layer_can_is_told():
    nodes = f"{qcfs('x', 'a')} m = GlobalMaxPool (x) d = Mul (w, m) y = Conv (a, d)"
    model = network(nodes, outputs="float[N, 3, 8, 8] y", weights={"w": weight(3, 3, 1, 1)})
    assert "'y': its weights are computed" in refusal_of(rewrite, model, weights="int8")


def test_a_network_in_float16_is_refused():
    nodes = "c = Conv (x, w) s = Div (c, t) f = Floor (s) k = Clip (f, low, high) a = Mul (k, t) y = Conv (a, w2)"
    weights = {"w": weight(4, 3, 3, 3), "w2": weight(4, 4, 3, 3), "t": 0.25, "low": 0, "high": 4}
    half = {name: np.asarray(value, np.float16) for name, value in weights.items()}
    model = network(nodes, inputs="float16[N, 3, 8, 8] x", outputs="float16[N, 4, 4, 4] y", weights=half)
    assert refusal_of(rewrite, model, weights="int8") == (
        "the model computes in float16, whose sums of integers are not exact; pass the network in float32"
    )


NODES = f"""
    c = Conv (x, w) {qcfs("c", "a").replace("theta", "each")} n = BatchNormalization (a, gain, shift, mean, variance)
    d = Conv (n, v, bias) s = Mul (d, k) {qcfs("s", "y")}
"""
PLAIN = {
    "w": 4 * weight(4, 3, 3, 3), "v": 2 * weight(4, 4, 1, 1), "each": np.full((4, 1, 1), 2, np.float32),
    "gain": np.ones(4, np.float32), "shift": np.full(4, 0.1, np.float32), "mean": np.zeros(4, np.float32),
    "variance": np.ones(4, np.float32), "bias": np.zeros(4, np.float32), "k": np.full((4, 1, 1), 1, np.float32),
}  # fmt: skip
SLOW = pytest.mark.slow
ABSURD = [0, np.nan, -1e30, *(pytest.param(value, marks=SLOW) for value in (-1, np.inf, 1e-45))]


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("value", ABSURD)
@pytest.mark.parametrize("name", PLAIN)
def test_an_absurd_number_is_rounded_told_or_refused(name, value):
    """Whatever is said to be exact has the bits of its integer form."""
    weights = {key: array.copy() for key, array in PLAIN.items()}
    weights[name].flat[0] = value
    model = network(NODES, outputs="float[N, 4, 6, 6] y", weights=weights)
    try:
        results = [rewrite(model, **INPUTS, **options) for options in ({"coding": "radix"}, {"mode": "folded"})]
    except PconvError as error:
        assert len(str(error).splitlines()) == 1
        return
    x = {"x": np.random.default_rng(0).normal(0, 1, (2, 3, 8, 8)).astype(np.float32)}
    for one in results:
        if one.integers.proof.exact:
            expected = session(one.integers.model).run(None, x)[0]
            found = session(one.model).run(None, x)[0]
            # A neuron counts nothing where a staircase has no number, of which a cast makes the lowest integer.
            numbers = expected > -(2**30)
            np.testing.assert_array_equal(found[numbers], expected[numbers])
        else:
            assert one.integers.summary()["islands"] or one.integers.overflows


@pytest.mark.slow
@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("name", ["w", "v", "each", "gain", "k", "variance"])
@pytest.mark.parametrize("factor", [1e-42, 1e-30, 1e-10, 1e10, 1e30])
def test_numbers_that_are_all_absurd_are_told_or_exact(name, factor):
    model = network(NODES, outputs="float[N, 4, 6, 6] y",
                    weights={**PLAIN, name: (PLAIN[name].astype(np.float64) * factor).astype(np.float32)})  # fmt: skip
    try:
        result = rewrite(model, mode="folded", **INPUTS)
    except PconvError as error:
        assert len(str(error).splitlines()) == 1
        return
    x = {"x": np.random.default_rng(0).normal(0, 1, (2, 3, 8, 8)).astype(np.float32)}
    found, expected = session(result.model).run(None, x)[0], session(model).run(None, x)[0]
    assert not result.integers.proof.exact or abs(found - expected).mean() < 0.2
