"""What PyTorch exports of its own quantisation: fake quantisers, converted modules and decomposed operators."""

from __future__ import annotations

import io

import onnx
import pytest
import torch
from harness import assert_converted, onnxruntime_of
from networks import MODES

from pconv_onnx import rewrite, verify

# PyTorch is moving it to a package of its own.
tq = pytest.importorskip("torch.ao.quantization")
quantize_fx = pytest.importorskip("torch.ao.quantization.quantize_fx")
pytestmark = pytest.mark.filterwarnings("ignore")


def exported(model: torch.nn.Module, x: torch.Tensor, *, dynamo: bool, opset: int) -> onnx.ModelProto:
    model.eval()
    target = io.BytesIO()
    batch = {"dynamic_shapes": ({0: torch.export.Dim("N")},)} if dynamo else {"dynamic_axes": {"x": {0: "N"}}}
    torch.onnx.export(model, (x,), target, dynamo=dynamo, opset_version=opset, input_names=["x"], output_names=["y"],
                      **batch)  # fmt: skip
    return onnx.load_from_string(target.getvalue())


class FakeQuantised(torch.nn.Module):
    """A function of torch after a ReLU."""

    def __init__(self, low: int, high: int, per_channel: bool = False) -> None:
        super().__init__()
        self.range = low, high
        self.per_channel = per_channel
        self.register_buffer("scale", torch.tensor([0.013, 0.4, 2.3] if per_channel else 0.0237))
        self.register_buffer("zero", torch.zeros(self.scale.shape, dtype=torch.int32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(x)
        if self.per_channel:
            return torch.fake_quantize_per_channel_affine(x, self.scale, self.zero, 1, *self.range)
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero, *self.range)


class Observed(torch.nn.Module):
    """A module of torch.ao.quantization after a ReLU, its scale taken from random data."""

    def __init__(self, observer, **options) -> None:
        super().__init__()
        self.quantise = tq.FakeQuantize.with_args(observer=observer, **options)()
        self(torch.randn(64, 3, 1, 1, generator=torch.Generator().manual_seed(0)))
        self.quantise.disable_observer()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.quantise(torch.relu(x))


class Decomposed(torch.nn.Module):
    """The operators that a graph of torch's compiler is quantised with."""

    def __init__(self, per_channel: bool, low: int = 0, high: int = 255) -> None:
        super().__init__()
        self.range = low, high, torch.uint8
        self.per_channel = per_channel
        self.register_buffer("scale", torch.tensor([0.013, 0.4, 2.3]))
        self.register_buffer("zero", torch.zeros(3, dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        operators = torch.ops.quantized_decomposed
        x = torch.relu(x)
        if self.per_channel:
            constants = (self.scale, self.zero, 1, *self.range)
            return operators.dequantize_per_channel(operators.quantize_per_channel(x, *constants), *constants)
        constants = (0.0237, 0, *self.range)
        return operators.dequantize_per_tensor(operators.quantize_per_tensor(x, *constants), *constants)


ACTIVATIONS = {
    "function, uint8": (lambda: FakeQuantised(0, 255), 255, False),
    "function, 7 bits": (lambda: FakeQuantised(0, 127), 127, False),
    "function, int8": (lambda: FakeQuantised(-128, 127), 127, False),
    "function per channel, uint8": (lambda: FakeQuantised(0, 255, per_channel=True), 255, False),
    "function per channel, 7 bits": (lambda: FakeQuantised(0, 127, per_channel=True), 127, False),
    "function per channel, int8": (lambda: FakeQuantised(-128, 127, per_channel=True), 127, False),
    "module, uint8": (
        lambda: Observed(tq.MovingAverageMinMaxObserver, quant_min=0, quant_max=255, dtype=torch.quint8), 255, False),
    "module, 7 bits": (
        lambda: Observed(tq.MovingAverageMinMaxObserver, quant_min=0, quant_max=127, dtype=torch.quint8), 127, False),
    "module, int8": (
        lambda: Observed(tq.MovingAverageMinMaxObserver, quant_min=-128, quant_max=127, dtype=torch.qint8,
                         qscheme=torch.per_tensor_symmetric), 127, False),
    "module per channel": (
        lambda: Observed(tq.MovingAveragePerChannelMinMaxObserver, quant_min=0, quant_max=255, dtype=torch.quint8,
                         ch_axis=1, qscheme=torch.per_channel_affine), 255, False),
    "decomposed": (lambda: Decomposed(per_channel=False), 255, True),
    "decomposed per channel": (lambda: Decomposed(per_channel=True), 255, True),
    "decomposed per channel, 4 bits": (lambda: Decomposed(per_channel=True, high=15), 15, True),
}  # fmt: skip


@pytest.mark.parametrize("case", ACTIVATIONS)
def test_activations_are_converted_bit_by_bit(case):
    make, levels, dynamo = ACTIVATIONS[case]
    for opset in (18, 21) if dynamo else (13, 17):
        source = exported(make(), torch.randn(2, 3, 1, 1), dynamo=dynamo, opset=opset)
        for mode in MODES:
            assert_converted(source, onnxruntime_of(source), mode, levels=levels)


class Network(torch.nn.Module):
    """A quantised activation with two readers, whose sum is quantised too, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.quantise, self.dequantise = tq.QuantStub(), tq.DeQuantStub()
        self.first, self.relu = torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()
        self.left, self.right = torch.nn.Conv2d(4, 4, 3), torch.nn.Conv2d(4, 4, 3)
        self.left_relu, self.right_relu = torch.nn.ReLU(), torch.nn.ReLU()
        self.sum = torch.ao.nn.quantized.FloatFunctional()
        self.classify = torch.nn.Linear(64, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.first(self.quantise(x)))
        x = self.sum.add(self.left_relu(self.left(x)), self.right_relu(self.right(x)))
        return self.dequantise(self.classify(torch.flatten(x, 1)))


FUSED = [["first", "relu"], ["left", "left_relu"], ["right", "right_relu"]]
X = torch.randn(20, 3, 8, 8, generator=torch.Generator().manual_seed(1))
QCONFIG = tq.QConfig(
    activation=tq.FakeQuantize.with_args(
        observer=tq.MovingAverageMinMaxObserver, quant_min=0, quant_max=127, dtype=torch.quint8
    ),
    weight=tq.FakeQuantize.with_args(
        observer=tq.MovingAveragePerChannelMinMaxObserver, quant_min=-128, quant_max=127, dtype=torch.qint8,
        qscheme=torch.per_channel_symmetric, ch_axis=0,
    ),
)  # fmt: skip


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def trained_with_fake_quantisers() -> onnx.ModelProto:
    model = tq.fuse_modules_qat(Network().train(), FUSED)
    model.qconfig = QCONFIG
    model = tq.prepare_qat(model)
    model(X)
    model.apply(tq.disable_observer)
    return exported(model, X, dynamo=False, opset=17)


def converted_module_by_module() -> onnx.ModelProto:
    model = tq.fuse_modules(Network().eval(), FUSED)
    model.qconfig = tq.get_default_qconfig("fbgemm")
    model = tq.prepare(model)
    model(X)
    return exported(tq.convert(model), X, dynamo=False, opset=17)


def converted_as_a_graph() -> onnx.ModelProto:
    model = quantize_fx.prepare_fx(Network().eval(), tq.get_default_qconfig_mapping("fbgemm"), (X,))
    model(X)
    return exported(quantize_fx._convert_to_reference_decomposed_fx(model), X, dynamo=True, opset=18)


@pytest.mark.parametrize("make, levels", [
    (trained_with_fake_quantisers, [127] * 6),
    (converted_module_by_module, [255] * 7),
    (converted_as_a_graph, [255] * 7),
])  # fmt: skip
def test_networks_are_converted(make, levels):
    """The input and the classifier are quantised as well, with a sign."""
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        pytest.skip("this PyTorch does not quantise with fbgemm")
    source = make()
    for mode in MODES:
        result = rewrite(source, mode=mode)
        rows = result.summary()["activations"]
        assert (
            [row["levels"] for row in rows if row["status"] == "converted"] == levels == [row["levels"] for row in rows]
        )
        assert sum(neuron.coding.signed for neuron in result.plan.neurons.values()) == 2
        assert verify(source, result.model, {"x": X.numpy()}).passed
