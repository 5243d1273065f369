"""Every ReLU gets a QCFS, or it is said why not."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from models import Block, Residual
from torch import nn

from pconv_onnx.torch import QCFS, replace_relu

CALIBRATE = "calibrate the exported ONNX network (pconv_onnx.calibrate gives it levels), or train with a ReLU"


def told(findings) -> list[tuple[str, str]]:
    return [(finding.name, finding.status) for finding in findings]


def thresholds(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, QCFS)]


def with_wide_levels(model: nn.Module) -> nn.Module:
    """So many levels up to so high a θ that a QCFS is a ReLU but for its rounding."""
    for module in model.modules():
        if isinstance(module, QCFS):
            module.levels = 2**14
            module.threshold.data.fill_(64.0)
    return model


def of(forward, **modules) -> nn.Module:
    """A module with that forward and those children."""
    model = type("Model", (nn.Module,), {"forward": forward})()
    for name, module in modules.items():
        setattr(model, name, module)
    return model


def test_each_call_of_a_relu_has_a_qcfs_of_its_own():
    model, findings = replace_relu(Residual(), 4)
    assert sorted(thresholds(model)) == sorted(Residual.names)
    assert sorted(finding.name for finding in findings if finding.status == "replaced") == sorted(Residual.names)
    model(torch.rand(4, 3, 8, 8))
    assert all(module.initialised for module in model.modules() if isinstance(module, QCFS))


@pytest.mark.parametrize("training", [True, False])
def test_all_but_the_relus_stays_as_it_is(training):
    source = Residual().train(training)
    source.layer1[0].bn1.eval()
    model, _ = replace_relu(source, 4)
    assert {name: m.training for name, m in source.named_modules()}.items() <= {
        name: m.training for name, m in model.named_modules()
    }.items()
    assert set(model.state_dict()) == set(source.state_dict()) | {f"{name}.threshold" for name in Residual.names}
    assert all(model.state_dict()[name] is not None for name in source.state_dict())
    assert {id(tensor) for tensor in source.parameters()} <= {id(tensor) for tensor in model.parameters()}
    assert not thresholds(source)
    assert isinstance(model, Residual) and isinstance(model.layer1[1], Block)
    checkpoint = Residual().state_dict()
    missing, unexpected = model.load_state_dict(checkpoint, strict=False)
    assert not unexpected and all(name.endswith(".threshold") for name in missing)
    assert torch.equal(model.layer1[0].conv1.weight, checkpoint["layer1.0.conv1.weight"])


def test_it_computes_what_the_relu_network_computes_but_for_levels():
    source = Residual().eval()
    model = with_wide_levels(replace_relu(source, 4)[0])
    x = torch.randn(8, 3, 8, 8)
    torch.testing.assert_close(model(x), source(x), atol=2e-2, rtol=0)


def test_a_traced_forward_follows_the_training_mode():
    model, _ = replace_relu(Residual(), 4)
    x = torch.rand(8, 3, 8, 8)
    model(x)
    for module in model.modules():
        module.training = isinstance(module, nn.BatchNorm2d) is False and module is model
    assert not torch.equal(model(x), model(x))  # dropout
    model.eval()
    assert torch.equal(model(x), model(x))


def test_a_copy_computes_the_same():
    model, _ = replace_relu(Residual(), 4)
    x = torch.rand(8, 3, 8, 8)
    model(x)
    model.eval()
    assert torch.equal(copy.deepcopy(model)(x), model(x))


@pytest.mark.parametrize(
    "forward, name",
    [
        (lambda self, x: F.relu(x), "relu"),
        (lambda self, x: F.relu(x, inplace=True), "relu"),
        (lambda self, x: torch.relu(x), "relu"),
        (lambda self, x: torch.relu_(x), "relu_"),
        (lambda self, x: x.relu(), "relu"),
        (lambda self, x: x.relu_(), "relu_"),
        (lambda self, x: torch.ops.aten.relu(x), "relu"),
        (lambda self, x: self.function(x), "relu"),
        (lambda self, x: self.function(input=x), "relu"),
    ],
)
def test_functions_and_methods_are_found(forward, name):
    source = of(forward)
    source.function = F.relu
    model, findings = replace_relu(source, 4)
    assert thresholds(model) == [name]
    assert (name, "replaced") in told(findings)
    y = with_wide_levels(model)(torch.tensor([-1.0, 0.5]))
    torch.testing.assert_close(y, torch.tensor([0.0, 0.5]), atol=1e-2, rtol=0)


@pytest.mark.parametrize(
    "forward",
    [
        lambda self, x: (x := x + 0, F.relu_(x), x * 2)[-1],
        lambda self, x: (x := x + 0, x.relu_(), x * 2)[-1],
        lambda self, x: (x := x + 0, self.relu(x), x * 2)[-1],
        lambda self, x: (x := x + 0, F.relu(x, True), x * 2)[-1],
        lambda self, x: (x := x + 0, self.relu(x) + x)[-1],
    ],
)
def test_what_read_a_value_after_an_in_place_relu_still_reads_the_result(forward):
    source = of(forward, relu=nn.ReLU(inplace=True))
    x = torch.tensor([-1.0, 0.5])
    model = with_wide_levels(replace_relu(source, 4)[0])
    torch.testing.assert_close(model(x), source(x), atol=1e-2, rtol=0)


def test_an_in_place_relu_on_the_input_of_its_module_is_warned_of():
    _, findings = replace_relu(nn.Sequential(nn.ReLU(inplace=True)), 4)
    assert any("changed the input" in finding.reason for finding in findings)


def test_one_relu_under_two_names_becomes_two():
    relu = nn.ReLU()
    model, _ = replace_relu(nn.Sequential(nn.Linear(2, 2), relu, nn.Linear(2, 2), relu), 4)
    assert thresholds(model) == ["1", "3"]
    assert model[1] is not model[3]


def test_a_block_that_is_called_twice_shares_its_qcfs_as_its_weights():
    block = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    model, _ = replace_relu(of(lambda self, x: self.block(self.block(x)), block=block), 4)
    assert thresholds(model) == ["block.1"]


def test_a_model_that_is_a_relu_becomes_a_qcfs():
    model, findings = replace_relu(nn.ReLU(), 4)
    assert isinstance(model, QCFS)
    assert told(findings) == [("", "replaced")]


def test_new_modules_take_element_type_and_names_that_are_free():
    source = of(lambda self, x: F.relu(self.relu(x)), relu=nn.Linear(2, 2)).double()
    model, _ = replace_relu(source, 4)
    (name,) = thresholds(model)
    assert name != "relu" and isinstance(model.relu, nn.Linear)
    assert model(torch.rand(3, 2).double()).dtype == torch.float64


class Branching(nn.Module):
    """Not traceable: its forward looks at its data."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x) if x.sum() > 0 else self.relu(x)


