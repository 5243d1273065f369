"""What a rewritten file says of itself: written and read in one place, files of earlier versions included."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import network, qcfs, weight
from refusals import refusal_of

from pconv_onnx import PconvError, SerialSession, deploy, evaluate, rewrite, stats, verify
from pconv_onnx.graph.record import FORM, InTime, Record, is_rewritten

PREFIX = "pconv_onnx."
TEXT = st.text(max_size=8)
KINDS = st.builds(
    InTime,
    steps=st.integers(1, 256),
    levels=st.none()
    | TEXT
    | st.lists(st.lists(TEXT, min_size=1, max_size=1), max_size=2).map(
        lambda names: [[name, 3, 2] for (name,) in names]
    ),
    channel_axis=st.none() | st.integers(1, 4),
    highest=st.none() | st.integers(1, 512),
)


def entries_of(model: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


def changed(model: onnx.ModelProto, **entries: str | None) -> onnx.ModelProto:
    """A copy in which entries of the record are others, or gone."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = [entry for entry in copy.metadata_props if entry.key.removeprefix(PREFIX) not in entries]
    del copy.metadata_props[:]
    copy.metadata_props.extend(kept)
    for key, value in entries.items():
        if value is not None:
            copy.metadata_props.add(key=PREFIX + key, value=value)
    return copy


def of_form_1(model: onnx.ModelProto) -> onnx.ModelProto:
    """As versions before there was a form wrote it."""
    return changed(model, form=None, kinds=None)


@given(
    steps=st.none() | st.integers(1, 256),
    names=st.lists(TEXT, max_size=2),
    potentials=st.dictionaries(TEXT, TEXT, max_size=2),
    kinds=st.dictionaries(TEXT, KINDS, max_size=2),
    calibration=st.none() | st.dictionaries(TEXT.filter("outputs".__ne__), st.integers(), max_size=2),
    form=st.none() | TEXT,
    carriers=st.none() | TEXT,
    integer=st.none()
    | st.fixed_dictionaries(
        {
            "weights": st.sampled_from(["int8", "int4"]),
            "input_bits": st.sampled_from([8, None]),
            "islands": st.dictionaries(TEXT, TEXT, max_size=2),
        }
    ),
)
def test_what_is_written_is_read(steps, names, potentials, kinds, calibration, form, carriers, integer):
    rows = [{"status": "refused"}]
    record = Record(
        "digest",
        "parallel",
        steps,
        rows,
        names,
        names,
        potentials,
        calibration,
        form,
        integer,
        kinds,
        carriers=carriers,
    )
    model = onnx.ModelProto()
    model.metadata_props.add(key="author", value="somebody")
    for _ in range(2):
        record.write(model)
        assert Record.read(model) == record
    assert entries_of(model)["author"] == "somebody"


@pytest.mark.parametrize(
    "entries",
    [
        *({key: None} for key in ("source_sha256", "mode", "steps", "activations", "kinds", "version")),
        {"steps": '"4"'},
        {"steps": "true"},
        {"activations": "{}"},
        {"activations": "[3]"},
        {"activations": "[" * 100_000},
        {"per_step_outputs": "[1]"},
        {"potentials": '{"a": 1}'},
        {"calibration": "[]"},
        {"integer": "[]"},
        *(
            {"integer": json.dumps({"weights": "int8", "input_bits": None, "islands": {}, **entry})}
            for entry in ({"weights": "int9"}, {"weights": None}, {"input_bits": 7}, {"islands": ["a"]})
        ),
        *({"integer": json.dumps(entry)} for entry in ({}, {"weights": "int8", "islands": {}})),
        {"form": "[]"},
        {"kinds": "[]"},
        {"kinds": '{"a": 1}'},
        {"kinds": '{"a": {"steps": "4"}}'},
        {"kinds": '{"a": {"steps": 4, "colour": 1}}'},
        *(
            {"kinds": json.dumps({"a": {"steps": 4, **entry}})}
            for entry in (
                {"steps": 0},
                {"steps": True},
                {"steps": 10**400},
                {"levels": {}},
                {"levels": [["a_code", 0]]},
                {"levels": [["a_code", -1, 1]]},
                {"levels": [["a_code", 0, 0]]},
                {"levels": [[[], 0, 1]]},
                {"levels": "a_code", "channel_axis": 0},
                {"levels": "a_code", "channel_axis": -3},
                {"levels": "a_code", "channel_axis": 10**400},
            )
        ),
        {"mode": "sideways"},
        {"steps": "0"},
        {"steps": str(2**70)},
        {"calibration": '{"outputs": 5}'},
        {"calibration": '{"outputs": [[1]]}'},
        {"calibration": '{"outputs": null}'},
    ],
)
def test_a_record_that_is_none_is_told(small_network, entries):
    model = changed(rewrite(small_network).model, **entries)
    with pytest.raises(ValueError, match="."):
        Record.read(model)
    assert is_rewritten(model)
    assert "was not written by pconv-onnx rewrite" in refusal_of(verify, small_network, model)
    assert "was not rewritten" in refusal_of(stats, model)


