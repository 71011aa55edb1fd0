"""Rates from layers without balance, k = n (docs/paper.md section 8): pointwise and along the flow of the layers."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from deepbures.losses.registry import BuresWasserstein
from deepbures.model.network import DeepLinearNetwork, pack, unpack
from deepbures.rates.predicted import global_bound, global_rate
from deepbures.rates.unbalanced import (
    deep_fall,
    largest_layer,
    layer_imbalance,
    product_drifts,
    two_layer_fall,
    unbalanced_global_rate,
)

EIGENVALUES = np.array([2.0, 1.0])


def layers_near_balance(rng, n, widths, noise):
    """Layers of the given widths (the input first) that are balanced but for Gaussian noise of that deviation."""
    depth = len(widths) - 1
    W = 0.6 * rng.standard_normal((n, n)) + 0.5 * np.eye(n)
    U, s, Vh = np.linalg.svd(W)
    root = s ** (1 / depth)
    layers = [np.zeros((upper, lower)) for lower, upper in pairwise(widths)]
    layers[0][:n, :n] = root[:, None] * Vh
    for layer in layers[1:-1]:
        layer[:n, :n] = np.diag(root)
    layers[-1][:, :n] = U * root
    return [layer + noise * rng.standard_normal(layer.shape) for layer in layers]


def fall(loss, layers):
    """−dL/dt and L at the layers, and the least eigenvalue of S."""
    network = DeepLinearNetwork(layers)
    W = network.end_to_end()
    squares = sum(np.sum(part**2) for part in network.layer_gradients(loss.gradient(W)))
    return squares, float(loss.value(W)), float(np.linalg.svd(W, compute_uv=False)[loss.dimension - 1] ** 2)


def signed_imbalance(layers):
    ends = np.linalg.eigvalsh(layers[1].T @ layers[1] - layers[0] @ layers[0].T)
    return max(ends[-1], 0), max(-ends[0], 0)


# --- Two layers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0, 0.3, 0.95])
@pytest.mark.parametrize("widths", [(1, 1, 1), (2, 2, 2), (3, 5, 2), (5, 3, 3)], ids=str)
def test_two_layers_fall_at_least_so_fast(rng, widths, share):
    # −dL/dt ≥ 4 (μ + ν) s/(s + ε) L, 300 layers from balanced to a hundred times the target; nearly met in some.
    n, used = widths[-1], []
    for _ in range(300):
        eigenvalues = np.sort(rng.uniform(0.2, 2, n))[::-1]
        loss = BuresWasserstein(np.diag(eigenvalues), share * eigenvalues[-1])
        scales = 10 ** rng.uniform(-1.5, 1, 2)
        layers = [
            scale * rng.standard_normal((upper, lower))
            for scale, (lower, upper) in zip(scales, pairwise(widths), strict=True)
        ]
        squares, value, s = fall(loss, layers)
        used.append(two_layer_fall(s, float(loss.epsilon), signed_imbalance(layers)) * value / squares)
    assert max(used) <= 1 + 1e-8
    assert max(used) > (0.99 if n == 1 and share == 0 else 0.2)


@pytest.mark.parametrize("epsilon", [0, 0.2])
def test_balanced_layers_have_the_global_rate(rng, epsilon):
    # d_± = 0: 8 s^{3/2}/(s + ε), and 4 N s^{2−1/N}/(s + ε) at any depth.
    for s in (1e-6, 0.3, 5.0):
        assert two_layer_fall(s, epsilon, (0.0, 0.0)) == pytest.approx(8 * s**1.5 / (s + epsilon), rel=1e-14)
        for depth in (1, 2, 3, 10, 100):
            expected = 4 * depth * s ** (2 - 1 / depth) / (s + epsilon)
            assert deep_fall(s, epsilon, depth, 0.0, 1.5) == pytest.approx(expected, rel=1e-13)
            assert largest_layer(1.7, 0.0, depth) == pytest.approx(1.7 ** (1 / depth), rel=1e-12)


def test_the_rate_of_two_layers_in_numbers():
    # D = diag(3, −1): d_+ = 3, d_− = 1; s = 1, ε = 0: μ = (√5 − 1)/2, ν = (√13 − 3)/2.
    expected = 4 * ((np.sqrt(5) - 1) / 2 + (np.sqrt(13) - 3) / 2)
    assert two_layer_fall(1.0, 0.0, (3.0, 1.0)) == pytest.approx(expected, rel=1e-14)
    assert two_layer_fall(1e-20, 0.0, (3.0, 1.0)) == pytest.approx(
        4 * (1e-20 / 3 + 1e-20), rel=1e-12
    )  # no cancellation


# --- Any depth --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("widths", [(2, 2, 2, 2), (3, 4, 2, 2), (2, 3, 4, 3, 2)], ids=str)
def test_products_of_layers_are_near_powers_of_one(rng, widths):
    # ‖A_j A_jᵀ − (W_N W_Nᵀ)^i‖ ≤ β_i and ‖C_jᵀ C_j − (W_1ᵀ W_1)^i‖ ≤ β_i.
    for _ in range(50):
        layers = layers_near_balance(rng, 2, widths, 10 ** rng.uniform(-6, 0))
        largest = max(np.linalg.norm(layer, 2) for layer in layers)
        drifts = product_drifts(len(layers), layer_imbalance(layers), largest)
        for i in range(1, len(layers) + 1):
            above, below = DeepLinearNetwork(layers[-i:]).end_to_end(), DeepLinearNetwork(layers[:i]).end_to_end()
            top, bottom = layers[-1] @ layers[-1].T, layers[0].T @ layers[0]
            for found, power in ((above @ above.T, top), (below.T @ below, bottom)):
                distance = np.linalg.norm(found - np.linalg.matrix_power(power, i), 2)
                assert distance <= drifts[i] * (1 + 1e-9) + 1e-13


def test_the_drift_of_products_is_met_by_numbers():
    # n = 1, w_N² = 1, then 1 + δ, 1 + 2δ, …: the product of i is 1 + ½ i (i − 1) δ to first order.
    delta = 1e-6
    for i, drift in enumerate(product_drifts(5, delta, 1.0)):
        product = np.prod(1 + delta * np.arange(i))
        assert product - 1 == pytest.approx(drift, rel=1e-4, abs=1e-15)


@pytest.mark.parametrize("share", [0, 0.5])
@pytest.mark.parametrize("widths", [(2, 2, 2, 2), (3, 4, 2, 2), (2, 3, 4, 3, 2), (2, 2, 2, 2, 2, 2)], ids=str)
def test_deep_layers_fall_at_least_so_fast(rng, widths, share):
    # With the largest norm of the layers themselves; 200 layers, of which most are near balance.
    used, depth = [], len(widths) - 1
    loss = BuresWasserstein(np.diag(EIGENVALUES), share * EIGENVALUES[-1])
    for _ in range(200):
        layers = layers_near_balance(rng, 2, widths, 10 ** rng.uniform(-8, -1))
        squares, value, s = fall(loss, layers)
        largest = max(np.linalg.norm(layer, 2) for layer in layers)
        promised = deep_fall(s, float(loss.epsilon), depth, layer_imbalance(layers), largest)
        used.append(promised * value / squares)
        sigma = np.linalg.svd(DeepLinearNetwork(layers).end_to_end(), compute_uv=False)[0]
        assert largest <= largest_layer(sigma, layer_imbalance(layers), depth) * (1 + 1e-9)
    assert max(used) <= 1 + 1e-8
    assert sum(share > 0 for share in used) > 100


@pytest.mark.parametrize("widths", [(2, 2), (2, 2, 2), (3, 4, 2), (2, 2, 2, 2), (2, 2, 2, 2, 2)], ids=str)
@pytest.mark.parametrize("epsilon", [0, 0.1])
def test_flows_of_the_layers_stay_below_the_bound(rng, widths, epsilon):
    # The flow of the layers themselves, by scipy: the loss falls at the rate of its start, and the imbalance is kept.
    loss = BuresWasserstein(np.diag(EIGENVALUES), epsilon)
    noise = {1: 0.1, 2: 0.2, 3: 2e-4, 4: 1e-5}[len(widths) - 1]
    found = 0
    while found < 3:
        layers = layers_near_balance(rng, 2, widths, noise)
        initial = float(loss.value(DeepLinearNetwork(layers).end_to_end()))
        rate = unbalanced_global_rate(EIGENVALUES, epsilon, initial, layers)
        if rate == 0:
            continue
        found += 1
        shapes = [layer.shape for layer in layers]

        def slope(t, state, shapes=shapes):
            network = DeepLinearNetwork(unpack(state, shapes))
            return -pack(network.layer_gradients(loss.gradient(network.end_to_end())))

        times = np.linspace(0, min(4 / rate, 10), 12)
        solution = solve_ivp(slope, (0, times[-1]), pack(layers), t_eval=times, rtol=1e-9, atol=1e-11, method="DOP853")
        for t, state in zip(times, solution.y.T, strict=True):
            now = unpack(state, shapes)
            value = float(loss.value(DeepLinearNetwork(now).end_to_end()))
            assert value <= global_bound(t, initial, rate) * (1 + 1e-6) + 1e-15
            assert layer_imbalance(now) == pytest.approx(layer_imbalance(layers), rel=1e-6, abs=1e-9)


def test_where_there_is_no_rate():
    # c ≤ √ε, or an imbalance that is too large for three layers; two layers have a rate whatever their imbalance.
    layers = [np.diag([3.0, 3.0]), np.diag([0.4, 0.33])]
    assert unbalanced_global_rate(EIGENVALUES, 0.9, 0.5, layers) == 0
    assert unbalanced_global_rate(EIGENVALUES, 0.0, 1.2, layers) == 0
    assert unbalanced_global_rate(EIGENVALUES, 0.0, 0.1, layers) > 0
    deep = [*layers, np.eye(2)]
    assert unbalanced_global_rate(EIGENVALUES, 0.0, 0.1, deep) == 0
    one = unbalanced_global_rate(EIGENVALUES, 0.05, 0.1, [np.eye(2)])
    s = (1 - np.sqrt(0.1)) ** 2 - 0.05
    assert one == pytest.approx(global_rate(EIGENVALUES, 0.05, 1, np.sqrt(s)), rel=1e-12)
    with pytest.raises(ValueError, match="layers must have widths of at least n = 2, not 1"):
        unbalanced_global_rate(EIGENVALUES, 0.0, 0.1, [np.ones((1, 2)), np.ones((2, 1))])