def under_no_grad(self, x):
    with torch.no_grad():
        x = x * 2
    return F.relu(x)


@pytest.mark.parametrize(
    "source, reason",
    [
        (Branching(), "torch.fx cannot trace its forward: symbolically traced variables cannot be used"),
        (of(lambda self, x: F.relu(x) if self.training else x), "branches on the training mode"),
        (of(under_no_grad), "no_grad or autocast"),
        (of(lambda self, x, mask=None: F.relu(x if mask is None else x * mask)), "optional argument 'mask'"),
    ],
)
def test_what_torch_fx_would_get_wrong_is_left_and_told(source, reason):
    model, findings = replace_relu(of(lambda self, x: self.inner(x), inner=source), 4)
    (unseen,) = [finding for finding in findings if finding.status == "unseen"]
    assert unseen.name == "inner" and reason in unseen.reason
    assert type(model.inner) is type(source)
    assert thresholds(model) == (["inner.relu"] if isinstance(source, Branching) else [])


@pytest.mark.parametrize(
    "forward, modules, name",
    [
        (lambda self, x: self.act(x), {"act": nn.Hardtanh(0.5, 2)}, "act"),
        (lambda self, x: F.hardtanh(x, -2, -1), {}, "hardtanh"),
        (lambda self, x: self.act(x), {"act": nn.LeakyReLU()}, "act"),
        (lambda self, x: self.act(x), {"act": nn.GELU()}, "act"),
        (lambda self, x: self.act(x), {"act": nn.SiLU()}, "act"),
        (lambda self, x: F.leaky_relu(x, 0.1), {}, "leaky_relu"),
        (lambda self, x: x.sigmoid(), {}, "sigmoid"),
        (lambda self, x: x.clamp(min=0), {}, "clamp"),
        (lambda self, x: torch.clamp(x, 0), {}, "clamp"),
        (lambda self, x: x.clamp_min(0), {}, "clamp_min"),
        (lambda self, x: self.act(x), {"act": nn.RNN(4, 4, nonlinearity="relu")}, "act"),
        (lambda self, x: self.act(x), {"act": nn.TransformerEncoderLayer(4, 2, 8)}, "act"),
        (lambda self, x: self.a(x), {"a": nn.TransformerEncoderLayer(4, 2, 8, activation=nn.ReLU())}, "a.activation"),
    ],
)  # fmt: skip
def test_other_activations_are_left_and_listed(forward, modules, name):
    model, findings = replace_relu(of(forward, **modules), 4)
    assert not thresholds(model)
    (finding,) = [finding for finding in findings if finding.name == name]
    assert finding.status == "left" and finding.reason.endswith((CALIBRATE, "write relu to have it replaced"))