def test_a_model_of_others_has_none(small_network):
    assert not is_rewritten(small_network)
    with pytest.raises(ValueError, match="there is no"):
        Record.read(small_network)


def test_a_record_of_a_later_version_is_refused(small_network, tmp_path):
    model = changed(rewrite(small_network).model, form=str(FORM + 1))
    for function, arguments in (
        (verify, (small_network, model)),
        (stats, (model,)),
        (deploy, (model, tmp_path / "out")),
    ):
        told = refusal_of(function, *arguments)
        assert (
            told == f"the record of the model has form {FORM + 1}, of a later version of pconv-onnx; update pconv-onnx"
        )


@pytest.mark.usefixtures("library")
def test_files_of_the_first_form_are_read(small_network, tmp_path):
    x = {"x": np.ones((2, 3, 8, 8), np.float32), "labels": np.zeros(2, int)}
    snn = rewrite(small_network).model
    step = rewrite(network(qcfs("x", "y")), mode="serial").model
    assert Record.read(of_form_1(snn)).kinds is None
    assert verify(small_network, of_form_1(snn), x).summary() == verify(small_network, snn, x).summary()
    assert evaluate(of_form_1(snn), x).summary() == evaluate(snn, x).summary()
    assert deploy(of_form_1(snn), tmp_path / "out").summary()["target"] == "bundle"
    old, new = (SerialSession(model).run(None, {"x": x["x"]})[0] for model in (of_form_1(step), step))
    np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("mode", ["parallel", "folded"])
def test_statistics_of_the_first_form_say_what_to_do(small_network, mode):
    model = of_form_1(rewrite(small_network, mode=mode).model)
    told = refusal_of(stats, model)
    assert told.startswith("the model is of an earlier pconv-onnx (")
    assert told.endswith("), which did not record what is in time; rewrite its source again")


def test_statistics_of_a_network_that_another_tool_renamed_are_refused(small_network):
    model = rewrite(small_network).model
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = ["other" if name == "p/steps" else name for name in names]
    assert "are not there any more as rewrite wrote them" in refusal_of(stats, model)


def test_levels_of_several_neurons_are_told_as_runs_of_theirs():
    """Two activations side by side: each channel has the levels of its own."""
    nodes = f"""
        {qcfs("x", "a")} h = Mul (x, half) {qcfs("h", "b").replace("theta", "other")}
        z = Concat <axis = 1> (a, b) y = Conv (z, w)
    """
    weights = {"w": weight(2, 6, 1, 1), "half": np.float32(0.5), "other": np.float32(3.0)}
    model = rewrite(network(nodes, weights=weights, outputs="float[N, 2, 8, 8] y")).model
    kinds = Record.read(model).kinds
    joined = next(kind for name, kind in kinds.items() if name.startswith("z"))
    assert joined == InTime(4, [["a_code", 0, 3], ["b_code", 0, 3]], 1)
    assert isinstance(kinds["a/steps"].levels, str)
    (operator,) = stats(model).summary()["operators"]
    assert (operator["input"], operator["synaptic_operations"] > 0) == ("spikes", True)


