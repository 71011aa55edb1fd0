"""Critical points: their enumeration by loss, the closed form of their values, layers and local spectra."""

import math
from itertools import chain, combinations, islice, pairwise

import numpy as np
import pytest

from deepbures.landscape import critical_points as module
from deepbures.landscape.critical_points import (
    CriticalPoint,
    LocalSpectrum,
    count,
    critical_points,
    factor,
    index_sets,
    local_spectrum,
    nearest,
    network,
    spread,
    value,
)
from deepbures.losses.registry import BuresWasserstein, Frobenius

SPECTRUM = np.array([3.0, 2.2, 1.3, 0.5])
LONG = np.array([5.03, 3.17, 2.31, 1.29, 0.71, 0.4])
#: ε below all of SPECTRUM, above one of them, above three; "frobenius" names the other loss.
KINDS = [0, 0.2, 1.0, 2.5, "frobenius"]
DEPTHS = [1, 2, 3, 5, 10]


def make_loss(kind, covariance):
    """`kind` is "frobenius", or ε of the Bures-Wasserstein loss."""
    return Frobenius(covariance) if kind == "frobenius" else BuresWasserstein(covariance, kind)


def kept_spectrum(kind, eigenvalues):
    """s_a, by its definition."""
    return eigenvalues if kind == "frobenius" else np.maximum(eigenvalues - kind, 0)


def loss_of(kind, eigenvalues, kept):
    """Σ_{j∉J} (λ_j + ε − 2 √(ε λ_j)), or Σ_{j∉J} λ_j² (paper.md section 3)."""
    missing = np.delete(eigenvalues, list(kept))
    return np.sum(missing**2 if kind == "frobenius" else missing + kind - 2 * np.sqrt(kind * missing))


def by_brute_force(kind, eigenvalues, ranks):
    """All index sets of these sizes with their losses, sorted by loss."""
    possible = np.flatnonzero(kept_spectrum(kind, eigenvalues) > 0).tolist()
    sets = chain.from_iterable(combinations(possible, rank) for rank in ranks)
    return sorted((loss_of(kind, eigenvalues, kept), kept) for kept in sets)


def points_of_rank_at_most(loss, rank):
    return list(critical_points(loss, rank, lower_ranks=True))


def orthogonal(rng, n):
    return np.linalg.qr(rng.standard_normal((n, n)))[0]


# --- Enumeration ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lower_ranks", [False, True])
@pytest.mark.parametrize("kind", [0, 0.2, 0.5, 2.0, 6.0, "frobenius"])
def test_enumeration_is_all_index_sets_by_loss(make_target, kind, lower_ranks):
    # Where ε leaves fewer than k directions, the lower ranks come unasked, down to W = 0 alone for ε > λ_1.
    loss = make_loss(kind, make_target(LONG))
    available = int(np.sum(kept_spectrum(kind, LONG) > 0))
    for rank in range(1, 7):
        lower = lower_ranks or available < rank
        expected = by_brute_force(kind, LONG, range(rank + 1) if lower else [rank])
        found = list(critical_points(loss, rank, lower_ranks=lower_ranks))
        assert [point.kept for point in found] == [kept for _, kept in expected]
        assert [point.order for point in found] == list(range(len(expected)))
        np.testing.assert_allclose([point.value for point in found], [v for v, _ in expected], rtol=1e-12, atol=1e-13)
        assert count(loss, rank, lower_ranks=lower_ranks) == len(found)
        assert found[0].value == pytest.approx(loss.minimum_value(rank), rel=1e-12, abs=1e-14)
        assert all(before.value <= after.value for before, after in pairwise(found))


@pytest.mark.parametrize(
    ("kind", "eigenvalues"),
    [
        (0, [2, 2, 1, 1, 1]),
        (0.5, [2, 2, 1, 1, 1]),
        (0, [3, 3, 3, 3]),
        (0, [64, 49, 16, 1]),  # 64 + 1 = 49 + 16
        ("frobenius", [8, 7, 4, 1]),
        ("frobenius", [2, 2, 2, 1, 1]),
    ],
    ids=str,
)
def test_ties_come_in_order_of_the_index_set(kind, eigenvalues):
    eigenvalues = np.array(eigenvalues, dtype=float)
    loss = make_loss(kind, np.diag(eigenvalues))
    for rank in range(1, len(eigenvalues) + 1):
        exact = [(round(v, 9), kept) for v, kept in by_brute_force(kind, eigenvalues, [rank])]
        assert list(index_sets(loss, rank)) == [kept for _, kept in sorted(exact)]
        assert [point.kept for point in critical_points(loss, rank)] == [kept for _, kept in sorted(exact)]
    assert {point.kept for point in points_of_rank_at_most(loss, 2)} == {
        kept for _, kept in by_brute_force(kind, eigenvalues, range(3))
    }


