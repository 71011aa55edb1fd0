"""What is measured along a run, against closed forms, POT and SciPy."""

import exact
import mpmath as mp
import numpy as np
import ot
import pytest
import scipy.linalg
from exact import balanced_gradient_norm

from deepbures.flow.gradient_flow import gradient_flow
from deepbures.linalg.roots import principal_columns
from deepbures.losses.registry import BuresWasserstein, Frobenius
from deepbures.model.diagnostics import (
    RANK_TOLERANCE,
    alignment,
    covariance_distance,
    effective_rank,
    numerical_rank,
    squared_bures_distance,
)
from deepbures.model.network import DeepLinearNetwork


def orthogonal(rng, n):
    return np.linalg.qr(rng.standard_normal((n, n)))[0]


def test_numerical_rank():
    # Singular values above a share of the largest.
    values = np.array([[5.0, 1.0, 5.1 * RANK_TOLERANCE, 4.9 * RANK_TOLERANCE], [1.0, 0, 0, 0], [1, 1, 1, 1]])
    assert numerical_rank(values).tolist() == [3, 1, 4]
    assert numerical_rank(values, 1e-6).tolist() == [4, 1, 4]
    assert numerical_rank(values[0]) == 3


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_effective_rank_of_equal_values_is_their_number(rank):
    values = np.where(np.arange(5) < rank, 3.0, 0)
    assert effective_rank(values) == pytest.approx(rank, rel=1e-14)


def test_effective_rank_is_the_exponential_of_the_entropy(rng):
    # exp(−Σ p_i log p_i), p_i = s_i / Σ s; it does not see the scale.
    values = rng.uniform(0, 1, (3, 6))
    expected = [np.exp(scipy.stats.entropy(row)) for row in values]
    np.testing.assert_allclose(effective_rank(values), expected, rtol=1e-13)
    np.testing.assert_allclose(effective_rank(7 * values), expected, rtol=1e-13)


def test_bures_distance_is_that_of_pot(rng):
    # B²(F Fᵀ, G Gᵀ), squared.
    F, G = rng.standard_normal((5, 6)), rng.standard_normal((5, 5))
    mean = np.zeros(5)
    distance = ot.gaussian.bures_wasserstein_distance(mean, mean, F @ F.T, G @ G.T)
    assert squared_bures_distance(F, G) == pytest.approx(distance**2, rel=1e-10)
    assert squared_bures_distance(G, F) == pytest.approx(distance**2, rel=1e-10)


def test_bures_distance_by_matrix_roots(rng):
    # tr A + tr B − 2 tr (A^{1/2} B A^{1/2})^{1/2}.
    F, G = rng.standard_normal((4, 4)), rng.standard_normal((4, 4))
    root = scipy.linalg.sqrtm(F @ F.T)
    expected = np.trace(F @ F.T) + np.trace(G @ G.T) - 2 * np.trace(scipy.linalg.sqrtm(root @ G @ G.T @ root))
    assert squared_bures_distance(F, G) == pytest.approx(np.real(expected), rel=1e-10)


@pytest.mark.parametrize(("p", "q"), [(2, 5), (5, 2), (3, 3), (1, 7), (7, 1)])
def test_bures_distance_in_fifty_digits(rng, p, q):
    # Rank-deficient factors of any width, to 1e-13.
    F, G = rng.standard_normal((5, p)), rng.standard_normal((5, q))
    expected = float(exact.bures_wasserstein(F, G @ G.T))
    if q >= 5:
        assert squared_bures_distance(F, G) == pytest.approx(expected, rel=1e-13)
    diagonal = np.diag([3.0, 2, 1, 0.5, 0.1])[:, :q]
    expected = float(exact.bures_wasserstein(F, diagonal @ diagonal.T))
    assert squared_bures_distance(F, diagonal) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("rank", [2, 5])
def test_small_bures_distances_keep_their_digits(rng, rank):
    # Between G and (G + δ) Q: relative accuracy 100 eps / B, where differences of traces end at 1e-14.
    G = np.diag([2.0, 1.5, 1.0, 0.5, 0.2])[:, :rank]
    for size in (1e-3, 1e-6, 1e-9, 1e-12):
        F = (G + size * rng.standard_normal(G.shape)) @ orthogonal(rng, rank)
        expected = exact.bures_wasserstein(F, G @ G.T)
        error = float(abs(mp.mpf(float(squared_bures_distance(F, G))) - expected) / expected)
        assert error < 100 * np.finfo(float).eps / float(mp.sqrt(expected))


def test_bures_distance_is_the_loss(make_target, rng):
    # L_0(W) = B²(W Wᵀ, Σ0), L_ε(W) = B²([W, √ε I], Σ0).
    loss, smoothed = (BuresWasserstein(make_target([3.0, 2.0, 1.0]), epsilon) for epsilon in (0, 0.3))
    W = rng.standard_normal((3, 2))
    root = loss.eigenvectors * np.sqrt(loss.eigenvalues)
    assert squared_bures_distance(W, root) == pytest.approx(loss.value(W), rel=1e-12)
    wide = np.hstack([W, np.sqrt(0.3) * np.eye(3)])
    assert squared_bures_distance(wide, root) == pytest.approx(smoothed.value(W), rel=1e-12)