SIDE_BY_SIDE = f"""
    m = Mul (x, eight) r = Round (m) s_held = Clip (r, low, high) s = Mul (s_held, eighth) {qcfs("x", "u")}
    z = Concat <axis = 1> (s, u) d, e = Split <axis = 1> (z, parts) f = Concat <axis = 1> (e, d, s) y = Conv (f, w)
"""


def side_by_side(low: float) -> onnx.ModelProto:
    """Trains of 4 counts above that of silence beside others that have some below it as well."""
    weights = {
        "eight": 8.0,
        "eighth": 0.125,
        "low": low,
        "high": 4.0,
        "parts": np.array([2, 4]),
        "w": weight(2, 9, 1, 1),
    }
    return network(SIDE_BY_SIDE, weights=weights, outputs="float[N, 2, 8, 8] y")


@pytest.mark.parametrize("mode", ["parallel", "folded"])
def test_levels_that_reach_differently_far_are_told_by_how_far_they_are_widened(mode):
    """Which files of earlier builds never had."""
    model = rewrite(side_by_side(-2.0), mode=mode, coding="rate").model
    kinds = {name.removesuffix("/steps"): kind for name, kind in Record.read(model).kinds.items()}
    neuron, other = kinds["s"].levels, kinds["u"].levels
    assert kinds["z"] == InTime(4, [[neuron, 0, 3], [other, 0, 3]], 1, zero=2, highest=6)
    assert kinds["e"] == InTime(4, [[neuron, 0, 1], [other, 0, 3]], 1, zero=2, highest=6)
    assert (kinds["s"].highest, kinds["s"].zero, kinds["u"].zero) == (None, 2, 0)
    assert entries_of(model)[f"{PREFIX}form"] == "4"
    (operator,) = stats(model).summary()["operators"]
    assert operator["input"] == "spikes"
    assert verify(side_by_side(-2.0), model).verdict == "equal"


def test_files_that_earlier_builds_read_have_the_form_that_these_know():
    forms = {}
    for low in (0.0, -4.0, -2.0):
        model = rewrite(side_by_side(low), coding="rate").model
        forms[low] = entries_of(model)[f"{PREFIX}form"]
        kinds = json.loads(entries_of(model)[f"{PREFIX}kinds"]).values()
        assert any("highest" in kind for kind in kinds) == (low < 0)
    assert forms == {0.0: "2", -4.0: "4", -2.0: "4"}
    alone = network(SIDE_BY_SIDE.split("z =")[0] + "y = Neg (s)", weights={"eight": 8.0, "eighth": 0.125, "low": -2.0,
                    "high": 4.0})  # fmt: skip
    assert entries_of(rewrite(alone, coding="rate").model)[f"{PREFIX}form"] == "3"


@pytest.mark.parametrize(
    "entry",
    [{"highest": 3}, {"highest": 70000}, {"highest": 0}, {"highest": "6"}, {"zero": 1}, {"highest": None}],
    ids=str,
)
def test_widened_levels_that_are_recorded_and_are_not_so_are_told(entry):
    model = rewrite(side_by_side(-2.0), coding="rate").model
    kinds = json.loads(entries_of(model)[f"{PREFIX}kinds"])
    kinds["z/steps"] = {key: value for key, value in {**kinds["z/steps"], **entry}.items() if value is not None}
    told = refusal_of(stats, changed(model, kinds=json.dumps(kinds)))
    assert "as rewrite wrote them" in told or "was not rewritten" in told


def test_rows_of_the_record_are_those_of_the_answer(small_network):
    result = rewrite(small_network)
    rows = json.loads(entries_of(result.model)[f"{PREFIX}activations"])
    assert [
        {key: row[key] for key in told} for row, told in zip(rows, result.summary()["activations"], strict=True)
    ] == (result.summary()["activations"])
    with pytest.raises(PconvError):
        verify(small_network, changed(result.model, source_sha256="another"))