def test_values_of_a_small_spectrum_by_hand():
    # λ = 9, 4, 1 and ε = 1/4: the empty directions add (3 − ½)², (2 − ½)², (1 − ½)².
    found = list(critical_points(BuresWasserstein(np.diag([9.0, 4.0, 1.0]), 0.25), 2, lower_ranks=True))
    assert found == [
        CriticalPoint((0, 1), 0, 0.25),
        CriticalPoint((0, 2), 1, 2.25),
        CriticalPoint((0,), 2, 2.5),
        CriticalPoint((1, 2), 3, 6.25),
        CriticalPoint((1,), 4, 6.5),
        CriticalPoint((2,), 5, 8.5),
        CriticalPoint((), 6, 8.75),
    ]
    assert [point.value for point in critical_points(BuresWasserstein(np.diag([9.0, 4.0, 1.0])), 1)] == [5, 10, 13]
    assert [point.value for point in critical_points(Frobenius(np.diag([9.0, 4.0, 1.0])), 1)] == [17, 82, 97]


@pytest.mark.parametrize("kind", [0, 0.2, "frobenius"])
def test_first_of_astronomically_many_points_come_at_once(kind):
    # C(60, 30) = 1.2e17. The best sets keep the first 26 of λ_j = 1/j and 4 of the next 8, by brute force.
    eigenvalues = 20 / np.arange(1, 61)
    loss = make_loss(kind, np.diag(eigenvalues))
    assert count(loss, 30) == math.comb(60, 30)
    best = sorted(combinations(range(26, 34), 4), key=lambda J: loss_of(kind, eigenvalues, (*range(26), *J)))[:5]
    expected = [(*range(26), *J) for J in best]
    assert [point.kept for point in islice(critical_points(loss, 30), 5)] == expected
    assert list(islice(index_sets(loss, 30), 5)) == expected
    assert next(critical_points(loss, 30, lower_ranks=True)).kept == tuple(range(30))


@pytest.mark.parametrize("kind", [0, 0.3, "frobenius"])
def test_index_sets_of_extreme_ranks(kind):
    # The empty set alone, all directions alone, and none where ε cuts one of them off.
    loss = make_loss(kind, np.diag(SPECTRUM))
    assert list(index_sets(loss, 0)) == [()]
    assert list(index_sets(loss, 4)) == [(0, 1, 2, 3)]
    assert list(index_sets(BuresWasserstein(np.diag(SPECTRUM), 0.5), 4)) == []  # ε = λ_4 keeps nothing of it


def test_zero_eigenvalues_are_not_kept():
    for loss in (BuresWasserstein(np.diag([2.0, 1.0, 0.0])), Frobenius(np.diag([2.0, 1.0, 0.0]))):
        assert list(index_sets(loss, 2)) == [(0, 1)]
        assert [point.kept for point in critical_points(loss, 3)] == [(0, 1), (0,), (1,), ()]
        assert count(loss, 3) == 4


@pytest.mark.parametrize("lower_ranks", [False, True])
@pytest.mark.parametrize("kind", [0, 0.5, "frobenius"])
def test_spread_is_even_from_the_minimum_to_the_worst(make_target, kind, lower_ranks):
    loss = make_loss(kind, make_target(LONG))
    everything = list(critical_points(loss, 3, lower_ranks=lower_ranks))
    total = len(everything)
    assert spread(loss, 3, 1, lower_ranks=lower_ranks) == everything[:1]
    assert spread(loss, 3, 2, lower_ranks=lower_ranks) == [everything[0], everything[-1]]
    for number in (4, 7, total - 1):
        chosen = spread(loss, 3, number, lower_ranks=lower_ranks)
        assert len(chosen) == number
        assert chosen == [everything[point.order] for point in chosen]
        even = np.arange(number) * (total - 1) / (number - 1)
        assert np.abs([point.order for point in chosen] - even).max() <= 0.5
    for number in (total, total + 1, 10 * total):
        assert spread(loss, 3, number, lower_ranks=lower_ranks) == everything