def test_distances_take_stacks(rng):
    F, G = rng.standard_normal((4, 5, 2)), rng.standard_normal((5, 5))
    np.testing.assert_allclose(squared_bures_distance(F, G), [squared_bures_distance(f, G) for f in F], rtol=1e-12)
    np.testing.assert_allclose(
        covariance_distance(F, G @ G.T), [scipy.linalg.norm(f @ f.T - G @ G.T) for f in F], rtol=1e-13
    )


@pytest.mark.parametrize(("rank", "columns"), [(1, 4), (3, 6), (4, 4), (4, 6)])
@pytest.mark.parametrize("depth", [1, 2, 10])
@pytest.mark.parametrize("kind", [0, 0.2, "frobenius"])
def test_gradient_norm_is_that_of_the_balanced_layers(make_target, rng, kind, depth, columns, rank):
    # (Σ_j ‖∂L^N/∂W_j‖²)^{1/2} of the network itself, to 1e-11, from the n × k factor; from W as well at full rank
    # (below it, the N-th roots of the singular values 1e-16 are no longer small).
    covariance = make_target([3.0, 2.2, 1.3, 0.5])
    loss = Frobenius(covariance) if kind == "frobenius" else BuresWasserstein(covariance, kind)
    factor = rng.standard_normal((4, rank))
    W = factor @ orthogonal(rng, columns)[:rank]
    network = DeepLinearNetwork.balanced(W, depth, None if depth == 1 else rank)
    gradients = network.layer_gradients(loss.gradient(network.end_to_end()))
    expected = np.sqrt(sum(np.vdot(gradient, gradient) for gradient in gradients))
    assert balanced_gradient_norm(loss, factor, depth) == pytest.approx(expected, rel=1e-11)
    if rank == 4:
        assert balanced_gradient_norm(loss, W, depth) == pytest.approx(expected, rel=1e-11)


def test_gradient_norm_takes_stacks(make_target, rng):
    loss, F = BuresWasserstein(make_target([3.0, 2.0, 1.0]), 0.1), rng.standard_normal((2, 5, 3, 2))
    expected = [[balanced_gradient_norm(loss, f, 4) for f in row] for row in F]
    np.testing.assert_allclose(balanced_gradient_norm(loss, F, 4), expected, rtol=1e-12)


def test_alignment(rng):
    # |cos| between eigenvectors: the identity at the optimum, a permutation at another critical point.
    basis = orthogonal(rng, 4)

    def coordinates(P):
        return basis.T @ P

    aligned = alignment(basis * np.array([4.0, 3, 2, 1]), coordinates)
    np.testing.assert_allclose(aligned, np.eye(4), atol=1e-14)
    swapped = alignment((basis * np.array([1.0, 3, 2, 4]))[:, [1, 3, 0, 2]], coordinates)
    np.testing.assert_allclose(swapped, np.eye(4)[[3, 1, 2, 0]], atol=1e-14)
    F = rng.standard_normal((5, 4, 2))
    cosines = alignment(F, coordinates)
    assert cosines.shape == (5, 2, 4)
    np.testing.assert_allclose(np.sum(cosines**2, axis=-1), 1, rtol=1e-13)
    _, vectors = np.linalg.eigh(F[0] @ F[0].T)
    np.testing.assert_allclose(cosines[0], np.abs(vectors[:, ::-1][:, :2].T @ basis), atol=1e-12)


@pytest.mark.parametrize("least", [1.0, 1e-1, 1e-3, 0.0])
def test_principal_columns_agree_with_singular_values_at_every_condition(rng, least):
    # Well conditioned from Gram matrices, else from an SVD: on each side of the switch, in one stack too.
    U, V = (np.linalg.qr(rng.standard_normal((5, rows, 4)))[0] for rows in (6, 4))
    sigma = np.array([3.0, 2.0, 1.5, least]) * np.array([1.0, 1e-9, 1.0, 1e9, 1.0])[:, None]
    F = (U * sigma[:, None, :]) @ V.mT
    columns, directions, lengths = principal_columns(F)
    largest = sigma[:, :1]
    np.testing.assert_allclose(lengths / largest, sigma / largest, atol=1e-13)
    np.testing.assert_allclose(
        columns / largest[..., None], directions * lengths[:, None, :] / largest[..., None], atol=1e-13
    )
    scale = largest[..., None] ** 2
    np.testing.assert_allclose(columns @ columns.mT / scale, F @ F.mT / scale, atol=1e-13)
    np.testing.assert_allclose(directions.mT @ directions, [np.eye(4)] * 5, atol=1e-12)


@pytest.mark.parametrize("depth", [1, 2, 7])
@pytest.mark.parametrize(("epsilon", "rank"), [(0, 4), (0.2, 4), (0.2, 2), (0.7, 3), (0, 2)])
def test_norm_of_the_gradient_in_a_trajectory_is_the_diagnostic(make_target, rng, epsilon, rank, depth):
    loss = BuresWasserstein(make_target([3.0, 2.2, 1.3, 0.5]), epsilon)
    flow = gradient_flow(loss, rng.standard_normal((4, rank)), depth, max_time=0.3, samples=8)
    expected = balanced_gradient_norm(loss, flow.factors, depth)
    np.testing.assert_allclose(flow.gradient_norm, expected, rtol=1e-9)
    np.testing.assert_allclose(flow.excess, loss.excess(flow.factors, rank), rtol=1e-9)
    lengths = np.linalg.norm(flow.factors, axis=-2)
    np.testing.assert_allclose(lengths, np.linalg.svd(flow.factors, compute_uv=False), rtol=1e-10)
