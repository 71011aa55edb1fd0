"""The solver for zeros of the gradient of a deep loss, against another solver and closed forms."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import least_squares

from deepbures.landscape import critical_points
from deepbures.landscape.critical_point_search import search
from deepbures.landscape.curvature import network_hessian, network_hessians
from deepbures.losses.registry import BuresWasserstein, Frobenius
from deepbures.model.network import DeepLinearNetwork, pack, unpack

SPECTRUM = [1.0, 0.6, 0.3]


def make_loss(kind, covariance):
    return Frobenius(covariance) if kind == "frobenius" else BuresWasserstein(covariance, kind)


def starts(rng, depth, width, number=12):
    shapes = [(3, width)] if depth == 1 else [(width, 3), *[(width, width)] * (depth - 2), (3, width)]
    return [0.7 * rng.standard_normal((number, *shape)) for shape in shapes]


def gradient_of(loss, shapes):
    def gradient(vector):
        network = DeepLinearNetwork(unpack(vector, shapes))
        return pack(network.layer_gradients(loss.gradient(network.end_to_end())))

    return gradient


@pytest.mark.parametrize(("depth", "width"), [(1, 1), (1, 2), (2, 2), (3, 2)])
@pytest.mark.parametrize("kind", [0, 0.1, "frobenius"])
def test_ends_are_zeros_of_the_gradient_for_another_solver_too(make_target, rng, kind, depth, width):
    # From a point moved by 1e-4, the least squares of SciPy come back to the same covariance.
    loss = make_loss(kind, make_target(SPECTRUM))
    ends = search(loss, starts(rng, depth, width))
    found = ends.gradient_norm <= 1e-10
    assert found.sum() >= 4
    shapes = [layer.shape[1:] for layer in ends.layers]
    gradient = gradient_of(loss, shapes)
    compared = 0
    for i in np.flatnonzero(found):
        layers = [layer[i] for layer in ends.layers]
        x = pack(layers)
        assert np.linalg.norm(gradient(x)) == pytest.approx(ends.gradient_norm[i], abs=1e-14)
        W = DeepLinearNetwork(layers).end_to_end()
        kept, distance = critical_points.nearest(loss, W, width)
        assert distance < 1e-5
        if len(kept) == width:  # of lower rank it converges slowly, and for ε = 0 has a kink
            moved = x + 1e-4 * rng.standard_normal(len(x))
            other = least_squares(gradient, moved, xtol=1e-15, ftol=1e-15, gtol=1e-15, max_nfev=200)
            V = DeepLinearNetwork(unpack(other.x, shapes)).end_to_end()
            np.testing.assert_allclose(V @ V.T, W @ W.T, atol=1e-6)
            compared += 1
    assert compared >= 1


@pytest.mark.parametrize("kind", [0, 0.1, "frobenius"])
def test_members_of_a_stack_are_searched_on_their_own(make_target, rng, kind):
    loss, layers = make_loss(kind, make_target(SPECTRUM)), starts(rng, 2, 2)
    together = search(loss, layers)
    for i in range(12):
        alone = search(loss, [layer[i : i + 1] for layer in layers])
        assert alone.evaluations[0] == together.evaluations[i]
        for one, all_ in zip(alone.layers, together.layers, strict=True):
            np.testing.assert_array_equal(one[0], all_[i])


def test_search_does_not_change_its_starts(make_target, rng):
    layers = starts(rng, 2, 2)
    copies = [layer.copy() for layer in layers]
    search(BuresWasserstein(make_target(SPECTRUM), 0.1), layers)
    assert all(map(np.array_equal, layers, copies))


@pytest.mark.parametrize("kind", [0, 0.1, "frobenius"])
def test_search_that_loses_rank_goes_on_in_a_narrower_network(make_target, kind):
    # Two balanced layers with a singular value of 1e-8 of W: the end has rank ≤ 1, in layers of width 2.
    loss = make_loss(kind, make_target(SPECTRUM))
    W = loss.eigenvectors[:, [1, 2]] * [0.7, 1e-8] @ np.eye(2, 3)
    ends = search(loss, [layer[None] for layer in DeepLinearNetwork.balanced(W, 2, 2).layers])
    end = DeepLinearNetwork([layer[0] for layer in ends.layers])
    assert [layer.shape for layer in end.layers] == [(2, 3), (3, 2)]
    assert ends.gradient_norm[0] <= 1e-10
    assert not ends.at_kink.any()
    kept, distance = critical_points.nearest(loss, end.end_to_end(), 2)
    assert (kept, distance < 1e-8) == ((1,), True)
    assert np.all(end.layers[0][1] == 0)


def test_one_layer_without_smoothing_ends_at_the_kink(make_target):
    # With smoothing the same start goes on: a lost column is critical there.
    covariance = make_target(SPECTRUM)
    W = (np.linalg.eigh(covariance)[1][:, :2] * [0.7, 1e-8])[None]
    ends = search(BuresWasserstein(covariance), [W])
    assert ends.at_kink.tolist() == [True]
    assert ends.gradient_norm[0] > 0.1
    np.testing.assert_array_equal(ends.layers[0], W)
    smoothed = search(BuresWasserstein(covariance, 0.1), [W])
    assert (smoothed.at_kink.tolist(), smoothed.gradient_norm[0] < 1e-10) == ([False], True)


@pytest.mark.parametrize("kind", [0.1, "frobenius"])
def test_lost_last_column_ends_at_zero(make_target, kind):
    loss = make_loss(kind, make_target(SPECTRUM))
    ends = search(loss, [np.full((1, 1, 3), 1e-4), np.full((1, 3, 1), 1e-4)])
    assert all(np.all(layer == 0) for layer in ends.layers)
    assert (ends.gradient_norm[0], ends.evaluations[0]) == (0, 0)


@pytest.mark.parametrize("widths", [[3, 2], [3, 2, 3], [3, 2, 4, 3]], ids=str)
@pytest.mark.parametrize("kind", [0, 0.1, "frobenius"])
def test_hessians_of_a_stack_are_those_of_its_members(make_target, rng, kind, widths):
    widths = widths[::-1] if len(widths) == 2 else widths  # one layer is n × k
    loss = make_loss(kind, make_target(SPECTRUM))
    layers = [rng.standard_normal((5, above, below)) for below, above in pairwise(widths)]
    stack = network_hessians(loss, layers)
    for i, H in enumerate(stack):
        np.testing.assert_allclose(H, network_hessian(loss, [layer[i] for layer in layers]), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("kind", [0, 0.1, "frobenius"])
@pytest.mark.parametrize("factor", [1e12, 1e-12])
def test_normalized_loss_has_no_unit(make_target, rng, kind, factor):
    # L(W) = λ_1^{d/2} L̃(W/√λ_1), ∇L(W) = λ_1^{(d−1)/2} ∇L̃(W/√λ_1); d = 2 or 4.
    covariance, W = make_target([3.0, 2.0, 0.5]), rng.standard_normal((3, 2))
    d = 4 if kind == "frobenius" else 2
    loss = make_loss(kind if d == 4 else kind * factor, factor * covariance)
    target, largest = loss.normalized(), 3 * factor
    assert target.eigenvalues[0] == pytest.approx(1, rel=1e-14)
    value = largest ** (d / 2) * target.value(W)
    np.testing.assert_allclose(loss.value(np.sqrt(largest) * W), value, rtol=1e-11)
    gradient = largest ** ((d - 1) / 2) * target.gradient(W)
    np.testing.assert_allclose(
        loss.gradient(np.sqrt(largest) * W), gradient, rtol=1e-10, atol=1e-12 * np.abs(gradient).max()
    )
    assert loss.unit == pytest.approx(float(make_loss(0 if d == 2 else kind, factor * covariance).value(0 * W)))
