"""QCFS as a module: values, gradients, thresholds from data, state."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from refusals import refusal_of
from torch import nn

from pconv_onnx.torch import QCFS


def formula(x: np.ndarray, threshold: np.ndarray | float, levels: int) -> np.ndarray:
    return threshold * np.clip(np.floor(x / threshold * levels + 0.5) / levels, 0, 1)


def away_from_steps(threshold: float, levels: int, *shape: int) -> torch.Tensor:
    """Inputs from below 0 to above θ, none near a step."""
    x = torch.rand(*shape, generator=torch.manual_seed(0)) * 3 * threshold - threshold
    share = (x / threshold * levels + 0.5) % 1
    return x + (0.5 - share) * 0.2 * threshold / levels


@given(st.integers(1, 256), st.floats(0.01, 100))
def test_it_computes_the_formula(levels, threshold):
    x = away_from_steps(threshold, levels, 5, 7).double()
    module = QCFS(levels, threshold).double()
    theta = module.threshold.item()
    np.testing.assert_allclose(module(x).detach(), formula(x.numpy(), theta, levels), rtol=1e-12)


@pytest.mark.parametrize("levels", [1, 4, 8])
def test_gradients_are_those_of_the_formula_with_its_rounding_error_held(levels):
    """Straight through the floor: finite differences of the formula in which ⌊u⌋ − u does not change."""
    theta = 1.7
    module = QCFS(levels, theta).double()
    theta = module.threshold.item()
    x = away_from_steps(theta, levels, 400).double()
    code = np.floor(x.numpy() / theta * levels + 0.5)
    error = code - (x.numpy() / theta * levels + 0.5)

    def surrogate(x, theta):
        return theta * np.clip((x / theta * levels + 0.5 + error) / levels, 0, 1)

    # At the ends of the clip, where the surrogate has two slopes, the inner one holds.
    smooth = (code != 0) & (code != levels)
    x.requires_grad_()
    each = torch.autograd.grad(module(x).sum(), x, retain_graph=True)[0].numpy()
    values, step = x.detach().numpy(), 1e-6
    in_x = (surrogate(values + step, theta) - surrogate(values - step, theta)) / (2 * step)
    in_theta = (surrogate(values, theta + step) - surrogate(values, theta - step)) / (2 * step)
    np.testing.assert_allclose(each[smooth], in_x[smooth], atol=1e-6)
    assert (each[~smooth] == 1).all()
    assert {0.0, 1.0} == set(each)
    y = module(x)
    by_value = [torch.autograd.grad(value, module.threshold, retain_graph=True)[0].item() for value in y]
    np.testing.assert_allclose(np.array(by_value)[smooth], in_theta[smooth], atol=1e-6)
    inside = ((y.detach() - x.detach()) / theta).numpy()
    np.testing.assert_allclose(np.array(by_value)[~smooth], inside[~smooth], atol=1e-9)


def test_each_channel_has_its_threshold_and_its_gradient():
    thresholds = torch.tensor([0.5, 1.0, 2.0]).reshape(3, 1, 1)
    module = QCFS(4, thresholds, shape=(3, 1, 1))
    x = away_from_steps(2.0, 4, 2, 3, 5, 5)
    y = module(x)
    np.testing.assert_allclose(y.detach(), formula(x.numpy(), thresholds.numpy(), 4), rtol=1e-6)
    y.sum().backward()
    for channel in range(3):
        alone = QCFS(4, thresholds[channel].item())
        alone(x[:, channel]).sum().backward()
        torch.testing.assert_close(module.threshold.grad[channel].flatten(), alone.threshold.grad)


@pytest.mark.parametrize("levels, at_least, at_most", [(1, 1.2, 2.5), (4, 1.8, 3.0), (64, 2.9, 3.5)])
def test_the_first_threshold_grows_with_levels_and_bears_outliers(levels, at_least, at_most):
    x = torch.randn(64, 1000, generator=torch.manual_seed(0))
    module = QCFS(levels)
    module(x)
    clean = module.threshold.item()
    assert at_least < clean < at_most
    x[0, 0] = 300
    module = QCFS(levels)
    module(x)
    assert module.threshold.item() == pytest.approx(clean, rel=0.01)


def test_no_other_candidate_fits_the_first_batch_better():
    x = torch.randn(16, 8, 9, 9, generator=torch.manual_seed(1))
    module = QCFS(4)
    module(x)

    def error(threshold):
        counted = x.numpy().clip(None, np.quantile(x, 0.999))
        return float((np.abs(formula(counted, threshold, 4) - counted.clip(0)) ** 3).mean())

    best = min(map(error, np.linspace(0.1, x.max().item(), 200)))
    assert error(module.threshold.item()) < 1.05 * best


def test_first_thresholds_are_each_channels_own():
    x = torch.randn(8, 2, 20, 20, generator=torch.manual_seed(0)) * torch.tensor([1.0, 10.0]).reshape(2, 1, 1)
    module = QCFS(4, shape=(2, 1, 1))
    module(x)
    small, large = module.threshold.flatten().tolist()
    assert 7 < large / small < 14
    features = QCFS(4, shape=(2,))
    features(x.mean((2, 3)))
    assert features.threshold.shape == (2,)


def test_a_channel_that_never_fires_gets_a_threshold_of_the_others_size():
    x = torch.rand(8, 2, 20, 20) - torch.tensor([0.0, 5.0]).reshape(2, 1, 1)
    module = QCFS(4, shape=(2, 1, 1))
    module(x)
    assert (module.threshold > 0.3).all()
    module = QCFS(4)
    module(-torch.rand(3, 3))
    assert module.threshold.item() > 0


def test_only_the_first_batch_sets_the_threshold():
    module = QCFS(4)
    module(torch.rand(4, 4))
    first = module.threshold.item()
    module(10 * torch.rand(4, 4))
    assert module.threshold.item() == first


def test_setting_it_explicitly_needs_no_training_mode():
    module = QCFS(4).eval()
    module.initialise(torch.rand(4, 4))
    assert module(torch.ones(1)).item() == module.threshold.item()


def test_without_a_threshold_evaluation_is_refused():
    assert "a QCFS has no threshold yet; run the model on data in training mode" in refusal_of(
        QCFS(4).eval(), torch.ones(1)
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"levels": 0}, "0 is not a number of levels; choose a whole number from 1 to 256"),
        ({"levels": 257}, "257 is not a number of levels"),
        ({"levels": 4.0}, "4.0 is not a number of levels"),
        ({"levels": 4, "threshold": 0.0}, "not positive and finite"),
        ({"levels": 4, "threshold": float("inf")}, "not positive and finite"),
        ({"levels": 4, "threshold": float("nan")}, "not positive and finite"),
        ({"levels": 4, "threshold": torch.ones(3)}, "the threshold has shape [3], not [1]; pass shape as well"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    assert message in refusal_of(QCFS, **arguments)


@pytest.mark.parametrize(
    "shape, x, message",
    [
        ((1,), torch.tensor([1.0, float("nan")]), "have a NaN or an infinity"),
        ((3, 1, 1), torch.ones(2, 4, 5, 5), "inputs of shape [2, 4, 5, 5] do not fit QCFS(levels=4, shape=(3, 1, 1))"),
        ((3, 1, 1), torch.ones(3, 5, 5), "do not fit"),
    ],
)
def test_data_that_cannot_set_a_threshold_are_refused(shape, x, message):
    assert message in refusal_of(QCFS(4, shape=shape), x)


def test_a_bad_step_of_the_optimiser_leaves_the_threshold_positive():
    module = QCFS(4, 1.0)
    optimizer = torch.optim.SGD(module.parameters(), lr=1e4)
    module(torch.full((8,), 5.0)).sum().backward()
    optimizer.step()
    assert module.threshold.item() < 0
    module(torch.ones(2))
    assert module.threshold.item() > 0
    optimizer.step()
    module.eval()
    assert module.threshold.item() > 0


def test_a_module_called_twice_has_the_sum_of_both_gradients():
    module, x = QCFS(4, 1.0), torch.rand(10)
    module(module(x) + x).sum().backward()
    assert torch.isfinite(module.threshold.grad).all()


def test_gradients_flow_in_evaluation_too():
    module, x = QCFS(4, 1.0).eval(), torch.full((3,), 0.5, requires_grad=True)
    module(x).sum().backward()
    assert x.grad.tolist() == [1, 1, 1]


@pytest.mark.parametrize("initialised", [True, False])
def test_a_state_says_whether_there_is_a_threshold(initialised):
    source = QCFS(4, 1.5 if initialised else None)
    target = QCFS(4, None if initialised else 1.5)
    target.load_state_dict(source.state_dict())
    assert target.initialised == initialised
    assert copy.deepcopy(target).initialised == initialised
    if initialised:
        assert target.eval()(torch.tensor([2.0])).item() == 1.5
    else:
        target(torch.rand(10))
        assert target.initialised and not source.initialised


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_element_types_set_train_and_quantise(dtype):
    model = nn.Sequential(nn.Linear(4, 4), QCFS(4)).to(dtype)
    x = torch.randn(32, 4, generator=torch.manual_seed(0)).to(dtype)
    model(x).sum().backward()
    assert model[1].threshold.dtype == model[1].threshold.grad.dtype == dtype
    y = model.eval()(x)
    assert y.dtype == dtype
    codes = y.double() / model[1].threshold.double() * 4
    assert (codes - codes.round()).abs().max() < 0.02
    assert set(codes.round().flatten().tolist()) <= {0, 1, 2, 3, 4}


def test_a_network_trained_in_float32_runs_in_half_precision():
    model = nn.Sequential(nn.Linear(4, 4), QCFS(4))
    model(torch.randn(32, 4))
    half = copy.deepcopy(model).half().eval()
    assert half(torch.randn(2, 4).half()).dtype == torch.float16
    assert half[1].threshold.item() == pytest.approx(model[1].threshold.item(), rel=1e-3)


@pytest.mark.parametrize("below", [-1, 257, 1.5])
def test_a_number_of_levels_below_zero_that_cannot_be_is_told(below):
    told = f"{below} is not a number of levels below zero; choose a whole number from 0 to 256"
    assert refusal_of(QCFS, 4, 1.0, below=below) == told
