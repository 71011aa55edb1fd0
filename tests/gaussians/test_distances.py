"""Distances, transport maps and geodesics against 50 digits."""

import tracemalloc

import exact
import mpmath as mp
import numpy as np
import pytest

from deepbures import (
    LowRankCovariance,
    barycenter,
    frechet_distance,
    geodesic,
    sample_moments,
    squared_distance,
    transport_map,
)

EPS = np.finfo(float).eps
CONDITIONS = pytest.mark.parametrize("condition", [1, 1e4, 1e8])
RANKS = pytest.mark.parametrize(("rank_a", "rank_b"), [(6, 6), (6, 2), (2, 6), (3, 2), (1, 1)])


def covariances(make_target, condition, n=6):
    spectrum = np.geomspace(3, 3 / condition, n)
    return make_target(spectrum, 1), make_target(spectrum / 2, 2)


def integer_factors(rng, rank_a, rank_b, n=6):
    """Factors whose products F Fᵀ are exact in double precision: exactly singular."""
    return rng.integers(-4, 5, (n, rank_a)).astype(float), rng.integers(-4, 5, (n, rank_b)).astype(float)


def distance_error(found, A, B):
    """|d − d_exact| in units of eps √λ_1."""
    scale = np.sqrt(max(float(max(exact.eigenvalues(M))) for M in (A, B) if isinstance(M, np.ndarray)))
    return float(abs(mp.sqrt(mp.mpf(float(found))) - mp.sqrt(exact.squared_distance(A, B)))) / (EPS * scale)


@CONDITIONS
def test_distance_of_regular_covariances(make_target, condition):
    A, B = covariances(make_target, condition)
    assert distance_error(squared_distance(A, B), A, B) < 20 * np.sqrt(condition)


@CONDITIONS
def test_small_distance_has_the_digits_that_the_covariances_determine(make_target, condition):
    A, _ = covariances(make_target, condition)
    B = A + 1e-7 * np.diag(np.diag(A))
    # The difference of the traces would leave nothing of d²: it is off by eps tr A.
    assert distance_error(squared_distance(A, B), A, B) < 20 * np.sqrt(condition)
    relative = float(squared_distance(A, B)) / float(exact.squared_distance(A, B)) - 1
    assert abs(relative) < 1e-7 * np.sqrt(condition)


@RANKS
def test_distance_at_any_rank(rng, rank_a, rank_b):
    F, G = integer_factors(rng, rank_a, rank_b)
    expected = float(exact.squared_distance(F @ F.T, G @ G.T))
    for A in (F @ F.T, LowRankCovariance(F)):
        for B in (G @ G.T, LowRankCovariance(G)):
            assert squared_distance(A, B) == pytest.approx(expected, rel=1e-13)
            assert squared_distance(B, A) == pytest.approx(expected, rel=1e-13)


def test_factors_lose_no_digits_by_their_condition(rng):
    F = rng.standard_normal((6, 3)) * [1, 1e-6, 1e-12]
    G = F + 1e-9 * rng.standard_normal((6, 3))
    found = squared_distance(LowRankCovariance(F), LowRankCovariance(G))
    expected = exact.squared_distance(exact.low_rank(F, 0), exact.low_rank(G, 0))
    assert float(found) == pytest.approx(float(expected), rel=1e-6)  # eps √λ_1/d = 1e-7
    assert squared_distance(np.zeros((6, 6)), LowRankCovariance(F)) == pytest.approx(np.sum(F**2), rel=1e-14)


@pytest.mark.parametrize(("floor_a", "floor_b"), [(0.5, 0.25), (0.0, 0.25), (0.5, 0.0), (1e-12, 1e-10)])
@pytest.mark.parametrize("columns", [(2, 3), (4, 5), (9, 1)])  # less than n together, more, more than n alone
def test_low_rank_plus_floor(rng, floor_a, floor_b, columns):
    F, G = rng.standard_normal((7, columns[0])), rng.standard_normal((7, columns[1]))
    A, B = LowRankCovariance(F, floor_a), LowRankCovariance(G, floor_b)
    expected = float(exact.squared_distance(exact.low_rank(F, floor_a), exact.low_rank(G, floor_b)))
    dense = G @ G.T + floor_b * np.eye(7)
    assert squared_distance(A, B) == pytest.approx(expected, rel=1e-13)
    assert squared_distance(A, dense) == pytest.approx(expected, rel=1e-8 if floor_b < 1e-9 else 1e-12)
    if floor_a > 1e-9:
        T = transport_map(A, B)
        target = G @ G.T + floor_b * np.eye(7)
        np.testing.assert_allclose(T @ (F @ F.T + floor_a * np.eye(7)) @ T, target, atol=1e-12 * np.trace(target))
        np.testing.assert_array_equal(T, T.T)
        np.testing.assert_allclose(T, transport_map(F @ F.T + floor_a * np.eye(7), dense), atol=1e-6)
    np.testing.assert_allclose(geodesic(A, B, [0, 1]), [F @ F.T + floor_a * np.eye(7), dense], atol=1e-13 * 30)