# What is recorded of the tensors of `small_network` that is not so: tensor, what of it, in which modes.
FORGED = [
    ("p", {"levels": "nobody"}),
    ("p", {"levels": "a_code", "steps": 5}),
    ("p", {"levels": [["a_code", 0, 2]], "channel_axis": None}),
    ("p", {"levels": [["a_code", 0, 2]], "channel_axis": 1}),
    ("p", {"levels": [["a_code", 0, 200]], "channel_axis": 1}),
    ("p", {"levels": [["a_code", 0, 1 << 30]], "channel_axis": 1}),
    ("p", {"levels": [["a_code", 0, 4]], "channel_axis": 50}),
    ("p", {"levels": []}),
]


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("mode", ["parallel", "folded"])
@pytest.mark.parametrize(("name", "entry"), FORGED, ids=str)
def test_what_is_recorded_in_time_and_is_not_so_is_told(small_network, mode, name, entry):
    model = rewrite(small_network, mode=mode).model
    kinds = json.loads(entries_of(model)[f"{PREFIX}kinds"])
    key = f"{name}/steps" if mode == "parallel" else name
    kinds[key] = {key: value for key, value in {**kinds[key], **entry}.items() if value is not None}
    told = refusal_of(stats, changed(model, kinds=json.dumps(kinds)))
    assert "as rewrite wrote them" in told or "cannot run the model" in told


@pytest.mark.parametrize("mode", ["parallel", "folded"])
def test_trains_of_neurons_are_what_these_give_whatever_is_recorded(small_network, mode):
    model = rewrite(small_network, mode=mode).model
    kinds = json.loads(entries_of(model)[f"{PREFIX}kinds"])
    for name in [name for name in kinds if name.removesuffix("/steps") in ("a", "b")]:
        kinds[name] = {"steps": 3}
    assert stats(changed(model, kinds=json.dumps(kinds))).summary() == stats(model).summary()


def test_a_record_with_levels_beside_a_model_without_neurons_is_told(small_network):
    entries = {key.removeprefix(PREFIX): value for key, value in entries_of(rewrite(small_network).model).items()}
    assert "are not there any more" in refusal_of(stats, changed(small_network, **entries))


def test_a_record_grows_with_the_network_and_not_with_what_it_concatenates():
    """As DenseNet does: all that came before goes into the next layer."""
    layers, width, steps = 12, 8, 64
    nodes, weights, before = qcfs("x", "a0").replace("count", "many"), {"many": float(steps)}, "a0"
    for index in range(1, layers):
        channels = 3 + width * (index - 1)
        weights |= {f"w{index}": weight(width, channels, 1, 1, seed=index), f"theta{index}": np.float32(1 + index)}
        nodes += f" c{index} = Conv ({before}, w{index})"
        nodes += qcfs(f"c{index}", f"a{index}").replace("count", "many").replace("theta", f"theta{index}")
        nodes += f" d{index} = Concat <axis = 1> ({before}, a{index})"
        before = f"d{index}"
    nodes += f" y = Identity ({before})"
    model = rewrite(network(nodes, weights=weights, outputs=f"float[N, {3 + width * (layers - 1)}, 8, 8] y")).model
    assert len(entries_of(model)[f"{PREFIX}kinds"]) < 30 * layers**2
    assert {row["input"] for row in stats(model).summary()["operators"]} == {"spikes"}


def test_a_tensor_that_the_source_does_not_have_is_told(small_network):
    model = rewrite(small_network).model
    rows = json.loads(entries_of(model)[f"{PREFIX}activations"])
    rows[0]["input"] = "nope"
    told = refusal_of(verify, small_network, changed(model, activations=json.dumps(rows)))
    assert told.startswith("the record of the spiking network names a tensor 'nope' that the model does not have")
