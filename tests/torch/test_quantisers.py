"""Quantised activations of PyTorch, exported by both exporters and converted bit by bit."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings

import numpy as np
import onnx
import pytest
import torch
from harness import assert_converted, found, onnxruntime_of, own_part
from quantisers import (
    ROUNDINGS,
    Affine,
    DoReFa,
    Lsq,
    LsqOfBatch,
    LsqPlus,
    Pact,
    PactAbsolute,
    PactMinimum,
    PactWhere,
    Quantiser,
    SignedLsq,
)
from torch import nn

from pconv_onnx import inspect, rewrite, verify

EXPORTERS = ("dynamo", "torchscript")


def exported(module: nn.Module, x: torch.Tensor, exporter: str) -> onnx.ModelProto:
    """The model of one input and one output, with an open batch."""
    module.eval()
    common = {"input_names": ["x"], "output_names": ["y"]}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        if exporter == "dynamo":
            shapes = ({0: torch.export.Dim("batch")},)
            program = torch.onnx.export(
                module, (x,), dynamo=True, verbose=False, opset_version=20, dynamic_shapes=shapes, **common
            )
            return program.model_proto
        file = io.BytesIO()
        axes = {"x": {0: "batch"}, "y": {0: "batch"}}
        torch.onnx.export(module, (x,), file, dynamo=False, opset_version=17, dynamic_axes=axes, **common)
        return onnx.load_model_from_string(file.getvalue())


def quantiser(module: Quantiser, exporter: str) -> onnx.ModelProto:
    return exported(module, torch.zeros(2, 3, 1, 1), exporter)


UNSIGNED = (Lsq, Pact, PactMinimum, PactWhere, DoReFa, LsqPlus, Affine)


@pytest.mark.every_pair(
    {
        "kind": [pytest.param(kind, id=kind.__name__) for kind in UNSIGNED],
        "bits, channels": [(2, 1), (4, 3), (8, 1)],
        "exporter": EXPORTERS,
    }
)
def test_quantisers_are_converted_bit_by_bit(kind, bits, channels, exporter):
    # ONNX has no Clip with a bound per channel: exporters write a Max and a Min, as PactMinimum does.
    channels = 1 if kind is Pact else channels
    part = own_part(quantiser(kind(bits, channels=channels), exporter))
    # Of what overflows, a straight-through rounding makes a NaN.
    limit = 1e30 if kind is Affine else np.inf
    for mode in ("parallel", "folded"):
        assert_converted(part, onnxruntime_of(part), mode, levels=2**bits - 1, limit=limit)


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_every_spelling_of_the_gradient_is_converted(rounding, exporter):
    source = quantiser(Lsq(rounding=rounding), exporter)
    assert_converted(source, onnxruntime_of(source), "parallel", levels=15)


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_a_scale_that_is_computed_from_the_batch_stays_outside(exporter):
    source = quantiser(LsqOfBatch(), exporter)
    (activation,) = found(source)
    assert activation.op_types == ["Clip", "Round"]
    part = own_part(source)
    assert_converted(part, onnxruntime_of(part), "parallel", levels=15)


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_signed_values_are_converted_bit_by_bit(exporter):
    source = quantiser(SignedLsq(), exporter)
    assert assert_converted(source, onnxruntime_of(source), "parallel", levels=15).coding.signed


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_the_formula_of_pact_is_refused_since_floats_do_not_clip_by_it(exporter):
    source = quantiser(PactAbsolute(), exporter)
    reasons = [row["reason"] for row in inspect(source)["activations"]]
    assert any("is no clip for every float: export clamp(x, 0, α) instead" in reason for reason in reasons)
    huge = np.full((1, 3, 1, 1), 1e12, dtype=np.float32)
    assert onnxruntime_of(source)(huge).max() < 1  # half of α


class Network(nn.Module):
    """Two convolutions with a batch norm, a residual sum, a pooling and a head; each activation of another kind."""

    def __init__(self, *kinds: type[Quantiser]) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(2))
        self.first, self.second = (kind(4) for kind in kinds)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(self.norms[0](self.stem(x)))
        x = self.second(self.norms[1](self.conv(x)) + x)
        return self.head(nn.functional.max_pool2d(x, 2).mean((2, 3)))


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("kinds", [(Lsq, PactMinimum), (DoReFa, LsqPlus), (Affine, Pact)])
def test_networks_are_converted(kinds, exporter):
    torch.manual_seed(0)
    source = exported(Network(*kinds), torch.zeros(2, 3, 8, 8), exporter)
    x = np.random.default_rng(0).standard_normal((50, 3, 8, 8)).astype(np.float32)
    for mode in ("parallel", "folded"):
        result = rewrite(source, mode=mode, strict=True)
        assert list(result.plan.neurons) == ["first", "second"]
        verification = verify(source, result.model, {"x": x})
        assert verification.passed
        assert verification.unoptimised.agreeing >= 49


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_what_is_refused_leaves_the_rest_converted(exporter):
    source = exported(Network(PactAbsolute, Lsq), torch.zeros(2, 3, 8, 8), exporter)
    statuses = {row["name"]: row["status"] for row in inspect(source)["activations"]}
    assert statuses == {"first": "refused", "second": "converted"}
    assert list(rewrite(source).plan.neurons) == ["second"]
