"""Sentences of docs/paper.md that once said too much, each with the numbers that show it: the landscape."""

import numpy as np
import pytest

from deepbures.flow.gradient_flow import gradient_flow
from deepbures.landscape.critical_points import factor, local_spectrum, network, value
from deepbures.landscape.curvature import blow_up_constant, hessian, network_loss
from deepbures.losses.closed_form_rates import bures_wasserstein_hessian_bounds
from deepbures.losses.registry import BuresWasserstein, Frobenius

SPECTRUM = np.array([3.0, 2.0, 1.0])


def make_loss(kind, covariance):
    return Frobenius(covariance) if kind == "frobenius" else BuresWasserstein(covariance, kind)


# --- Empty columns ----------------------------------------------------------------------------------------------


def growth(loss, kept, b, depth, size, max_time):
    """d log S_bb/dt of a flow from W_J whose first empty column holds `size` in direction b."""
    W = factor(loss, kept, 2)
    W[:, len(kept)] += size * loss.eigenvectors[:, b]
    flow = gradient_flow(loss, W, depth, [0.0, max_time], rtol=1e-10)
    S_bb = np.sum((loss.eigenvectors[:, b] @ flow.factors) ** 2, axis=-1)
    return np.log(S_bb[-1] / S_bb[0]) / max_time


@pytest.mark.parametrize(("kept", "b"), [(J, b) for J in ((), (0,), (2,)) for b in range(3) if b not in J])
@pytest.mark.parametrize(("kind", "depth"), [(0, 2), (0.1, 1), ("frobenius", 1)])
def test_empty_columns_grow_at_the_closed_form(make_target, kind, depth, kept, b):
    # S_bb = z^{2N} for a column z of Z: d log S_bb/dt = −2N r with the rate r of `empty`.
    loss = make_loss(kind, make_target(SPECTRUM))
    spectrum = local_spectrum(loss, kept, depth, 2)
    rate = spectrum.empty[list(np.delete(np.arange(3), kept)).index(b)]
    assert rate < 0
    assert growth(loss, kept, b, depth, 1e-8, 0.3) == pytest.approx(-2 * depth * rate, rel=1e-5)


def test_growth_without_smoothing_at_two_layers():
    # λ_b = 2: S_bb grows like exp(8 √2 t), 8 √2 = 11.3137.
    loss = BuresWasserstein(np.diag(SPECTRUM))
    assert local_spectrum(loss, (0,), 2, 2).empty[0] == pytest.approx(-2 * np.sqrt(2), rel=1e-14)
    assert growth(loss, (0,), 1, 2, 1e-9, 1.0) == pytest.approx(11.3137, rel=1e-5)


@pytest.mark.parametrize("kept", [(), (0,)])
@pytest.mark.parametrize(("kind", "depth"), [(0, 3), (0, 5), (0.1, 2), (0.1, 3), ("frobenius", 2), ("frobenius", 3)])
def test_other_deep_columns_grow_algebraically(kind, depth, kept):
    # Rate 0, and so it is measured: d log S_bb/dt → 0 as the column vanishes.
    loss = make_loss(kind, np.diag(SPECTRUM))
    assert not local_spectrum(loss, kept, depth, 2).empty.any()
    rates = [growth(loss, kept, 1, depth, size, 0.01) for size in (1e-4, 1e-6, 1e-8)]
    assert 0 < rates[2] < rates[1] / 4 < rates[0] / 16


@pytest.mark.parametrize(("kept", "rank"), [(J, k) for J in ((), (0,), (1,), (0, 2)) for k in range(max(1, len(J)), 4)])
def test_escapes_of_points_of_lower_rank(kept, rank):
    # Pairs a in J, b not in J with λ_b > λ_a; and (k − |J|) (n − |J|) empty columns where these grow exponentially.
    pairs = sum(b < a for a in kept for b in {0, 1, 2} - set(kept))
    columns = (rank - len(kept)) * (3 - len(kept))
    for kind, growing in ((0, (1, 2)), (0.1, (1,)), ("frobenius", (1,))):
        loss = make_loss(kind, np.diag(SPECTRUM))
        for depth in (1, 2, 3, 10):
            spectrum = local_spectrum(loss, kept, depth, rank)
            assert spectrum.escapes == pairs + (columns if depth in growing else 0)
    fastest = local_spectrum(BuresWasserstein(np.diag(SPECTRUM)), (), 2, rank).escape_rate
    assert fastest == pytest.approx(2 * np.sqrt(3), rel=1e-14)


@pytest.mark.parametrize("kept", [(), (0,), (1, 2)])
def test_without_smoothing_one_layer_is_not_stationary_below_its_rank(kept):
    # A kink: from W_J plus t ω_b in an empty column L falls like −2 √λ_b t, however small t is.
    loss, rank = BuresWasserstein(np.diag(SPECTRUM)), len(kept) + 1
    for b in set(range(3)) - set(kept):
        for t in (1e-3, 1e-6):
            W = factor(loss, kept, rank)
            W[b, -1] = t
            assert (float(loss.value(W)) - value(loss, kept)) / t == pytest.approx(
                t - 2 * np.sqrt(SPECTRUM[b]), abs=1e-8
            )
    assert local_spectrum(loss, kept, 1, rank).escape_rate == np.inf