@CONDITIONS
def test_transport_map_of_regular_covariances(make_target, condition):
    A, B = covariances(make_target, condition)
    T, expected = transport_map(A, B), exact.rounded(exact.transport_map(A, B))
    np.testing.assert_allclose(T, expected, atol=20 * EPS * condition * np.abs(expected).max())
    np.testing.assert_allclose(T @ A @ T, B, atol=20 * EPS * condition)
    np.testing.assert_array_equal(T, T.T)
    assert np.linalg.eigvalsh(T)[0] > 0


def test_transport_map_to_a_singular_covariance(rng):
    F, G = integer_factors(rng, 6, 2)
    A, B = F @ F.T, G @ G.T
    np.testing.assert_allclose(transport_map(A, B), exact.rounded(exact.transport_map(A, B)), rtol=1e-10, atol=1e-12)


def test_transport_map_from_a_singular_covariance(rng):
    # One exists as long as the range of A is not orthogonal to a direction of B, and T A T = B.
    F, G = integer_factors(rng, 3, 2)
    for A, B in ((F @ F.T, G @ G.T), (LowRankCovariance(F), LowRankCovariance(G))):
        T = transport_map(A, B)
        np.testing.assert_allclose(T, exact.rounded(exact.transport_map(F @ F.T, G @ G.T)), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(T @ F @ F.T @ T, G @ G.T, atol=1e-11)
    for A, B in ((F @ F.T, np.eye(6)), (LowRankCovariance(F), LowRankCovariance(G, 0.1)), (G @ G.T, F @ F.T)):
        with pytest.raises(ValueError, match="A must not be singular where B is not"):
            transport_map(A, B)


@CONDITIONS
def test_geodesic(make_target, condition):
    A, B = covariances(make_target, condition)
    times = np.array([0, 0.25, 0.5, 1])
    path = geodesic(A, B, times)
    for t, found in zip(times, path, strict=True):
        expected = exact.rounded(exact.geodesic(A, B, t))
        np.testing.assert_allclose(found, expected, atol=20 * EPS * np.sqrt(condition))
    np.testing.assert_allclose(path[[0, -1]], [A, B], atol=20 * EPS)


def test_geodesic_has_constant_speed_at_any_rank(rng):
    F, G = integer_factors(rng, 2, 4)
    whole = np.sqrt(squared_distance(LowRankCovariance(F), LowRankCovariance(G)))
    times = np.array([0, 0.2, 0.7, 1])
    path = geodesic(LowRankCovariance(F), G @ G.T, times)
    steps = np.sqrt(squared_distance(path[:-1], path[1:]))
    np.testing.assert_allclose(steps, np.diff(times) * whole, rtol=1e-6)  # d of dense singular matrices: √eps


def test_barycenter_of_two_lies_on_the_geodesic(make_target):
    A, B = covariances(make_target, 10)
    np.testing.assert_allclose(barycenter([A, B], [0.7, 0.3]), geodesic(A, B, 0.3), atol=1e-10)


def test_stacks_are_as_their_members(rng):
    A, B = (X @ X.mT for X in (rng.standard_normal((3, 1, 4, 5)), rng.standard_normal((2, 4, 4))))
    t = rng.random((3, 2))
    found = squared_distance(A, B), transport_map(A, B), geodesic(A, B, t)
    floors = squared_distance(LowRankCovariance(A[..., :1], 0.5), LowRankCovariance(B[..., :1], [0.0, 1.0]))
    for i in range(3):
        for j in range(2):
            pair = A[i, 0], B[j]
            expected = squared_distance(*pair), transport_map(*pair), geodesic(*pair, t[i, j])
            for stack, single in zip(found, expected, strict=True):
                np.testing.assert_allclose(stack[i, j], single, rtol=1e-12, atol=1e-12)
            single = LowRankCovariance(A[i, 0, :, :1], 0.5), LowRankCovariance(B[j, :, :1], float(j))
            assert floors[i, j] == pytest.approx(squared_distance(*single), rel=1e-12)


def test_frechet_distance_of_samples_is_that_of_their_moments(rng):
    X, Y = rng.standard_normal((9, 5)), rng.standard_normal((12, 5)) + 1
    moments = [M for Z in (X, Y) for M in (Z.mean(axis=0), np.cov(Z.T))]
    found = frechet_distance(*sample_moments(X, ddof=1), *sample_moments(Y, ddof=1))
    assert found == pytest.approx(frechet_distance(*moments), rel=1e-12)
    between = np.sum((moments[0] - moments[2]) ** 2)
    assert found == pytest.approx(between + float(exact.squared_distance(moments[1], moments[3])), rel=1e-12)


def test_features_of_images_need_no_square_array(rng):
    m, n = 300, 2048
    X = rng.standard_normal((m, n))
    tracemalloc.start()
    found = frechet_distance(*sample_moments(X), *sample_moments(3 * X + 1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    mean, covariance = sample_moments(X)
    # Y = 3 X + 1: the map is 3 I, so that d² = (3 − 1)² tr A.
    expected = np.sum((2 * mean + 1) ** 2) + 4 * np.sum(covariance.factor**2)
    assert found == pytest.approx(expected, rel=1e-12)
    assert peak < 8 * (m * n) * 8 < 2 * 8 * n * n


def test_single_precision_is_computed_in_double(rng, make_target):
    A = make_target(np.geomspace(1, 1e-3, 5), 3).astype(np.float32)
    B = make_target(np.geomspace(2, 1e-3, 5), 4).astype(np.float32)
    symmetric = [(M.astype(float) + M.T.astype(float)) / 2 for M in (A, B)]
    assert squared_distance(A, B).dtype == float
    assert squared_distance(A, B) == pytest.approx(squared_distance(*symmetric), rel=1e-12)
    singular = make_target([1, 0.5, 0, 0, 0], 5).astype(np.float32)  # its rounding has negative eigenvalues
    assert 0 < squared_distance(singular, B) < 5


@pytest.mark.parametrize(
    ("A", "message"),
    [
        (np.full((2, 2), np.nan), "A must be finite"),
        ([[1, 2], [0, 1]], "A must be symmetric"),
        (-np.eye(2), "A must be positive semidefinite"),
        (np.eye(2) * 1j, r"A must hold real numbers; a Hermitian H can be given as the real matrix"),
        (np.ones((2, 3)), "A must be a square matrix"),
        (np.eye(3), "A and B must have one dimension, not 3 and 2"),
        (1e308 * np.eye(2), "A must have finite eigenvalues"),
        (np.ones((3, 2, 2)), r"stacks must fit, but A has the shape \(3,\) and B \(2,\)"),
    ],
)
def test_what_is_no_covariance_is_refused_in_one_line(A, message):
    for function in (squared_distance, transport_map, lambda *pair: geodesic(*pair, 0.5)):
        with pytest.raises(ValueError, match=message) as caught:
            function(A, np.stack([np.eye(2)] * 2))
        assert "\n" not in str(caught.value)


def test_a_hermitian_matrix_as_its_real_form(rng):
    def real(H):
        return np.block([[H.real, -H.imag], [H.imag, H.real]])

    X, Y = (rng.standard_normal((4, 5)) + 1j * rng.standard_normal((4, 5)) for _ in range(2))
    traces = np.sum(abs(X) ** 2) + np.sum(abs(Y) ** 2) - 2 * np.linalg.norm(X.conj().T @ Y, "nuc")
    assert squared_distance(real(X @ X.conj().T), real(Y @ Y.conj().T)) / 2 == pytest.approx(traces, rel=1e-11)


def test_bad_arguments_are_refused():
    for factor, floor, message in (
        (np.ones((3, 1)), -1, "floor must be ≥ 0"),
        (np.full((3, 1), np.inf), 0, "factor must be finite"),
        (np.full((3, 1), 1e200), 0, "factor must have a finite F Fᵀ"),
        (np.ones((2, 3, 1)), [1, 2, 3], "stacks must fit, but factor has the shape"),
    ):
        with pytest.raises(ValueError, match=message):
            LowRankCovariance(factor, floor)
    with pytest.raises(ValueError, match="t must lie between 0 and 1"):
        geodesic(np.eye(2), np.eye(2), 1.5)
    with pytest.raises(ValueError, match="means must have n = 2 entries"):
        frechet_distance([0, 0, 0], np.eye(2), [0, 0], np.eye(2))
    with pytest.raises(ValueError, match="samples must have more than ddof = 1 rows"):
        sample_moments(np.ones((1, 3)), ddof=1)
