"""Activations in the bodies of If, Loop and Scan: branches are converted, what is repeated is not."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from networks import CONSTANTS, MODES, qcfs
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from refusals import refusal_of

from pconv_onnx import calibrate, deploy, inspect, rewrite, session, stats, verify
from pconv_onnx.graph import load
from pconv_onnx.graph.nesting import every_graph, every_node, keep
from pconv_onnx.operators.domain import is_operator
from pconv_onnx.runtime.opening import stock_session

SHAPE = "float[N, 3, 4, 4]"
# Of a positive mean, of a small negative one, of a large negative one: each takes another way through the branches.
INPUTS = [
    (np.random.default_rng(seed).integers(low, high, (2, 3, 4, 4)) / 8).astype(np.float32)
    for seed, (low, high) in enumerate([(-8, 40), (-40, 32), (-60, 4)])
]
WEIGHTS = {"w": np.random.default_rng(3).integers(-4, 5, (3, 3, 1, 1)).astype(np.float32) / 4, "below": -2.0}
CONDITION = "mean = ReduceMean <keepdims = 0> (x) yes = Greater (mean, zero)"


def network(nodes: str, weights=None, outputs: str = f"{SHAPE} y", opset: int = 20) -> onnx.ModelProto:
    """A checked model from `x`; weights used in bodies as well become initializers of the main graph."""
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : {opset}]> test ({SHAPE} x) => ({outputs}) {{ {nodes} }}'
    )
    used = {name for node in every_node(model.graph) for name in node.input}
    used -= {name for node in every_node(model.graph) for name in node.output}
    for name, value in (CONSTANTS | WEIGHTS | (weights or {})).items():
        if name in used:
            array = np.asarray(value) if isinstance(value, np.ndarray) else np.float32(value)
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    onnx.checker.check_model(model, full_check=True)
    return model


def branches(then: str, otherwise: str, condition: str = "yes", output: str = "y") -> str:
    """An If of two branches; each gives its tensor `p`."""
    bodies = ", ".join(
        f"{name} = {name} () => ({SHAPE} p) {{ {nodes} }}"
        for name, nodes in (("then_branch", then), ("else_branch", otherwise))
    )
    return f"{output} = If ({condition}) <{bodies}>"


def assert_lossless(source: onnx.ModelProto, activations: int, **options) -> onnx.ModelProto:
    """In each mode, on each way through the branches, with and without the native library; the parallel network."""
    written = []
    stock = onnxruntime.SessionOptions()
    stock.log_severity_level = 4
    for mode in MODES:
        result = rewrite(source, mode=mode, **options)
        assert len(result.plan.neurons) == activations
        onnx.checker.check_model(result.model, full_check=True)
        runners = [
            session(result.model),
            onnxruntime.InferenceSession(result.model.SerializeToString(), stock),
            ReferenceEvaluator(result.model),
        ]
        for x in INPUTS:
            with np.errstate(all="ignore"):
                (expected,) = ReferenceEvaluator(source).run(None, {"x": x})
                for runner in runners:
                    np.testing.assert_array_equal(runner.run(None, {"x": x})[0], expected)
        written.append(result.model)
    return written[0]


NETWORKS = {
    "an activation as output of each branch": (
        CONDITION + branches(qcfs("x", "p"), "h = Conv (x, w)" + qcfs("h", "p")),
        2,
    ),
    "tensors in time around the branches": (
        "k = Conv (x, w)" + qcfs("k", "s") + CONDITION
        + branches("h = Add (s, x)" + qcfs("h", "p"), "h = Conv (s, w) p = Add (h, s)", output="z")
        + "r = Conv (z, w)" + qcfs("r", "y"),
        3,
    ),
    "spikes within a branch": (
        CONDITION
        + branches("p = Abs (x)", qcfs("x", "s") + "c = Conv (s, w) a = Add (c, s)" + qcfs("a", "b") + "p = Neg (b)"),
        2,
    ),
    "branches within branches": (
        CONDITION + "low = Greater (mean, below)"
        + branches(
            qcfs("x", "p"),
            qcfs("x", "s") + "c = Conv (s, w)"
            + branches("d = Add (c, s)" + qcfs("d", "p"), "d = Sub (s, c)" + qcfs("d", "p"), "low", "p"),
        ),
        4,
    ),
    "a condition that depends on spikes": (
        qcfs("x", "s") + "mean = ReduceMean <keepdims = 0> (s) yes = Greater (mean, half)"
        + branches(qcfs("s", "p"), "p = Conv (s, w)"),
        2,
    ),
}  # fmt: skip


_ENDS_ON_NESTED = tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 23)


def test_nested_neurons_are_refused_where_onnxruntime_would_end_the_process(monkeypatch):
    result = rewrite(network(NETWORKS["branches within branches"][0]))
    monkeypatch.setattr(onnxruntime, "__version__", "1.22.1")
    stock = partial(stock_session, providers=["CPUExecutionProvider"], options=onnxruntime.SessionOptions())
    for opened in (session, stock):
        assert refusal_of(opened, result.model) == (
            "onnxruntime 1.22.1 cannot run neurons in a branch within a branch; install onnxruntime 1.23 or later"
        )
    nodes, activations = NETWORKS["an activation as output of each branch"]
    assert len(rewrite(network(nodes)).plan.neurons) == activations
    session(rewrite(network(nodes)).model)


ALONE_READ = f"{CONDITION} c = Conv (x, w)" + branches("p = Relu (c)", "p = Neg (c)", output="z")


@pytest.mark.parametrize("opened", [session, partial(stock_session, providers=["CPUExecutionProvider"])])
def test_convolutions_that_a_branch_alone_reads_are_computed(opened):
    """Before version 1.23 onnxruntime ends the process on such a model."""
    model = network(f"{ALONE_READ} y = Identity (z)")
    runner = opened(model, options=onnxruntime.SessionOptions())
    for x in INPUTS:
        (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
        np.testing.assert_array_equal(runner.run(None, {"x": x})[0], expected)


@pytest.mark.parametrize(
    "nodes, oldest",
    [
        (ALONE_READ + qcfs("z", "y"), "1.23"),
        (NETWORKS["branches within branches"][0], "1.23"),
        (NETWORKS["an activation as output of each branch"][0], "1.20"),
        ("c = Conv (x, w)" + qcfs("c", "y"), "1.20"),
    ],
)
def test_bundles_ask_for_an_onnxruntime_that_does_not_end_the_process(nodes, oldest, tmp_path):
    deploy(rewrite(network(nodes)).model, tmp_path / "bundle")
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    assert manifest["onnxruntime"] == f">={oldest}"


@pytest.mark.parametrize("nodes, activations", NETWORKS.values(), ids=NETWORKS.keys())
def test_branches_are_converted_without_loss(nodes, activations):
    source = network(nodes)
    if nodes is NETWORKS["branches within branches"][0] and _ENDS_ON_NESTED:
        pytest.skip(f"onnxruntime {onnxruntime.__version__} ends the process on functions in a branch within a branch")
    model = assert_lossless(source, activations)
    for x in INPUTS:
        assert verify(source, model, {"x": x}, atol=0).differences == []


def test_neurons_in_a_branch_hand_spikes_on_there():
    nodes, _ = NETWORKS["spikes within a branch"]
    model = rewrite(network(nodes)).model
    (otherwise,) = (graph for graph in every_graph(model.graph) if graph.name == "else_branch")
    assert [node.op_type for node in otherwise.node] == [
        "ParallelSpike", "Conv", "Add", "ParallelSpike", "Neg", "TemporalMean",
    ]  # fmt: skip
    taken = [[a.i for a in node.attribute if a.name == "input_steps"] for node in filter(is_operator, otherwise.node)]
    assert taken == [[1], [4]]


def test_constants_that_only_activations_of_branches_used_go():
    given = {name: f"{name} = Constant <value_float = {value}> ()" for name, value in CONSTANTS.items()}
    zero = given.pop("zero")
    around, inside = " ".join(list(given.values())[:2]), " ".join(list(given.values())[2:])
    nodes = around + zero + CONDITION + branches(inside + qcfs("x", "p"), "p = Neg (x)")
    model = assert_lossless(network(nodes), 1)
    assert [node.output[0] for node in every_node(model.graph) if node.op_type == "Constant"] == ["zero"]


def test_names_are_unique_over_the_whole_model():
    """Both branches have tensors of the same names."""
    nodes = CONDITION + branches(qcfs("x", "p"), "h = Neg (x)" + qcfs("h", "p"))
    result = rewrite(network(nodes))
    made = [name for graph in every_graph(result.model.graph) for node in graph.node for name in node.output]
    held = [tensor.name for graph in every_graph(result.model.graph) for tensor in graph.initializer]
    nodes_called = [node.name for node in every_node(result.model.graph) if node.name]
    for names in (made + held, nodes_called):
        assert len(set(names)) == len(names)
    rows = json.loads(next(e.value for e in result.model.metadata_props if e.key == "pconv_onnx.activations"))
    neurons = {node.name: node for node in every_node(result.model.graph) if is_operator(node)}
    for row in rows:
        assert neurons[row["node"]].input[0] == row["input"]
        assert row["output"] in load(result.model).names


def test_patterns_choose_activations_of_branches():
    nodes = CONDITION + branches(qcfs("x", "p"), "h = Neg (x)" + qcfs("h", "p"))
    names = [row["name"] for row in inspect(network(nodes))["activations"]]
    assert len(set(names)) == 2
    assert_lossless(network(nodes), 1, include=[names[0]])
    assert_lossless(network(nodes), 1, exclude=[names[0]])


@pytest.mark.parametrize("steps", [1, 3, 8])
def test_branches_run_for_any_number_of_steps(steps):
    source = network(NETWORKS["tensors in time around the branches"][0])
    parallel, folded = (rewrite(source, mode=mode, steps=steps).model for mode in MODES)
    for x in INPUTS:
        one, other = (session(model).run(None, {"x": x})[0] for model in (parallel, folded))
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_quantised_weights_in_a_branch_are_no_activations():
    scales = {"s": 0.25, "t": 0.5, "zero8": np.array(0, np.uint8), "signed": np.array(0, np.int8)}
    nodes = CONDITION + branches(
        "q = QuantizeLinear (x, t, zero8) a = DequantizeLinear (q, t, zero8) "
        "v = QuantizeLinear (w, s, signed) u = DequantizeLinear (v, s, signed) p = Conv (a, u)",
        "p = Neg (x)",
    )
    source = network(nodes, scales)
    assert [row["encoding"] for row in inspect(source)["activations"]] == ["qdq"]
    assert_lossless(source, 1)


def test_a_quantiser_that_is_repeated_in_a_branch_becomes_one_neuron():
    nodes = CONDITION + branches(
        "q = QuantizeLinear (x, t, zero8) a = DequantizeLinear (q, t, zero8) "
        "r = QuantizeLinear (x, t, zero8) b = DequantizeLinear (r, t, zero8) c = Conv (a, w) p = Add (b, c)",
        "p = Neg (x)",
    )
    assert_lossless(network(nodes, {"t": 0.5, "zero8": np.array(0, np.uint8)}), 1)


def test_quantisers_of_qonnx_in_a_branch_are_converted_or_written_out():
    quant = (
        'qonnx.custom_op.general.Quant <signed = {signed}, narrow = 0, rounding_mode = "ROUND"> ({data}, t, zero, bits)'
    )
    body = f"a = {quant.format(signed=0, data='x')} v = {quant.format(signed=1, data='w')} p = Conv (a, v)"
    text = CONDITION + branches(body, "p = Neg (x)")
    imports = '<ir_version: 10, opset_import: ["" : 20, "qonnx.custom_op.general" : 1]>'
    model = onnx.parser.parse_model(f"{imports} test ({SHAPE} x) => ({SHAPE} y) {{ {text} }}")
    for name, value in {**WEIGHTS, "t": 0.5, "zero": 0.0, "bits": 4.0}.items():
        if name != "below":
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
    result = rewrite(model)
    assert len(result.plan.neurons) == 1
    assert {node.domain for node in every_node(result.model.graph)} == {"", "pconv"}
    assert verify(model, result.model, {"x": INPUTS[0]}, atol=0).differences == []


def loop(nodes: str, start: str = "x") -> str:
    """A Loop of three passes over these nodes, from `a` to `p`."""
    return f"""
        three = Constant <value = int64 {{3}}> () go = Constant <value = bool {{1}}> ()
        y = Loop (three, go, {start}) <body = b (int64 i, bool c, {SHAPE} a) => (bool d, {SHAPE} p) {{
            d = Identity (c) {nodes}
        }}>
    """


def test_what_a_loop_repeats_is_refused_with_what_to_do():
    (row,) = inspect(network(loop(qcfs("a", "p"))))["activations"]
    assert row["status"] == "refused"
    assert row["reason"] == (
        "it is in the body of Loop 'y', which may run many times; export Loop 'y' unrolled to convert it"
    )
    inner = "m = ReduceMean <keepdims = 0> (a) e = Greater (m, zero) f = If (e) <"
    inner += f"then_branch = t () => ({SHAPE} g) {{ {qcfs('a', 'g')} }}, "
    inner += f"else_branch = e () => ({SHAPE} h) {{ h = Neg (a) }}>"
    (row,) = inspect(network(loop(f"{inner} p = Identity (f)")))["activations"]
    assert "it is in the body of If 'f', which may run many times; export Loop 'y' unrolled" in row["reason"]


def test_a_branch_that_declares_another_shape_than_its_quantiser_gives_is_not_converted():
    """Onnxruntime runs the source, whose last operator is its own, and no neuron in its place."""
    source = network(CONDITION + branches(qcfs("x", "p"), "p = Relu (x)"))
    assert_lossless(source, 1)
    output = next(node for node in source.graph.node if node.op_type == "If").attribute[0].g.output[0]
    output.type.tensor_type.shape.dim[2].dim_value = 7
    (row,) = [row for row in inspect(source)["activations"] if row["encoding"] == "qcfs"]
    assert row["status"] == "refused"
    assert row["reason"] == (
        "the body of If 'y' declares shape ['N', 3, 7, 4] for its output, and its input has ['N', 3, 4, 4]; "
        "correct the declaration"
    )


def test_a_scan_is_refused():
    nodes = f"""y = Scan <num_scan_inputs = 1, body = b (float[3, 4, 4] a) => (float[3, 4, 4] p) {{
        {qcfs("a", "p")} }}> (x)"""
    assert "it is in the body of Scan 'y'" in inspect(network(nodes))["activations"][0]["reason"]


def test_a_network_beside_a_loop_converts():
    assert_lossless(network(qcfs("x", "s") + loop("p = Add (a, s)", "s")), 1)


def test_serial_neurons_are_not_in_branches():
    source = network(
        qcfs("x", "s") + branches("p = Neg (x)", qcfs("x", "p"), "yes", "z").join([CONDITION, "y = Add (s, z)"])
    )
    result = rewrite(source, mode="serial")
    reasons = [row["reason"] for row in result.summary()["activations"] if row["status"] == "refused"]
    assert reasons == [
        "it is in the body of If 'z', where no membrane potential can be kept; modes 'parallel' and 'folded' convert it"
    ]
    nodes, _ = NETWORKS["tensors in time around the branches"]
    assert "If 'z' needs the temporal mean of 's'" in refusal_of(rewrite, network(nodes), mode="serial")


def test_an_analog_activation_in_a_branch_is_between_neurons():
    nodes = qcfs("x", "s") + CONDITION + branches("p = Relu (s)", "p = Tanh (s)", output="z") + qcfs("z", "y")
    summary = inspect(network(nodes))
    names = {row["encoding"]: row["name"] for row in summary["activations"] if row["status"] != "converted"}
    assert set(summary["hybrid"]) == set(names.values())
    assert (
        inspect(network(CONDITION + branches("p = Tanh (x)", "p = Neg (x)", output="z") + qcfs("z", "y")))["hybrid"]
        == []
    )


def test_half_precision_takes_branches():
    source = network(NETWORKS["tensors in time around the branches"][0])
    model = rewrite(source, precision="float16").model
    for x in INPUTS:
        result = verify(source, model, {"x": x})
        assert result.differences == []
        # On this grid float16 is exact.
        assert result.unoptimised.max_abs_diff == 0


def test_a_wrong_neuron_in_a_branch_is_found_where_samples_get_to_it():
    nodes = CONDITION + branches("h = Neg (x)" + qcfs("h", "p"), "h = Conv (x, w)" + qcfs("h", "p"))
    source = network(nodes)
    model = rewrite(source).model
    (otherwise,) = (graph for graph in every_graph(model.graph) if graph.name == "else_branch")
    (table,) = (
        tensor
        for tensor in otherwise.initializer
        if tensor.name.endswith("/thresholds") and "decode" not in tensor.name
    )
    table.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(table) + 1, table.name))
    taken, other = (verify(source, model, {"x": x}) for x in (INPUTS[0], INPUTS[2]))
    assert taken.differences == []
    assert [layer.count_mismatch_rate for layer in taken.layers] == [0, None]
    assert other.passed is False
    assert [layer.count_mismatch_rate is None for layer in other.layers] == [True, False]


def test_statistics_count_neurons_of_branches_on_the_samples_that_get_there():
    nodes = CONDITION + branches(qcfs("x", "p"), "h = Conv (x, w)" + qcfs("h", "p"))
    source = network(nodes)
    firing = session(source).run(None, {"x": INPUTS[0]})[0].mean() / CONSTANTS["theta"]
    for mode in MODES:
        entered, skipped = stats(rewrite(source, mode=mode).model, {"x": INPUTS[0]}).summary()["layers"]
        assert entered["firing_rate"] == pytest.approx(firing)
        assert (entered["neurons"], entered["channels"]) == (48, 3)
        assert (skipped["neurons"], skipped["channels"], skipped["firing_rate"]) == (0, 0, None)
        assert skipped["example_counts"] == []


def test_a_relu_in_a_branch_is_not_calibrated():
    nodes = "r = Relu (x)" + CONDITION + branches("p = Relu (x)", "p = Neg (r)")
    result = calibrate(network(nodes), {"x": INPUTS[0]}, steps=4)
    assert [reason for _, reason in result.left] == ["it is in the body of If 'y', where nothing is calibrated"]


def test_what_is_kept_of_a_list_stays_in_order_and_is_not_copied():
    graph = onnx.GraphProto(node=[onnx.NodeProto(name=name) for name in "abcabc"])
    kept = [graph.node[index] for index in (1, 2, 4)]
    keep(graph.node, kept)
    assert [node.name for node in graph.node] == ["b", "c", "b"]
    assert all(node is other for node, other in zip(graph.node, kept, strict=True))
