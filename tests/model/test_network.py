"""Deep linear networks: balanced layers, end-to-end matrix, layer gradients."""

from functools import reduce
from itertools import pairwise

import numpy as np
import pytest

from deepbures.losses.registry import BuresWasserstein, Frobenius
from deepbures.model.network import (
    DeepLinearNetwork,
    balancedness,
    check_depth,
    layer_gradients,
    pack,
    prefix_products,
    unpack,
    with_bottleneck,
)


@pytest.mark.parametrize("depth", [1, 2, 3, 8, 100])
@pytest.mark.parametrize("shape", [(4, 4), (4, 6), (5, 3)])
def test_balanced_network_has_the_product_and_no_imbalance(rng, shape, depth):
    # W_N ⋯ W_1 = W and W_{j+1}ᵀ W_{j+1} = W_j W_jᵀ.
    W = rng.standard_normal(shape)
    network = DeepLinearNetwork.balanced(W, depth)
    assert network.depth == len(network.layers) == depth
    np.testing.assert_allclose(network.end_to_end(), W, rtol=1e-10, atol=1e-12)
    assert network.balancedness() < 1e-13


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("width", [1, 2, 3])
def test_narrow_balanced_network_is_the_best_approximation(rng, depth, width):
    W = rng.standard_normal((4, 6))
    network = DeepLinearNetwork.balanced(W, depth, width)
    U, s, Vh = np.linalg.svd(W, full_matrices=False)
    np.testing.assert_allclose(network.end_to_end(), (U * s)[:, :width] @ Vh[:width], atol=1e-13)
    assert network.balancedness() < 1e-13
    widths = [layer.shape[0] for layer in network.layers]
    assert widths == [width] * (depth - 1) + [4]


def test_balancedness_is_the_largest_norm_over_the_interfaces(rng):
    layers = [rng.standard_normal(shape) for shape in [(3, 5), (2, 3), (4, 2)]]
    expected = max(np.linalg.norm(upper.T @ upper - lower @ lower.T) for lower, upper in pairwise(layers))
    assert DeepLinearNetwork(layers).balancedness() == pytest.approx(expected, rel=1e-14)
    assert DeepLinearNetwork(layers[:1]).balancedness() == 0


@pytest.mark.parametrize("kind", [0, 0.2, "frobenius"])
@pytest.mark.parametrize("widths", [[4, 4], [4, 4, 4], [6, 3, 5, 4], [2, 3, 4, 4, 4]])
def test_layer_gradients_by_central_differences(make_target, rng, widths, kind):
    # ∂L^N/∂W_j = (W_N⋯W_{j+1})ᵀ ∇L(W) (W_{j−1}⋯W_1)ᵀ.
    covariance = make_target([3.0, 2.0, 1.0, 0.5])
    loss = Frobenius(covariance) if kind == "frobenius" else BuresWasserstein(covariance, kind)
    layers = [rng.standard_normal((above, below)) for below, above in pairwise(widths)]
    network = DeepLinearNetwork(layers)
    gradients = network.layer_gradients(loss.gradient(network.end_to_end()))
    h = 1e-5
    for j, gradient in enumerate(gradients):
        assert gradient.shape == layers[j].shape
        V = rng.standard_normal(gradient.shape)

        def moved(step, j=j, V=V):
            changed = [*layers[:j], layers[j] + step * V, *layers[j + 1 :]]
            return loss.value(reduce(lambda x, y: y @ x, changed))

        difference = (moved(h) - moved(-h)) / (2 * h)
        assert np.vdot(gradient, V) == pytest.approx(difference, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("widths", [[4, 4], [6, 3, 5, 4], [2, 3, 4, 4, 4]])
def test_prefix_products_are_the_matrices_of_the_lower_networks(rng, widths):
    # W_j ⋯ W_1 for j = 1..N.
    layers = [rng.standard_normal((above, below)) for below, above in pairwise(widths)]
    prefixes = prefix_products(layers)
    assert len(prefixes) == len(layers)
    for j, prefix in enumerate(prefixes, start=1):
        np.testing.assert_allclose(prefix, reduce(lambda x, y: y @ x, layers[:j]), rtol=1e-13)


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)], ids=str)
@pytest.mark.parametrize("widths", [[4, 4], [6, 3, 5, 4], [2, 3, 4, 4, 4]])
def test_functions_of_layers_against_their_formulas(rng, widths, batch):
    # (W_N⋯W_{j+1})ᵀ G (W_{j−1}⋯W_1)ᵀ for any G, and max_j ‖W_{j+1}ᵀ W_{j+1} − W_j W_jᵀ‖_F, network by network.
    layers = [rng.standard_normal((*batch, above, below)) for below, above in pairwise(widths)]
    G = rng.standard_normal((*batch, widths[-1], widths[0]))
    gradients, imbalance = layer_gradients(layers, prefix_products(layers), G), balancedness(layers)
    assert imbalance.shape == batch
    for i in np.ndindex(batch):
        one = [W[i] for W in layers]
        for j, gradient in enumerate(gradients):
            above = reduce(lambda x, y: y @ x, one[j + 1 :], np.eye(one[j].shape[0]))
            below = reduce(lambda x, y: y @ x, one[:j], np.eye(widths[0]))
            np.testing.assert_allclose(gradient[i], above.T @ G[i] @ below.T, rtol=1e-12, atol=1e-12)
        norms = [np.linalg.norm(upper.T @ upper - lower @ lower.T) for lower, upper in pairwise(one)]
        assert imbalance[i] == pytest.approx(max(norms, default=0), rel=1e-13)