# --- The kinds of critical points -------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_zero_matrix_is_a_local_maximum_and_no_saddle(rng, depth):
    # 0 < ε < λ_n: every matrix near W = 0 has a lower loss. On layers no point near W = 0 has a higher loss.
    loss = BuresWasserstein(np.diag(SPECTRUM), 0.5)
    at_zero = value(loss, ())
    near = 1e-3 * rng.standard_normal((200, 3, 3))
    assert (loss.value(near) < at_zero).all()
    layers = [0.03 * rng.standard_normal((200, 3, 3)) for _ in range(depth)]
    assert (network_loss(loss, layers) < at_zero).all()
    assert np.linalg.eigvalsh(hessian(loss, np.zeros((3, 3)))).max() < 0


def test_the_zero_matrix_is_no_maximum_where_the_smoothing_exceeds_an_eigenvalue():
    # λ_n < ε: direction n rises, the others fall.
    loss = BuresWasserstein(np.diag(SPECTRUM), 1.5)
    curvatures = np.linalg.eigvalsh(hessian(loss, np.zeros((3, 1))))
    np.testing.assert_allclose(curvatures, 2 * (1 - np.sqrt(SPECTRUM / 1.5)), rtol=1e-12)
    assert curvatures[0] < 0 < curvatures[-1]


def test_the_sum_of_squares_has_a_negative_term():
    # λ = (4, 2, 1), k = 1, ε = 0.1, W turned by equal angles towards both: tr (I − T*)(S − S*) is −5 times the excess.
    loss = BuresWasserstein(np.diag([4.0, 2.0, 1.0]), 0.1)
    W = np.sqrt(3.9) * np.array([[1.0], [1e-4], [1e-4]])
    t = np.array([1.0, np.sqrt(20), np.sqrt(10)])
    linear = float(np.sum((1 - t) * (np.sum(W**2, axis=1) - [3.9, 0, 0])))
    assert linear / float(loss.excess(W, 1)) == pytest.approx(-5, abs=0.1)


# --- Curvature --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [1e-6, 0.01, 0.5, 4.0])
def test_the_hessian_with_smoothing_lies_between_two_bounds(make_target, rng, epsilon):
    # 2 (1 − √(λ_1/ε)) ≤ 2 (1 − λ_max(T)) ≤ spec ∇²L_ε(W) ≤ 2, at W of every size and rank.
    loss = BuresWasserstein(make_target(SPECTRUM), epsilon)
    low, high = bures_wasserstein_hessian_bounds(loss.eigenvalues, epsilon)
    assert (low, high) == (pytest.approx(2 * (1 - np.sqrt(3 / epsilon)), rel=1e-12), 2)
    nearest = np.inf
    for _ in range(100):
        columns = int(rng.integers(1, 4))
        W = 10 ** rng.uniform(-4, 1) * rng.standard_normal((3, columns)) * (rng.random(columns) < 0.7)
        curvatures = np.linalg.eigvalsh(hessian(loss, W))
        here = 2 * (1 - np.linalg.eigvalsh(loss.transport_map(W))[-1])
        tolerance = 1e-9 * (1 + abs(low))
        assert low - tolerance <= here <= curvatures[0] + tolerance
        assert curvatures[-1] <= high + tolerance
        if (W == 0).all(axis=0).any():  # an empty column: the second is an equality
            assert curvatures[0] == pytest.approx(here, rel=1e-8)
        nearest = min(nearest, abs(here / low - 1))
    assert nearest < 1e-3


def test_the_hessian_without_smoothing_has_no_lower_bound():
    assert bures_wasserstein_hessian_bounds(SPECTRUM, 0.0) == (-np.inf, 2.0)


def most_negative(eigenvalues, values):
    """λ_min of the Hessian of L_0 at a matrix of two columns along Ω_1 and Ω_2 with these singular values."""
    W = np.zeros((len(eigenvalues), 2))
    W[[0, 1], [0, 1]] = values
    return np.linalg.eigvalsh(hessian(BuresWasserstein(np.diag(eigenvalues)), W, 2))[0]


def test_the_blow_up_constant_is_that_of_equal_values():
    # λ = (4, 2, 1), two singular values that vanish like σ: −λ_min σ → 3.515; like σ and 10 σ: 1 or √2.
    eigenvalues, sigma = np.array([4.0, 2.0, 1.0]), 1e-6
    constant = blow_up_constant(BuresWasserstein(np.diag(eigenvalues)), np.zeros((3, 0)), np.eye(3)[:, :2])
    assert constant == pytest.approx(3.515, abs=5e-4)
    for values, expected in (((1, 1), constant), ((1, 10), 1.0), ((10, 1), np.sqrt(2))):
        found = -most_negative(eigenvalues, sigma * np.array(values)) * sigma
        assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("depth", [2, 3])
def test_a_smoothing_above_the_empty_directions_gives_the_tail_its_power(depth):
    # Minimum of rank below k: t^{−N/(N−1)} for ε > λ_b. (For ε = λ_b it is the tail of section 9.)
    loss = BuresWasserstein(np.diag([2.0, 0.1]), 0.4)
    flow = gradient_flow(loss, np.diag([1.0, 0.5]), depth, [2e3, 4e3])
    assert np.log2(flow.excess[0] / flow.excess[1]) == pytest.approx(depth / (depth - 1), rel=0.01)
    at_edge = BuresWasserstein(np.diag([2.0, 0.4]), 0.4)
    flow = gradient_flow(at_edge, np.diag([1.0, 0.5]), depth, [2e4, 4e4])
    assert np.log2(flow.excess[0] / flow.excess[1]) == pytest.approx(2 * depth / (2 * depth - 1), rel=0.01)


def test_balanced_layers_of_a_point_of_lower_rank_hold_its_value():
    loss = BuresWasserstein(np.diag(SPECTRUM))
    assert network_loss(loss, network(loss, (1,), 2, 2).layers) == pytest.approx(value(loss, (1,)), rel=1e-14)