@pytest.mark.parametrize(
    ("forward", "modules", "low", "high"),
    [
        (lambda self, x: self.act(x), {"act": nn.ReLU6()}, 0, 6),
        (lambda self, x: self.act(x), {"act": nn.ReLU6(inplace=True)}, 0, 6),
        (lambda self, x: self.act(self.act(x)), {"act": nn.ReLU6()}, 0, 6),
        (lambda self, x: self.act(x), {"act": nn.Hardtanh()}, -1, 1),
        (lambda self, x: self.act(x), {"act": nn.Hardtanh(-0.5, 2)}, -0.5, 2),
        (lambda self, x: self.act(x), {"act": nn.Hardtanh(0, 3)}, 0, 3),
        (lambda self, x: F.relu6(x), {}, 0, 6),
        (lambda self, x: F.relu6(x, inplace=True), {}, 0, 6),
        (lambda self, x: F.hardtanh(x), {}, -1, 1),
        (lambda self, x: F.hardtanh(x, -2.0, max_val=4.0), {}, -2, 4),
    ],
)
def test_bounds_are_kept(forward, modules, low, high):
    source = of(forward, **modules)
    model, findings = replace_relu(source, 8)
    assert {finding.status for finding in findings} == {"replaced"} and thresholds(model)
    x = torch.linspace(-8, 8, 1001)
    found, expected = model.eval()(x.clone()), source(x.clone())
    assert (found.min(), found.max()) == (low, high)
    torch.testing.assert_close(found, expected, atol=high / 16 + 1e-5, rtol=0)


def test_a_lower_bound_that_is_no_level_is_told():
    (finding,) = replace_relu(nn.Sequential(nn.Hardtanh(-0.7, 1)), 4)[1]
    assert str(finding) == "replaced: 0 (nn.Hardtanh): its lowest level is -0.75, and its lower bound was -0.7"


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (nn.Sequential(nn.Linear(2, 2)), "nothing was replaced in Sequential: it has no activation that is known"),
        (
            nn.Sequential(nn.GELU()),
            r"nothing was replaced in Sequential; left: 0 \(GELU\): it is not a ReLU;",
        ),
    ],
)
def test_where_nothing_is_replaced_it_is_said(model, told):
    with pytest.warns(UserWarning, match=told):
        replace_relu(model, 4)


def test_clamps_that_are_no_relu_are_not_listed():
    _, findings = replace_relu(of(lambda self, x: x.clamp(0, 1) + x.clamp(min=-1)), 4)
    assert not findings


def test_a_finding_says_where_what_and_why():
    _, findings = replace_relu(nn.Sequential(nn.ReLU(), nn.GELU()), 4)
    assert list(map(str, findings)) == ["replaced: 0 (nn.ReLU)", f"left: 1 (GELU): it is not a ReLU; {CALIBRATE}"]
