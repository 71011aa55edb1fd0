"""Losses under PyTorch's automatic differentiation."""

import exact
import mpmath as mp
import numpy as np
import pytest
import torch
from page_examples import examples

from deepbures import BuresWasserstein, DeepLinearNetwork, Frobenius
from deepbures.torch import covariance_loss

DIMENSION = 6
LOSSES = pytest.mark.parametrize(
    "loss",
    [
        BuresWasserstein(np.diag([4.0, 2, 2, 1, 0.5, 0.1]), 0.1),
        BuresWasserstein(np.diag([4.0, 2, 2, 1, 0.5, 0.1])),
        BuresWasserstein(np.diag([4.0, 2, 2, 1, 0, 0]), 0.1),
        Frobenius(np.diag([4.0, 2, 2, 1, 0.5, 0.1])),
    ],
    ids=["smoothed", "unsmoothed", "singular target", "square"],
)


def tensor(array):
    return torch.tensor(array, requires_grad=True)


@LOSSES
@pytest.mark.parametrize("columns", [2, 6, 9])
def test_derivatives_are_those_of_finite_differences(rng, loss, columns):
    W = tensor(rng.standard_normal((2, DIMENSION, columns)))
    assert torch.autograd.gradcheck(lambda W: covariance_loss(loss, W), W)
    assert torch.autograd.gradgradcheck(lambda W: covariance_loss(loss, W), W)


@LOSSES
@pytest.mark.parametrize("columns", [2, 6, 9])
def test_values_and_derivatives_are_the_closed_forms(rng, loss, columns):
    W, V = rng.standard_normal((2, 3, DIMENSION, columns))
    point = tensor(W)
    value = covariance_loss(loss, point)
    (gradient,) = torch.autograd.grad(value.sum(), point, create_graph=True)
    (product,) = torch.autograd.grad(gradient, point, torch.from_numpy(V))
    np.testing.assert_array_equal(value.detach(), loss.value(W))
    np.testing.assert_array_equal(gradient.detach(), loss.gradient(W))
    np.testing.assert_array_equal(product, loss.hessian_product(W, V))


@pytest.mark.parametrize("rank", [1, 3, 6])
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_gradient_at_any_rank_to_ten_digits(rng, make_target, rank, epsilon):
    target = make_target([4, 2, 2, 1, 0.5, 0.1])
    W, V = rng.standard_normal((2, DIMENSION, rank))
    point = tensor(W)
    covariance_loss(BuresWasserstein(target, epsilon), point).backward()
    with mp.workdps(exact.DIGITS):
        h = mp.mpf(10) ** -20
        plus, minus = (
            exact.squared_distance(exact.low_rank(mp.matrix(W) + s * h * mp.matrix(V), epsilon), target)
            for s in (1, -1)
        )
        slope = float((plus - minus) / (2 * h))
    assert float(torch.sum(point.grad * torch.from_numpy(V))) == pytest.approx(slope, rel=1e-10)


@LOSSES
def test_gradients_of_layers(rng, loss):
    shapes = ((4, 5), (3, 4), (DIMENSION, 3))
    layers = [tensor(rng.standard_normal(shape)) for shape in shapes]
    covariance_loss(loss, layers[2] @ layers[1] @ layers[0]).backward()
    network = DeepLinearNetwork([layer.detach().numpy() for layer in layers])
    expected = network.layer_gradients(loss.gradient(network.end_to_end()))
    for layer, gradient in zip(layers, expected, strict=True):
        np.testing.assert_allclose(layer.grad, gradient, rtol=1e-10, atol=1e-12)


def test_second_derivatives_of_layers_with_a_bottleneck(rng):
    loss = BuresWasserstein(np.diag([4.0, 2, 2, 1, 0.5, 0.1]))  # ε = 0: only within the matrices of rank 2
    layers = [tensor(rng.standard_normal(shape)) for shape in ((2, 5), (DIMENSION, 2))]
    assert torch.autograd.gradgradcheck(lambda A, B: covariance_loss(loss, B @ A, rank=2), layers)
    with pytest.raises(ValueError, match="W must have rank 5"):
        torch.autograd.gradgradcheck(lambda A, B: covariance_loss(loss, B @ A), layers)


def hessian_product_of_layers(layers, loss):
    value = covariance_loss(loss, layers[1] @ layers[0], rank=2)
    gradients = torch.autograd.grad(value, layers, create_graph=True)
    square = sum(torch.sum(gradient**2) for gradient in gradients)
    return value, gradients, torch.autograd.grad(square, layers)


def test_single_precision_is_kept_and_computed_in_double(rng):
    loss = BuresWasserstein(np.diag([4.0, 2, 2, 1, 0.5, 0.1]))
    layers = [rng.standard_normal(shape).astype(np.float32) for shape in ((2, 5), (DIMENSION, 2))]
    single = hessian_product_of_layers([tensor(layer) for layer in layers], loss)
    double = hessian_product_of_layers([tensor(layer.astype(float)) for layer in layers], loss)
    assert single[0].dtype == torch.float32
    torch.testing.assert_close(single[0], double[0], rtol=1e-6, atol=0, check_dtype=False)
    for found, expected in zip(single[1] + single[2], double[1] + double[2], strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4, check_dtype=False)
    W = torch.eye(DIMENSION, dtype=torch.bfloat16, requires_grad=True)
    covariance_loss(loss, W).backward()
    assert W.grad.dtype == torch.bfloat16
    # The distance from a point near the minimum: float32 arithmetic would leave nothing of 1e-12.
    near = np.diag(np.sqrt(np.float32([4, 2, 2, 1, 0.5, 0.1])))
    value = covariance_loss(loss, torch.tensor(near))
    assert float(value) == pytest.approx(float(exact.bures_wasserstein(near, loss.covariance)), rel=1e-4)


def test_a_stack_of_targets(rng):
    covariances = np.stack([np.diag([2.0, 1.0]), np.diag([3.0, 0.5])])
    W = rng.standard_normal((2, 2, 2))
    point = tensor(W)
    value = covariance_loss(BuresWasserstein(covariances, 0.1), point)
    (value * torch.tensor([1.0, 3.0])).sum().backward()
    for i, weight in enumerate((1, 3)):
        single = BuresWasserstein(covariances[i], 0.1)
        assert float(value[i].detach()) == pytest.approx(float(single.value(W[i])))
        np.testing.assert_allclose(point.grad[i], weight * single.gradient(W[i]), rtol=1e-12)


def test_what_has_no_derivative_is_refused(rng):
    loss = BuresWasserstein(np.eye(2), 0.1)
    W = tensor(rng.standard_normal((2, 2)))
    (gradient,) = torch.autograd.grad(covariance_loss(loss, W), W, create_graph=True)
    (second,) = torch.autograd.grad(gradient.sum(), W, create_graph=True)
    with pytest.raises(NotImplementedError, match="third derivatives"):
        second.sum().backward()
    with pytest.raises(ValueError, match="W must be finite"):
        covariance_loss(loss, W * torch.nan)


@pytest.mark.parametrize(("code", "printed"), examples("autograd.md", "from deepbures.torch"))
def test_examples_of_the_page_print_what_it_shows(capsys, code, printed):
    exec(code, {})
    assert capsys.readouterr().out == printed