def test_spread_walks_through_a_million_points_at_most(monkeypatch):
    assert module.MAX_WALK == 10**6
    loss = Frobenius(np.diag(LONG))  # C(6, 3) = 20
    monkeypatch.setattr(module, "MAX_WALK", 20)
    assert len(spread(loss, 3, 20)) == 20
    monkeypatch.setattr(module, "MAX_WALK", 19)
    with pytest.raises(
        ValueError, match=r"^rank 3 of dimension 6 has 20 critical points, more than the 19 .*first ones"
    ):
        spread(loss, 3, 1)


# --- The points as matrices and as layers -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_vanishes_and_the_loss_is_the_closed_form(make_target, rng, kind):
    # At every point of rank ≤ 4, turned by any V; for ε = 0 the pseudo-inverse gives 0 at lower ranks, too.
    loss = make_loss(kind, make_target(SPECTRUM))
    for point in points_of_rank_at_most(loss, 4):
        expected = loss_of(kind, SPECTRUM, point.kept)
        assert point.value == value(loss, point.kept) == pytest.approx(expected, rel=1e-12, abs=1e-14)
        for width in {max(1, len(point.kept)), 4}:
            W = factor(loss, point.kept, width) @ orthogonal(rng, width)
            assert loss.value(W) == pytest.approx(expected, rel=1e-12, abs=1e-13)
            np.testing.assert_allclose(loss.gradient(W), 0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_factor_keeps_the_directions_in_order(make_target, kind):
    # W_J = Ω_J diag(s_J)^{1/2}, then columns of zeros.
    loss = make_loss(kind, make_target(SPECTRUM))
    s = kept_spectrum(kind, SPECTRUM)
    for point in points_of_rank_at_most(loss, 4):
        J = list(point.kept)
        W = factor(loss, point.kept, 5)
        assert W.shape == (4, 5)
        np.testing.assert_allclose(W[:, : len(J)], loss.eigenvectors[:, J] * np.sqrt(s[J]), atol=1e-14)
        assert not W[:, len(J) :].any()
        np.testing.assert_array_equal(factor(loss, point.kept), W[:, : len(J)])


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_balanced_and_multiply_to_the_factor(make_target, kind, depth):
    loss = make_loss(kind, make_target(SPECTRUM))
    width, input_dimension = 3, 6
    for point in points_of_rank_at_most(loss, width):
        built = network(loss, point.kept, depth, width, input_dimension)
        shapes = [layer.shape for layer in built.layers]
        W = factor(loss, point.kept, width)
        if depth == 1:
            assert shapes == [(4, width)]
        else:
            assert shapes == [(width, input_dimension), *[(width, width)] * (depth - 2), (4, width)]
            W = np.pad(W, ((0, 0), (0, input_dimension - width)))
        assert built.balancedness() < 1e-14
        np.testing.assert_allclose(built.end_to_end(), W, atol=1e-14)
        gradients = built.layer_gradients(loss.gradient(built.end_to_end()))
        assert max(np.abs(gradient).max() for gradient in gradients) < 1e-12


def test_input_of_the_layers_has_the_dimension_of_the_data_by_default():
    loss = Frobenius(np.diag(SPECTRUM))
    assert [layer.shape for layer in network(loss, (1,), 3, 2).layers] == [(2, 4), (2, 2), (4, 2)]
    assert [layer.shape for layer in network(loss, (1,), 2, 2, 2).layers] == [(2, 2), (4, 2)]


@pytest.mark.parametrize("kind", KINDS)
def test_nearest_finds_the_index_set_of_perturbed_points(make_target, rng, kind):
    loss = make_loss(kind, make_target(SPECTRUM))
    for rank in (1, 2, 4):
        for point in points_of_rank_at_most(loss, rank):
            exact = factor(loss, point.kept, rank) @ orthogonal(rng, 5)[:rank]
            W = exact + 0.02 * rng.standard_normal(exact.shape)
            kept, distance = nearest(loss, W, rank)
            assert kept == point.kept
            assert distance == pytest.approx(np.linalg.norm(W @ W.T - exact @ exact.T), rel=1e-10)
            assert nearest(loss, exact, rank) == (point.kept, pytest.approx(0, abs=1e-13))


def test_nearest_keeps_what_exceeds_half_of_its_place(rng):
    # Shares of s = λ − ε: 0.49 and 0.51 of it; of three above a half the two largest; nothing where λ < ε.
    loss = BuresWasserstein(np.diag([4.0, 3.0, 2.0, 0.5]), 1.0)
    s = np.array([3.0, 2.0, 1.0, 0.0])

    def found(shares, rank, last=0.0):
        S = np.diag(s * [*shares, 0] + [0, 0, 0, last])
        kept, distance = nearest(loss, np.sqrt(S) @ orthogonal(rng, 4), rank)
        expected = np.zeros(4)
        expected[list(kept)] = s[list(kept)]
        assert distance == pytest.approx(np.linalg.norm(S - np.diag(expected)), abs=1e-13)
        return kept

    assert found([0.49, 0.51, 0.2], 3) == (1,)
    assert found([0.6, 0.9, 1.5], 2) == (1, 2)
    assert found([0.6, 0.9, 1.5], 4) == (0, 1, 2)
    assert found([0.9, 0.7, 0.8], 1) == (0,)
    assert found([0, 0, 1], 2, last=10.0) == (2,)
    assert found([0, 0, 0], 2) == ()


# --- Local spectra ----------------------------------------------------------------------------------------------


def minus_flow_jacobians(loss, depth, sets, rank, step):
    """−∂/∂Z of dZ/dt = −∇L(F) Cᵀ at each W_J, F = Z C, C = (ZᵀZ)^{(N−1)/2}, by differences of fourth order.

    With Z = U z Vᵀ it is F = U z^N Vᵀ and C = V z^{N−1} Vᵀ, exact for the tiny z of empty columns, too.
    """
    n = loss.dimension

    def velocity(Z):
        U, z, Vh = np.linalg.svd(Z, full_matrices=False)
        C = (Vh.mT * z[..., None, :] ** (depth - 1)) @ Vh
        return -loss.gradient((U * z[..., None, :] ** depth) @ Vh) @ C

    Z, h = np.zeros((len(sets), n, rank)), np.full(len(sets), step / depth)
    for i, kept in enumerate(sets):
        z = np.sqrt(loss.minimum_spectrum(n)[list(kept)]) ** (1 / depth)
        Z[i, :, : len(kept)] = loss.eigenvectors[:, list(kept)] * z
        h[i] *= z.min(initial=1)
    Z = Z @ orthogonal(np.random.default_rng(0), rank)
    directions = h[:, None, None, None] * np.eye(n * rank).reshape(-1, n, rank)
    near_up, near_down, far_up, far_down = (velocity(Z[:, None] + i * directions) for i in (1, -1, 2, -2))
    difference = 8 * (near_up - near_down) - (far_up - far_down)
    return -(difference / (12 * h[:, None, None, None])).reshape(len(sets), n * rank, -1).swapaxes(1, 2)


def deviations_from_jacobians(loss, depth, sets, rank, step=1e-3):
    """Largest deviation of the sorted spectra at each W_J, as a share of the largest rate."""
    spectra = [local_spectrum(loss, kept, depth, rank) for kept in sets]
    expected = np.sort([[*spectrum.rates, *[0] * spectrum.zeros] for spectrum in spectra], axis=1)
    assert expected.shape == (len(sets), loss.dimension * rank)
    found = np.linalg.eigvals(minus_flow_jacobians(loss, depth, sets, rank, step))
    scale = np.abs(expected).max(axis=1)
    return np.abs(np.sort(found, axis=1) - expected).max(axis=1) / np.where(scale > 0, scale, 1)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_local_spectrum_is_that_of_the_jacobian_at_every_point(make_target, kind, depth):
    # n k eigenvalues in all, for k = 1..4. Where ε = 0 the flow has no Jacobian at lower ranks, or (N ≥ 3) one that
    # differences reach slowly: those are tested by themselves.
    loss = make_loss(kind, make_target(SPECTRUM, seed=4))
    for rank in range(1, 5):
        sets = [point.kept for point in critical_points(loss, rank, lower_ranks=kind != 0)]
        assert deviations_from_jacobians(loss, depth, sets, rank).max() < 1e-8


@pytest.mark.parametrize(("depth", "step", "tolerance"), [(3, 1e-6, 1e-5), (5, 1e-4, 1e-7), (10, 1e-3, 1e-9)])
def test_empty_columns_are_flat_for_deep_layers_without_smoothing(make_target, depth, step, tolerance):
    # ε = 0, N ≥ 3: the gradient jumps by O(1) in an empty column and is carried by z^{N−1}, so that the differences
    # err by O(h^{N−2}).
    loss = BuresWasserstein(make_target(SPECTRUM, seed=4))
    for rank in range(1, 5):
        sets = [kept for size in range(rank) for kept in combinations(range(4), size)]
        assert deviations_from_jacobians(loss, depth, sets, rank, step).max() < tolerance


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("kind", [0, 0.2, "frobenius"])
def test_number_of_escapes_is_that_of_the_pairs(kind, depth):
    # a in J, b not in J with λ_b > λ_a, at every point of rank k; only J = {1..k} has none.
    loss = make_loss(kind, np.diag(LONG))
    for rank in range(1, 7):
        for kept in combinations(range(6), rank):
            spectrum = local_spectrum(loss, kept, depth, rank)
            pairs = sum(b < a for a in kept for b in set(range(6)) - set(kept))
            assert spectrum.escapes == pairs
            assert (pairs == 0) == (kept == tuple(range(rank))) == (spectrum.escape_rate == 0)
            assert spectrum.zeros == rank * (rank - 1) // 2
            assert spectrum.in_block.shape == (rank * (rank + 1) // 2,)
            assert (spectrum.in_block > 0).all()
            assert spectrum.empty.size == 0


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("kind", [0, 0.3, "frobenius"])
def test_rates_by_their_formulas_in_their_order(kind, depth):
    # J = {2, 4} of four (paper.md section 4), off-block row by row.
    loss, kept = make_loss(kind, np.diag(SPECTRUM)), (1, 3)
    spectrum = local_spectrum(loss, kept, depth, 2)
    s, N = kept_spectrum(kind, SPECTRUM), depth
    power = 1 - 1 / N

    def in_block(a, b):
        P = N * s[a] ** power if a == b else (s[a] - s[b]) / (s[a] ** (1 / N) - s[b] ** (1 / N))
        return 4 * (s[a] + s[b]) * P if kind == "frobenius" else 2 * (s[a] + s[b]) / (SPECTRUM[a] + SPECTRUM[b]) * P

    def off_block(a, b):
        gap = s[a] ** power * (SPECTRUM[a] - SPECTRUM[b])
        return 4 * gap if kind == "frobenius" else 2 * gap / (SPECTRUM[a] + np.sqrt(kind * SPECTRUM[b]))

    np.testing.assert_allclose(spectrum.in_block, [in_block(1, 1), in_block(1, 3), in_block(3, 3)], rtol=1e-12)
    np.testing.assert_allclose(spectrum.off_block, [off_block(a, b) for a in kept for b in (0, 2)], rtol=1e-12)
    np.testing.assert_array_equal(spectrum.rates, np.concatenate([spectrum.in_block, spectrum.off_block]))
    assert spectrum.escape_rate == pytest.approx(-min(off_block(1, 0), off_block(3, 0), off_block(3, 2)), rel=1e-12)


def test_empty_columns_of_one_layer_column_by_column():
    # N = 1: 2 (1 − √(λ_b/ε)), −4 λ_b, and −∞ at the kink of ε = 0, for b outside J, k − |J| times.
    outside = SPECTRUM[[0, 2, 3]]
    covariance = np.diag(SPECTRUM)
    for loss, expected in (
        (BuresWasserstein(covariance, 1.0), 2 * (1 - np.sqrt(outside))),
        (Frobenius(covariance), -4 * outside),
        (BuresWasserstein(covariance), np.full(3, -np.inf)),
    ):
        spectrum = local_spectrum(loss, (1,), 1, 3)
        np.testing.assert_allclose(spectrum.empty, [*expected, *expected], rtol=1e-14)
        assert spectrum.rates.tolist() == [*spectrum.in_block, *spectrum.off_block, *spectrum.empty]
        assert spectrum.zeros == 2  # r (r − 1)/2 + r (k − r)
        assert spectrum.escapes == 1 + 2 * np.sum(expected < 0)
        np.testing.assert_array_equal(local_spectrum(loss, (1,), 4, 3).empty, np.zeros(6))
        assert local_spectrum(loss, (1,), 4, 3).escapes == 1
    assert local_spectrum(BuresWasserstein(covariance), (1,), 1, 3).escape_rate == np.inf


@pytest.mark.filterwarnings("error")
def test_empty_directions_of_a_singular_target_decay():
    # λ_b = 0: L = ‖v‖² in that direction, rate 2, without a kink for ε = 0.
    for epsilon in (0, 0.1):
        loss = BuresWasserstein(np.diag([2.0, 1.0, 0.0]), epsilon)
        assert local_spectrum(loss, (0, 1), 1, 3).empty.tolist() == [2.0]
    assert local_spectrum(Frobenius(np.diag([2.0, 1.0, 0.0])), (0, 1), 1, 3).empty.tolist() == [0.0]


@pytest.mark.parametrize("depth", [1, 3])
def test_exchange_of_equal_eigenvalues_is_neutral(depth):
    for loss in (BuresWasserstein(np.diag([2.0, 2.0, 1.0]), 0.1), Frobenius(np.diag([2.0, 2.0, 1.0]))):
        spectrum = local_spectrum(loss, (1,), depth, 1)
        assert spectrum.off_block[0] == 0
        assert spectrum.escapes == 0
        assert spectrum.escape_rate == 0


def test_escape_rate_is_the_fastest_of_all_blocks():
    none = np.array([])
    assert LocalSpectrum(np.array([1.0]), np.array([-0.5, 2.0]), np.array([-3.0, 0.0]), 0).escape_rate == 3
    assert LocalSpectrum(np.array([1.0]), np.array([-0.5, -0.7]), none, 1).escapes == 2
    assert LocalSpectrum(none, none, none, 1).escape_rate == 0


# --- Bad input --------------------------------------------------------------------------------------------------

LOSS = BuresWasserstein(np.diag(SPECTRUM), 0.6)
STACK = Frobenius(np.stack([np.eye(2)] * 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: list(index_sets(LOSS, -1)), r"^rank must lie between 0 and the dimension 4, not -1$"),
        (lambda: list(index_sets(LOSS, 5)), r"^rank must lie between 0 and the dimension 4, not 5$"),
        (lambda: list(critical_points(LOSS, 0)), r"^rank must lie between 1 and the dimension 4, not 0$"),
        (lambda: list(critical_points(LOSS, 5)), r"^rank must lie between 1 and the dimension 4, not 5$"),
        (lambda: spread(LOSS, 2, 0), r"^number must be at least 1, not 0$"),
        (lambda: value(LOSS, (0, 0)), r"^kept must hold different indices from 0 to 3, not \(0, 0\)$"),
        (lambda: value(LOSS, (4,)), r"^kept must hold different indices from 0 to 3, not \(4,\)$"),
        (lambda: factor(LOSS, (-1,)), r"^kept must hold different indices from 0 to 3, not \(-1,\)$"),
        (lambda: factor(LOSS, (0, 3)), r"λ_j above epsilon: index 3 has 0\.5$"),
        (lambda: local_spectrum(LOSS, (3,), 2, 1), r"λ_j above epsilon: index 3 has 0\.5$"),
        (lambda: factor(LOSS, (0, 1), 1), r"^width must be at least the rank of the point, 2, not 1$"),
        (lambda: network(LOSS, (0, 1), 1, 1), r"^width must be at least the rank of the point, 2, not 1$"),
        (lambda: network(LOSS, (0, 1), 2, 1), r"^width must be at least the rank of the point, 2, not 1$"),
        (lambda: network(LOSS, (0,), 2, 3, 2), r"^input_dimension must be at least the width 3, not 2$"),
        (lambda: network(LOSS, (0,), 0, 1), r"^depth must be an integer ≥ 1, not 0$"),
        (lambda: local_spectrum(LOSS, (0,), 1.5, 1), r"^depth must be an integer ≥ 1, not 1\.5$"),
        (lambda: local_spectrum(LOSS, (0, 1), 2, 1), r"^rank must lie between 2 and the dimension 4, not 1$"),
        (lambda: local_spectrum(LOSS, (), 2, 0), r"^rank must lie between 1 and the dimension 4, not 0$"),
        (lambda: local_spectrum(LOSS, (0,), 2, 5), r"^rank must lie between 1 and the dimension 4, not 5$"),
        (lambda: list(index_sets(STACK, 1)), r"^loss must have one target, not a stack of shape \(3,\)$"),
        (lambda: list(critical_points(STACK, 1)), r"^loss must have one target, not a stack of shape \(3,\)$"),
        (lambda: count(STACK, 1), r"^loss must have one target, not a stack of shape \(3,\)$"),
        (lambda: value(STACK, (0,)), r"^loss must have one target, not a stack of shape \(3,\)$"),
        (lambda: network(STACK, (0,), 2, 1), r"^loss must have one target, not a stack of shape \(3,\)$"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
