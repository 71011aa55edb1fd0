"""Losses under JAX's transformations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from page_examples import examples

from deepbures import BuresWasserstein, DeepLinearNetwork, Frobenius
from deepbures.jax import covariance_loss

DIMENSION = 6
LOSSES = pytest.mark.parametrize(
    "loss",
    [
        BuresWasserstein(np.diag([4.0, 2, 2, 1, 0.5, 0.1]), 0.1),
        BuresWasserstein(np.diag([4.0, 2, 2, 1, 0.5, 0.1])),
        Frobenius(np.diag([4.0, 2, 2, 1, 0.5, 0.1])),
    ],
    ids=["smoothed", "unsmoothed", "square"],
)
COLUMNS = pytest.mark.parametrize("columns", [2, 6, 9])


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def along(loss, V):
    """W ↦ ∇²L(W)[V]."""
    return lambda W: jax.vjp(jax.grad(lambda W: covariance_loss(loss, W)), W)[1](V)[0]


@LOSSES
@COLUMNS
def test_derivatives_are_the_closed_forms(rng, loss, columns):
    W, V = rng.standard_normal((2, DIMENSION, columns))
    value, gradient = jax.value_and_grad(lambda W: covariance_loss(loss, W))(jnp.array(W))
    np.testing.assert_array_equal(value, loss.value(W))
    np.testing.assert_array_equal(gradient, loss.gradient(W))
    np.testing.assert_array_equal(along(loss, jnp.array(V))(jnp.array(W)), loss.hessian_product(W, V))


@LOSSES
def test_derivatives_are_those_of_finite_differences(rng, loss):
    W = jnp.array(rng.standard_normal((DIMENSION, 3)))
    check_grads(lambda W: covariance_loss(loss, W), (W,), order=2, modes=["rev"])


@LOSSES
@COLUMNS
def test_under_jit_and_vmap(rng, loss, columns):
    W = rng.standard_normal((4, DIMENSION, columns))
    V = rng.standard_normal((4, DIMENSION, columns))
    f = jax.grad(lambda W: covariance_loss(loss, W))
    np.testing.assert_allclose(jax.jit(jax.vmap(f))(jnp.array(W)), loss.gradient(W), rtol=1e-12, atol=1e-12)
    # Stacks of points, of directions, and of both.
    expected = loss.hessian_product(W, V)
    both = jax.jit(jax.vmap(lambda W, V: along(loss, V)(W)))(W, V)
    np.testing.assert_allclose(both, expected, rtol=1e-10, atol=1e-12)
    points = jax.vmap(along(loss, jnp.array(V[0])))(W)
    np.testing.assert_allclose(points[0], expected[0], rtol=1e-10, atol=1e-12)
    directions = jax.vmap(lambda V: along(loss, V)(jnp.array(W[0])))(V)
    np.testing.assert_allclose(directions[0], expected[0], rtol=1e-10, atol=1e-12)
    assert points.shape == directions.shape == W.shape


@LOSSES
def test_gradients_of_layers(rng, loss):
    layers = [rng.standard_normal(shape) for shape in ((4, 5), (3, 4), (DIMENSION, 3))]
    found = jax.grad(lambda layers: covariance_loss(loss, layers[2] @ layers[1] @ layers[0]))(
        [jnp.array(layer) for layer in layers]
    )
    network = DeepLinearNetwork(layers)
    expected = network.layer_gradients(loss.gradient(network.end_to_end()))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


def test_second_derivatives_with_a_bottleneck_in_both_precisions(rng):
    loss = BuresWasserstein(np.diag([4.0, 2, 2, 1, 0.5, 0.1]))
    layers = [jnp.array(rng.standard_normal(shape), dtype=jnp.float32) for shape in ((2, 5), (DIMENSION, 2))]

    def value(layers):
        return covariance_loss(loss, layers[1] @ layers[0], rank=2)

    def penalty(layers):
        return sum(jnp.sum(gradient**2) for gradient in jax.grad(value)(layers))

    double = [layer.astype(jnp.float64) for layer in layers]
    check_grads(value, (double,), order=2, modes=["rev"])
    for found, expected in zip(jax.grad(penalty)(layers), jax.grad(penalty)(double), strict=True):
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_what_has_no_derivative_is_refused(rng):
    loss = BuresWasserstein(np.eye(2), 0.1)
    W = jnp.array(rng.standard_normal((2, 2)))
    with pytest.raises(Exception, match="W must be finite"):
        jax.block_until_ready(covariance_loss(loss, jnp.full((2, 2), jnp.nan)))
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda W: covariance_loss(loss, W), (W,), (W,))
    with pytest.raises(ValueError, match="callbacks do not support JVP"):
        jax.jacrev(jax.jacrev(jax.grad(lambda W: covariance_loss(loss, W))))(W)


@pytest.mark.parametrize(("code", "printed"), examples("autograd.md", "from deepbures.jax"))
def test_examples_of_the_page_print_what_it_shows(capsys, code, printed):
    with jax.enable_x64(False):
        exec(code, {})
    assert capsys.readouterr().out == printed