@pytest.mark.parametrize("widths", [[5, 3, 4], [2, 3, 4, 4, 4]])
def test_layer_gradients_may_be_changed_in_place(rng, widths):
    # They share no memory with the layers, the products, the gradient or each other.
    layers = [rng.standard_normal((above, below)) for below, above in pairwise(widths)]
    prefixes, G = prefix_products(layers), rng.standard_normal((widths[-1], widths[0]))
    gradients = layer_gradients(layers, prefixes, G)
    for i, gradient in enumerate(gradients):
        others = [*layers, *prefixes, G, *gradients[:i]]
        assert not any(np.shares_memory(gradient, other) for other in others)


def test_stack_equals_loop(rng):
    W, gradient = rng.standard_normal((2, 3, 4, 5))
    stack = DeepLinearNetwork.balanced(W, 4)
    products, imbalance = stack.end_to_end(), stack.balancedness()
    gradients = stack.layer_gradients(gradient)
    assert products.shape == (3, 4, 5)
    assert imbalance.shape == (3,)
    for i in range(3):
        one = DeepLinearNetwork.balanced(W[i], 4)
        np.testing.assert_allclose(products[i], one.end_to_end(), atol=1e-14)
        for stacked, single in zip(gradients, one.layer_gradients(gradient[i]), strict=True):
            np.testing.assert_allclose(stacked[i], single, atol=1e-13)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], r"layers must hold at least one matrix"),
        ([np.ones((3, 4)), np.ones((5, 4))], r"layers must chain: layer 2 has 4 columns, but layer 1 has 3 rows"),
        ([np.eye(2), np.eye(2), np.ones((2, 3))], r"layers must chain: layer 3 has 3 columns, but layer 2 has 2 rows"),
        ([np.eye(2), np.diag([1, np.nan])], r"layer 2 must be finite"),
        ([np.ones(3)], r"layer 1 must be .*\(3,\)"),
    ],
)
def test_layers_must_chain(layers, message):
    with pytest.raises(ValueError, match=message):
        DeepLinearNetwork(layers)


@pytest.mark.parametrize("width", [0, 4])
def test_width_must_fit(width):
    with pytest.raises(ValueError, match=rf"width must lie between 1 and min\(n, d_0\) = 3, not {width}"):
        DeepLinearNetwork.balanced(np.ones((3, 5)), 2, width)


@pytest.mark.parametrize("depth", [0, -1, 1.0, 2.5, "2", None])
def test_depth_must_be_a_positive_integer(depth):
    with pytest.raises(ValueError, match="depth must be an integer ≥ 1"):
        check_depth(depth)
    with pytest.raises(ValueError, match="depth must be an integer ≥ 1"):
        DeepLinearNetwork.balanced(np.eye(3), depth)


@pytest.mark.parametrize("batch", [(), (3,)], ids=str)
@pytest.mark.parametrize("shape", [(4, 4), (4, 6), (5, 3)])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_one_layer_is_as_wide_as_its_bottleneck(rng, shape, rank, batch):
    # n × k, with the singular values of W, the covariance that of its best approximation.
    W = rng.standard_normal((*batch, *shape))
    (layer,) = with_bottleneck(DeepLinearNetwork([W]), rank).layers
    assert layer.shape == (*batch, shape[0], rank)
    U, s, _ = np.linalg.svd(W)
    np.testing.assert_allclose(np.linalg.svd(layer, compute_uv=False), s[..., :rank], rtol=1e-12)
    kept = U[..., :rank] * s[..., None, :rank]
    np.testing.assert_allclose(layer @ layer.mT, kept @ kept.mT, atol=1e-12)


def test_what_has_its_bottleneck_is_left_as_it_is(rng):
    for layers in ([rng.standard_normal((4, 2))], [rng.standard_normal((2, 4)), rng.standard_normal((4, 2))]):
        network = DeepLinearNetwork(layers)
        assert with_bottleneck(network, 2) is network


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)], ids=str)
def test_packed_layers_are_their_entries_row_by_row(rng, batch):
    layers = [rng.standard_normal((*batch, *shape)) for shape in [(3, 5), (2, 3), (4, 2)]]
    vector = pack(layers)
    assert vector.shape == (*batch, 15 + 6 + 8)
    np.testing.assert_array_equal(vector[..., 15:18], layers[1][..., 0, :])
    for layer, again in zip(layers, unpack(vector, [layer.shape[-2:] for layer in layers]), strict=True):
        np.testing.assert_array_equal(layer, again)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_layers_of_factors_are_balanced_with_one_layer_as_wide_as_its_bottleneck(rng, depth):
    U, V = (np.linalg.qr(rng.standard_normal((3, 6, 2)))[0] for _ in range(2))
    s = np.array([[2.0, 0.5], [1.0, 0.0], [3.0, 3.0]])
    network = DeepLinearNetwork.of_factors(U, s, V.mT, depth)
    W = network.end_to_end()
    assert network.depth == depth
    assert W.shape == (3, 6, 2 if depth == 1 else 6)
    np.testing.assert_allclose(W @ W.mT, (U * s[:, None] ** 2) @ U.mT, atol=1e-14)
    assert network.balancedness().max() <= 1e-14 * 9
    if depth == 1:
        np.testing.assert_array_equal(network.layers[0], U * s[:, None])
