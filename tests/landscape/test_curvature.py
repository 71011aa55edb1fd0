"""Hessians of matrices and of layers: against two other differentiations, and the spectra that theory predicts."""

import functools
from itertools import combinations, pairwise

import autograd
import autograd.numpy as anp
import exact
import mpmath as mp
import numpy as np
import pytest
import scipy.sparse.linalg

from deepbures.landscape.critical_points import critical_points, factor, local_spectrum, network, value
from deepbures.landscape.curvature import (
    ZERO_TOLERANCE,
    Curvature,
    blow_up_constant,
    directional_derivatives,
    extreme_eigenvalues,
    hessian,
    network_hessian,
    network_hessian_product,
    network_loss,
    numerical_derivatives,
    segment,
)
from deepbures.linalg import thin
from deepbures.losses.registry import BuresWasserstein, Frobenius
from deepbures.model.network import DeepLinearNetwork

SPECTRUM = np.array([3.0, 2.2, 1.3, 0.5])
#: ε below all of SPECTRUM, above one of them, above three; "frobenius" names the other loss.
KINDS = [0, 0.2, 1.0, 2.5, "frobenius"]
DEPTHS = [1, 2, 3, 5, 10]


def make_loss(kind, covariance):
    """`kind` is "frobenius", or ε of the Bures-Wasserstein loss."""
    return Frobenius(covariance) if kind == "frobenius" else BuresWasserstein(covariance, kind)


def orthogonal(rng, n):
    return np.linalg.qr(rng.standard_normal((n, n)))[0]


def random_layers(rng, widths):
    """W_1, …, W_N of the widths d_0, …, d_N, not balanced."""
    return [rng.standard_normal((above, below)) for below, above in pairwise(widths)]


def flat(matrices):
    return np.concatenate([np.ravel(matrix) for matrix in matrices])


def unflat(vector, layers):
    """The inverse of `flat`, for stacks of vectors."""
    parts = np.split(vector, np.cumsum([layer.size for layer in layers])[:-1], axis=-1)
    return [part.reshape(*vector.shape[:-1], *layer.shape) for part, layer in zip(parts, layers, strict=True)]


def loglog_slope(x, y):
    return np.polyfit(np.log(x), np.log(y), 1)[0]


def assert_close(found, expected, tolerance):
    """Within `tolerance` of the largest entry."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


# --- Hessians where nothing is special --------------------------------------------------------------------------

WIDTHS = [[4, 4], [6, 4], [2, 4], [3, 2, 4], [4, 5, 4], [2, 3, 4], [5, 3, 2, 4], [4, 4, 4, 4], [2, 3, 4, 3, 4]]


def hessian_by_differences(loss, layers):
    """Derivative of the layer gradients by central differences of sixth order, with spacing 4e-3."""
    x, h = flat(layers), 4e-3
    steps = h * np.arange(1, 4)[:, None, None] * np.eye(x.size)

    def gradient(x):
        moved = DeepLinearNetwork(unflat(x, layers))
        gradients = moved.layer_gradients(loss.gradient(moved.end_to_end()))
        return np.concatenate([g.reshape(*x.shape[:-1], -1) for g in gradients], axis=-1)

    differences = gradient(x + steps) - gradient(x - steps)
    return np.tensordot([45, -9, 1], differences, axes=1) / (60 * h)


def differentiable_loss(kind, covariance, layers):
    """The deep loss as a function of all entries for `autograd`, from traces and eigenvalues.

    For ε = 0 tr M^{1/2} is taken in the narrowest width: the non-zero eigenvalues of M = R P Q Qᵀ Pᵀ R, where P Q = W
    is cut there, are those of Cᵀ Pᵀ Σ0 P C, C the Cholesky factor of Q Qᵀ.
    """
    eigenvalues, basis = np.linalg.eigh(covariance)
    R = basis * np.sqrt(np.maximum(eigenvalues, 0)) @ basis.T
    widths = [layers[0].shape[1], *(layer.shape[0] for layer in layers)]
    cut, shapes = int(np.argmin(widths)), [layer.shape for layer in layers]
    ends = np.cumsum([0, *(layer.size for layer in layers)])

    def product(matrices, size):
        result = np.eye(size)
        for matrix in matrices:
            result = anp.dot(matrix, result)
        return result

    def loss(x):
        W = [anp.reshape(x[a:b], shape) for a, b, shape in zip(ends, ends[1:], shapes, strict=False)]
        P, Q = product(W[cut:], widths[cut]), product(W[:cut], widths[0])
        S = anp.dot(anp.dot(P, Q), anp.dot(P, Q).T)
        if kind == "frobenius":
            return anp.sum((S - covariance) ** 2)
        if kind > 0:
            M = R @ (S + kind * np.eye(len(R))) @ R
        else:
            C = anp.linalg.cholesky(anp.dot(Q, Q.T))
            M = anp.dot(C.T, anp.dot(P.T, anp.dot(covariance, anp.dot(P, C))))
        M = (M + M.T) / 2
        return anp.trace(S) + kind * len(R) + np.trace(covariance) - 2 * anp.sum(anp.sqrt(anp.linalg.eigh(M)[0]))

    return loss


@pytest.mark.parametrize("widths", WIDTHS, ids=str)
@pytest.mark.parametrize("kind", [0, 1e-2, 0.5, "frobenius"])
def test_hessians_by_differences(make_target, rng, kind, widths):
    # Layers that are not balanced, of different widths; for ε = 0 with a bottleneck, too.
    loss, layers = make_loss(kind, make_target(SPECTRUM)), random_layers(rng, widths)
    found = network_hessian(loss, layers)
    np.testing.assert_array_equal(found, found.T)
    assert_close(found, hessian_by_differences(loss, layers), 1e-8)
    if len(layers) == 1:
        matrix = hessian(loss, layers[0])
        np.testing.assert_array_equal(matrix, matrix.T)
        assert_close(matrix, found, 1e-13)


@pytest.mark.parametrize("widths", [[3, 3], [3, 2, 3], [2, 3, 2, 3], [2, 3, 1, 2, 3]], ids=str)
@pytest.mark.parametrize("kind", [0, 0.3, "frobenius"])
def test_hessians_by_automatic_differentiation(make_target, kind, widths):
    covariance, layers = make_target(SPECTRUM[1:]), random_layers(np.random.default_rng(5), widths)
    function = differentiable_loss(kind, covariance, layers)
    loss = make_loss(kind, covariance)
    assert loss.value(DeepLinearNetwork(layers).end_to_end()) == pytest.approx(function(flat(layers)), rel=1e-12)
    assert_close(network_hessian(loss, layers), autograd.hessian(function)(flat(layers)), 1e-10)


@pytest.mark.parametrize("columns", [2, 3])
@pytest.mark.parametrize("kind", [0, 0.25, "frobenius"])
def test_curvature_in_fifty_digits(make_target, rng, kind, columns):
    # ⟨V, ∇²L[V]⟩ by differences of sixth order of the loss itself. W + i h V is exact, in multiples of 2^-20.
    covariance = make_target(SPECTRUM[1:])
    W, V = np.round(2**9 * rng.standard_normal((2, 3, columns))) / 2**10
    W += np.eye(3, columns)  # far from singular, where three steps of V do not lead
    h, exact_loss = 2.0**-10, exact.frobenius
    if kind != "frobenius":
        exact_loss = functools.partial(exact.bures_wasserstein, epsilon=kind)
    values = [exact_loss(W + i * h * V, covariance) for i in range(-3, 4)]
    weights = [2, -27, 270, -490, 270, -27, 2]
    with mp.workdps(exact.DIGITS):
        expected = float(mp.fdot(weights, values) / 180) / h**2
    found = V.ravel() @ hessian(make_loss(kind, covariance), W) @ V.ravel()
    assert found == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("epsilon", [0, 0.3])
@pytest.mark.parametrize("columns", [1, 2, 3, 4])
def test_hessian_with_a_singular_target(make_target, rng, epsilon, columns):
    # Of rank 2 in dimension 4: in the other two directions L = ‖V‖². A larger rank of W does not matter for ε = 0.
    loss = BuresWasserstein(make_target([2.0, 1.0, 0.0, 0.0]), epsilon)
    W = rng.standard_normal((4, columns))
    found = hessian(loss, W)
    assert_close(found, hessian_by_differences(loss, [W]), 1e-8)
    assert_close(network_hessian(loss, [W]), found, 1e-13)
    np.testing.assert_array_equal(hessian(loss, W, 4), found)


@pytest.mark.parametrize("widths", [[4, 4], [3, 2, 4], [5, 3, 2, 4], [2, 3, 4, 3, 4]], ids=str)
@pytest.mark.parametrize("kind", [0, 0.5, "frobenius"])
def test_hessian_product_is_the_dense_one(make_target, rng, kind, widths):
    loss, layers = make_loss(kind, make_target(SPECTRUM)), random_layers(rng, widths)
    V = random_layers(rng, widths)
    product = network_hessian_product(loss, layers, V)
    assert [part.shape for part in product] == [layer.shape for layer in layers]
    assert_close(flat(product), network_hessian(loss, layers) @ flat(V), 1e-12)


@pytest.mark.parametrize("widths", [[4, 4], [3, 2, 4], [2, 3, 4, 3, 4]], ids=str)
@pytest.mark.parametrize("kind", [0, 0.5, "frobenius"])
def test_directional_derivatives_are_those_of_the_expansion(make_target, rng, kind, widths):
    # L^N, ⟨∇L^N, V⟩ and ⟨V, ∇²L^N V⟩; from values alone to 1e-11 and 5e-9 of the scale.
    loss, layers = make_loss(kind, make_target(SPECTRUM)), random_layers(rng, widths)
    V = [v / np.sqrt(v.size) for v in random_layers(rng, widths)]
    W = DeepLinearNetwork(layers)
    gradients = W.layer_gradients(loss.gradient(W.end_to_end()))
    expected = loss.value(W.end_to_end()), flat(gradients) @ flat(V), flat(V) @ network_hessian(loss, layers) @ flat(V)
    found = directional_derivatives(loss, layers, V)
    assert [type(part) for part in found] == [float, float, float]
    assert found == pytest.approx(expected, rel=1e-11)
    numerical = numerical_derivatives(loss, layers, V)
    assert [type(part) for part in numerical] == [float, float, float]
    scale = max(1, *np.abs(expected))
    assert numerical[0] == found[0]
    assert numerical[1] == pytest.approx(found[1], abs=1e-11 * scale)
    assert numerical[2] == pytest.approx(found[2], abs=5e-9 * scale)


def test_numerical_derivatives_have_sixth_order(make_target, rng):
    # Truncation error ~ step^6: 64 times less for half the step.
    loss, layers = BuresWasserstein(make_target(SPECTRUM), 0.5), random_layers(rng, [4, 4, 4])
    V = random_layers(rng, [4, 4, 4])
    _, first, second = directional_derivatives(loss, layers, V)
    steps = 0.04 / 3**0.25 / 2 ** np.arange(3)  # in units of λ_1^{1/2N}, λ_1 = 3
    found = np.array([numerical_derivatives(loss, layers, V, step) for step in steps])
    assert loglog_slope(steps, np.abs(found[:, 1] - first)) == pytest.approx(6, abs=0.2)
    assert loglog_slope(steps, np.abs(found[:, 2] - second)) == pytest.approx(6, abs=0.2)


# --- ε = 0 within the matrices of one rank ----------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("columns", [3, 4, 6])
def test_hessian_product_along_the_matrices_of_one_rank(make_target, rng, rank, columns):
    # W = P Q of rank k and its tangent V = P' Q + P Q': derivative of the gradient along (P + t P')(Q + t Q').
    loss = BuresWasserstein(make_target(SPECTRUM))
    (P, dP), (Q, dQ) = rng.standard_normal((2, 4, rank)), rng.standard_normal((2, rank, columns))
    V = dP @ Q + P @ dQ
    found = loss.hessian_product(P @ Q, V, rank)
    t = 2e-3 * np.arange(1, 4)[:, None, None]
    differences = loss.gradient((P + t * dP) @ (Q + t * dQ)) - loss.gradient((P - t * dP) @ (Q - t * dQ))
    assert_close(found, np.tensordot([45, -9, 1], differences, axes=1) / (60 * 2e-3), 1e-8)
    dense = hessian(loss, P @ Q, rank)
    assert_close((dense @ V.ravel()).reshape(V.shape), found, 1e-11)
    np.testing.assert_array_equal(dense, dense.T)


@pytest.mark.parametrize("rank", [1, 2])
def test_rank_means_nothing_where_the_loss_is_smooth(make_target, rng, rank):
    W, V = rng.standard_normal((2, 4, 3))
    for loss in (BuresWasserstein(make_target(SPECTRUM), 0.1), Frobenius(make_target(SPECTRUM))):
        np.testing.assert_array_equal(loss.hessian_product(W, V, rank), loss.hessian_product(W, V))
        np.testing.assert_array_equal(hessian(loss, W, rank), hessian(loss, W))


@pytest.mark.parametrize("kind", [0, 0.2, "frobenius"])
def test_stack_of_directions_over_one_matrix(make_target, rng, kind):
    loss, W = make_loss(kind, make_target(SPECTRUM)), rng.standard_normal((4, 3))
    V = rng.standard_normal((2, 5, 4, 3))
    looped = [[loss.hessian_product(W, v) for v in row] for row in V]
    np.testing.assert_allclose(loss.hessian_product(W, V), looped, rtol=1e-11, atol=1e-12)
    with pytest.raises(ValueError, match=r"^V must have the shape of W, \(2, 5, 4, 3\), not \(4, 3\)$"):
        loss.hessian_product(V, W)
    with pytest.raises(ValueError, match=r"^V must have the shape of W, \(4, 3\), not \(2, 5, 4, 2\)$"):
        loss.hessian_product(W, V[..., :2])


def test_unsmoothed_hessian_refuses_another_rank(make_target, rng):
    loss = BuresWasserstein(make_target(SPECTRUM))
    P, Q = rng.standard_normal((4, 2)), rng.standard_normal((2, 5))
    for call in (lambda: hessian(loss, P @ Q), lambda: network_hessian(loss, [P @ Q])):
        with pytest.raises(ValueError, match=r"W must have rank 4 on the range.*not twice differentiable"):
            call()
    with pytest.raises(ValueError, match=r"W must have rank 3 on the range"):
        hessian(loss, P @ Q, 3)
    with pytest.raises(ValueError, match=r"^W must have rank 1, as given, and not a higher one$"):
        hessian(loss, P @ Q, 1)
    with pytest.raises(ValueError, match=r"W must have rank 2 on the range"):
        network_hessian(loss, [Q * [[1], [0]], P])  # bottleneck 2, product of rank 1
    with pytest.raises(ValueError, match=r"W must have rank 2 on the range"):
        extreme_eigenvalues(loss, [Q * [[1], [0]], P])
    assert hessian(loss, P @ Q, 2).shape == network_hessian(loss, [P @ Q + np.eye(4, 5)]).shape == (20, 20)


# --- Critical points --------------------------------------------------------------------------------------------

INPUT_DIMENSION = 5


@functools.cache
def spectra(kind, depth):
    """(k, J, closed form, eigenvalues of the network Hessian) of the critical points of rank ≤ k, k = 2, 4 or 1, 3."""
    basis = orthogonal(np.random.default_rng(6), 4)
    loss = make_loss(kind, basis * SPECTRUM @ basis.T)
    found = []
    for rank in (2, 4) if depth <= 3 else (1, 3):
        for point in critical_points(loss, rank, lower_ranks=kind != 0):
            layers = network(loss, point.kept, depth, rank, INPUT_DIMENSION).layers
            eigenvalues = np.linalg.eigvalsh(network_hessian(loss, layers))
            found.append((rank, point.kept, local_spectrum(loss, point.kept, depth, rank), eigenvalues))
    return found


def pairs(kept):
    """Number of pairs a in J, b not in J with λ_b > λ_a."""
    return sum(b < a for a in kept for b in range(4) if b not in kept)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_spectrum_of_the_layers_is_the_local_spectrum(kind, depth):
    # Apart from zeros, at every point, those of lower rank included (for ε = 0 they have no Hessian).
    for _, _, closed_form, eigenvalues in spectra(kind, depth):
        rates = closed_form.rates[closed_form.rates != 0]
        expected = np.sort(np.concatenate([rates, np.zeros(eigenvalues.size - rates.size)]))
        assert np.abs(eigenvalues - expected).max() <= 1e-13 * np.abs(expected).max()


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_curvature_counts_the_rates(kind, depth):
    # Zeros and others lie apart from the tolerance by three orders of magnitude at least.
    for rank, kept, closed_form, eigenvalues in spectra(kind, depth):
        curvature = Curvature.of(eigenvalues)
        rates = closed_form.rates[closed_form.rates != 0]
        assert (curvature.smallest, curvature.largest) == (eigenvalues[0], eigenvalues[-1])
        assert curvature.negative == np.sum(rates < 0) == closed_form.escapes
        assert curvature.positive == np.sum(rates > 0)
        assert curvature.zero == eigenvalues.size - rates.size
        if rates.size == 0:
            continue
        size = np.sort(np.abs(eigenvalues)) / np.abs(eigenvalues).max()
        assert size[: curvature.zero].max(initial=0) < 1e-3 * ZERO_TOLERANCE
        assert size[curvature.zero] > 1e3 * ZERO_TOLERANCE
        assert curvature.relative_condition == pytest.approx(eigenvalues[-1] / rates.min(), rel=1e-9)
        assert curvature.absolute_condition == pytest.approx(eigenvalues[-1] / np.abs(rates).min(), rel=1e-9)
        if len(kept) == rank:
            rotations = rank * (rank - 1) // 2
            rescalings = (depth - 1) * rank**2 + rank * (INPUT_DIMENSION - rank) if depth > 1 else 0
            assert curvature.zero == rotations + rescalings


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_minimum_has_no_negative_curvature_and_saddles_have_one_a_pair(kind, depth):
    # The minimum keeps the k largest, or those of them that exceed ε.
    shift = 0 if kind == "frobenius" else kind
    for rank, kept, _, eigenvalues in spectra(kind, depth):
        negative = np.sum(eigenvalues < -1e-8 * eigenvalues[-1])
        if kept == tuple(j for j in range(rank) if SPECTRUM[j] > shift):
            assert negative == 0
        elif len(kept) == rank:
            assert negative == pairs(kept) > 0


@pytest.mark.parametrize("depth", DEPTHS[1:])
@pytest.mark.parametrize("kind", KINDS)
def test_lower_ranks_are_degenerate_saddles_of_deep_layers(make_target, kind, depth):
    # W_J with J = {1..r}, r < k, has no negative curvature (for ε = 0 no Hessian at all), and yet filling the empty
    # column in all layers lowers the loss, if λ_b > ε. If not, the direction rises.
    loss = make_loss(kind, make_target(SPECTRUM))
    shift = 0 if kind == "frobenius" else kind
    t = 0.3
    for size in range(min(4, np.sum(shift < SPECTRUM))):
        kept = tuple(range(size))
        layers = network(loss, kept, depth, 4).layers
        if kind != 0:
            eigenvalues = np.linalg.eigvalsh(network_hessian(loss, layers))
            assert eigenvalues[0] >= -1e-8 * max(eigenvalues[-1], 1)
        for b in range(size, 4):
            moved = [layer.copy() for layer in layers]
            for layer in moved[:-1]:
                layer[size, size] = t
            moved[-1][:, size] = t * loss.eigenvectors[:, b]
            change = network_loss(loss, moved) - value(loss, kept)
            assert (change < -1e-13) if SPECTRUM[b] > shift else (change > 1e-13)


# --- Extreme eigenvalues ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("widths", [[8, 6, 7, 8], [14, 8], [8, 3, 8, 12, 8]], ids=str)
@pytest.mark.parametrize("kind", [0, 0.1, "frobenius"])
def test_extreme_eigenvalues_are_the_dense_ones(make_target, rng, kind, widths):
    # Hessians of 112 to 276 parameters, indefinite.
    loss = make_loss(kind, make_target(np.geomspace(5, 0.3, 8)))
    layers = [layer / np.sqrt(layer.shape[1]) for layer in random_layers(rng, widths)]
    eigenvalues = np.linalg.eigvalsh(network_hessian(loss, layers))
    found = extreme_eigenvalues(loss, layers)
    assert [type(end) for end in found] == [float, float]
    assert found[0] < 0 < found[1]
    np.testing.assert_allclose(found, eigenvalues[[0, -1]], rtol=0, atol=1e-11 * np.abs(eigenvalues).max())


@pytest.mark.parametrize("kind", [0, 0.1, "frobenius"])
def test_extreme_eigenvalues_of_many_parameters_in_closed_form(make_target, kind):
    # n = 20, N = 10: 288 and 4000 parameters, at the minimum (λ_min = 0) and at a saddle.
    loss = make_loss(kind, make_target(np.geomspace(10, 0.5, 20)))
    full = [tuple(range(20))] if kind == 0.1 else []
    for kept in [(0, 1, 2, 3), (0, 3, 8, 19), *full]:
        rates = local_spectrum(loss, kept, 10, len(kept)).rates
        expected = min(0, rates.min()), rates.max()
        layers = network(loss, kept, 10, len(kept)).layers
        found = extreme_eigenvalues(loss, layers)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11 * np.abs(expected).max())


def test_extreme_eigenvalues_are_the_same_every_time(make_target, rng):
    # Bit for bit, whatever Lanczos was asked before.
    loss, layers = BuresWasserstein(make_target(SPECTRUM), 0.1), random_layers(rng, [6, 5, 4])
    found = extreme_eigenvalues(loss, layers)
    extreme_eigenvalues(Frobenius(loss.covariance), random_layers(rng, [3, 4, 4]))
    assert extreme_eigenvalues(loss, layers) == found


@pytest.mark.parametrize("widths", [[1, 1], [1, 1, 1], [2, 2], [1, 1, 2], [2, 2, 3, 2], [10, 2]], ids=str)
def test_extreme_eigenvalues_of_few_parameters(rng, widths):
    # 1, 2, 4, 3, 16 and 20 of them.
    loss, layers = BuresWasserstein(np.diag([2.0, 1.0][: widths[-1]]), 0.1), random_layers(rng, widths)
    eigenvalues = np.linalg.eigvalsh(network_hessian(loss, layers))
    found = extreme_eigenvalues(loss, layers)
    np.testing.assert_allclose(found, eigenvalues[[0, -1]], rtol=0, atol=1e-13 * np.abs(eigenvalues).max())


def test_extreme_eigenvalues_of_few_different_ones():
    # Krylov spaces of dimension 2 and 3: −4 λ_j for W = 0, and 0, 8, 16 at the minimum of the unit target.
    layers = [np.zeros((5, 5))]
    found = extreme_eigenvalues(Frobenius(np.diag([2.0, 2.0, 2.0, 1.0, 1.0])), layers)
    assert found == pytest.approx((-8, -4), rel=1e-12)
    found = extreme_eigenvalues(Frobenius(np.eye(5)), [np.eye(5), np.eye(5)])
    assert found == pytest.approx((0, 16), abs=1e-12)


def test_extreme_eigenvalues_say_when_they_are_not_found(monkeypatch, rng):
    def fail(*_, **__):
        raise scipy.sparse.linalg.ArpackNoConvergence("no convergence (%s/1)", np.array([]), np.array([]))

    monkeypatch.setattr(scipy.sparse.linalg, "eigsh", fail)
    with pytest.raises(ValueError, match=r"^the extreme eigenvalues of the Hessian were not found: "):
        extreme_eigenvalues(Frobenius(np.eye(5)), [rng.standard_normal((5, 5))])


# --- Where W loses rank -----------------------------------------------------------------------------------------

SIGMA = np.logspace(-2, -6, 9)


def nearly_singular(sigma, columns, vanishing=1):
    """W, 4 × d, with the last `vanishing` singular values σ, in general position."""
    rng = np.random.default_rng(3)
    U, V = orthogonal(rng, 4), orthogonal(rng, columns)
    values = np.array([1.7, 1.2, 0.9, 0.6])[: min(4, columns)]
    values[len(values) - vanishing :] = sigma
    return U[:, : len(values)] * values @ V[: len(values)]


def lowest_curvatures(loss, columns, vanishing=1):
    return -np.array([np.linalg.eigvalsh(hessian(loss, nearly_singular(s, columns, vanishing)))[0] for s in SIGMA])


@pytest.mark.parametrize(
    ("columns", "vanishing", "slope"), [(1, 1, -1), (2, 1, -1), (3, 1, -1), (4, 1, 0), (4, 2, -1), (6, 1, -1)]
)
def test_unsmoothed_curvature_blows_up_like_one_over_sigma(make_target, columns, vanishing, slope):
    # ε = 0, σ from 1e-2 to 1e-6. In a square W it takes two singular values that vanish (paper.md section 2).
    lowest = lowest_curvatures(BuresWasserstein(make_target(SPECTRUM)), columns, vanishing)
    assert loglog_slope(SIGMA, lowest) == pytest.approx(slope, abs=0.05)
    if slope:
        assert loglog_slope(SIGMA[4:], lowest[4:]) == pytest.approx(-1, abs=1e-3)
        assert lowest[-1] > 1e5
    else:
        assert np.ptp(lowest[4:]) < 1e-3 * lowest[-1]


def test_constant_of_the_blow_up(make_target, rng):
    # −2 λ_max(AᵀPA) / ‖A u‖, straight from paper.md section 11, and against the Hessian: −500,540 against −500,542.
    covariance = make_target([3.0, 2.2, 1.3, 0.5])
    loss, Q, sigma = BuresWasserstein(covariance), orthogonal(rng, 4), 1e-5
    kept, u = Q[:, :2], Q[:, 2]
    eigenvalues, basis = np.linalg.eigh(covariance)
    R = basis @ np.diag(np.sqrt(eigenvalues)) @ basis.T
    off = np.eye(4) - (R @ kept) @ np.linalg.solve(kept.T @ R @ R @ kept, (R @ kept).T)
    A = off @ R
    y = A @ u / np.linalg.norm(A @ u)
    C = 2 * np.linalg.eigvalsh(A.T @ (np.eye(4) - np.outer(y, y)) @ A)[-1] / np.linalg.norm(A @ u)
    assert blow_up_constant(loss, kept, u[:, None]) == pytest.approx(C, rel=1e-10)
    W = Q[:, :3] * [1, 1, sigma]
    smallest = np.linalg.eigvalsh(hessian(loss, W))[0]
    assert smallest == pytest.approx(-C / sigma, rel=1e-4)
    assert smallest != pytest.approx(-C / sigma, rel=1e-8)


@pytest.mark.parametrize(
    ("columns", "vanishing"), [(columns, m) for columns in (1, 2, 3, 4) for m in range(1, columns + 1)]
)
def test_constant_of_several_vanishing_directions(make_target, rng, columns, vanishing):
    loss, Q = BuresWasserstein(make_target(SPECTRUM)), orthogonal(rng, 4)
    C = blow_up_constant(loss, Q[:, : columns - vanishing], Q[:, columns - vanishing : columns])
    if columns == 4 and vanishing == 1:
        assert C == 0
        return
    s = np.where(np.arange(columns) < columns - vanishing, 1.0, 1e-6)
    mixed = (Q[:, :columns] * s) @ orthogonal(rng, columns)  # a rotation of the input changes nothing
    assert np.linalg.eigvalsh(hessian(loss, mixed))[0] == pytest.approx(-C / 1e-6, rel=1e-4)


@pytest.mark.parametrize("vanishing", [1, 2])
def test_constant_of_the_blow_up_is_that_of_the_dense_form(monkeypatch, rng, vanishing):
    # n = 130, k = 4: Lanczos on products that are linear in n, to 1e-9.
    loss, Q = BuresWasserstein.from_spectrum(1 / np.arange(1, 131)), orthogonal(rng, 130)
    directions = Q[:, : 4 - vanishing], Q[:, 4 - vanishing : 4]
    found = blow_up_constant(loss, *directions)
    monkeypatch.setattr(thin, "_LARGE", 10**9)
    assert found == pytest.approx(blow_up_constant(loss, *directions), rel=1e-9)


def test_constant_of_the_blow_up_is_linear_in_the_dimension(rng, traced):
    # n = 3,000, k = 4: below 60 n k doubles, a twelfth of an n × n array.
    n, k = 3000, 4
    loss, Q = BuresWasserstein.from_spectrum(1 / np.arange(1, n + 1)), np.linalg.qr(rng.standard_normal((n, k)))[0]
    with traced(60 * 8 * n * k):
        assert blow_up_constant(loss, Q[:, : k - 1], Q[:, k - 1 :]) > 0


@pytest.mark.parametrize("columns", [1, 2, 3])
@pytest.mark.parametrize("epsilon", [0.01, 0.1, 0.5])
def test_smoothed_curvature_levels_off(make_target, epsilon, columns):
    # At σ = 0: 2 (1 − λ_max(T)), T = R M^{−1/2} R, with the empty column as eigenvector.
    loss = BuresWasserstein(make_target(SPECTRUM), epsilon)
    W = nearly_singular(0, columns)
    R = loss.eigenvectors * np.sqrt(loss.eigenvalues) @ loss.eigenvectors.T
    mu, Q = np.linalg.eigh(R @ (W @ W.T + epsilon * np.eye(4)) @ R)
    level = 2 * (1 - np.linalg.eigvalsh(R @ (Q / np.sqrt(mu) @ Q.T) @ R)[-1])
    assert np.linalg.eigvalsh(hessian(loss, W))[0] == pytest.approx(level, rel=1e-10)
    lowest = lowest_curvatures(loss, columns)
    assert np.abs(loglog_slope(SIGMA[4:], lowest[4:])) < 1e-3
    assert -lowest[-1] == pytest.approx(level, rel=1e-5)


@pytest.mark.parametrize("kind", [0, 0.1])
@pytest.mark.parametrize("depth", [2, 3, 5])
@pytest.mark.parametrize("width", [2, 3, 4])
def test_curvature_of_balanced_layers_stays_bounded(make_target, kind, depth, width):
    # N ≥ 2: the layers carry 1/σ by σ^{2(N−1)/N}, which is bounded for ε = 0 as well.
    loss = make_loss(kind, make_target(SPECTRUM))
    lowest = []
    for sigma in SIGMA:
        W = np.pad(nearly_singular(sigma, width), ((0, 0), (0, 4 - width)))
        lowest.append(-np.linalg.eigvalsh(network_hessian(loss, DeepLinearNetwork.balanced(W, depth, width).layers))[0])
    assert max(lowest) < 6
    assert np.ptp(lowest) < 0.05 * lowest[-1]


@pytest.mark.parametrize("columns", [2, 4, 6])
@pytest.mark.parametrize("epsilon", [0, 0.1, 2.0])
def test_no_curvature_of_the_distance_exceeds_two(make_target, rng, epsilon, columns):
    # L = ‖W‖² + const − 2 ‖R [W, √ε I]‖_*, and norms are convex. For ε = 0 the norm is linear along W: λ_max = 2,
    # exactly, with W as eigenvector.
    loss = BuresWasserstein(make_target(SPECTRUM), epsilon)
    for W in rng.standard_normal((10, 4, columns)):
        matrix = hessian(loss, W)
        largest = np.linalg.eigvalsh(matrix)[-1]
        assert largest <= 2 + 1e-11
        if epsilon == 0:
            assert largest == pytest.approx(2, abs=1e-11)
            np.testing.assert_allclose(matrix @ W.ravel(), 2 * W.ravel(), atol=1e-10)


# --- Curvature, segments, values ---------------------------------------------------------------------------------


def test_curvature_by_hand():
    # κ_rel = λ_max / λ_min and κ_abs = λ_max / min |λ|, zeros aside; below 1e-9 of the largest in size is zero.
    assert Curvature.of(np.array([4.0, -2.0, 0.0, 1.0, 3e-9])) == Curvature(-2.0, 4.0, 1, 2, 2, -2.0, 4.0)
    assert Curvature.of(np.array([0.5, 4.0, 2.0])) == Curvature(0.5, 4.0, 0, 0, 3, 8.0, 8.0)
    assert Curvature.of(np.array([-8.0, 2.0, 5e-9, 9e-9, -9e-9])) == Curvature(-8.0, 2.0, 2, 1, 2, -0.25, 2 / 9e-9)
    assert Curvature.of(np.array([0.01, -1.0, 2.0]), tolerance=0.1) == Curvature(-1.0, 2.0, 1, 1, 1, -2.0, 2.0)
    nothing = Curvature.of(np.zeros(3))
    assert (nothing.negative, nothing.zero, nothing.positive) == (0, 3, 0)
    assert np.isnan([nothing.relative_condition, nothing.absolute_condition]).all()


def test_curvature_leaves_the_eigenvalues_in_their_order():
    eigenvalues = np.array([3.0, 1.0, 2.0])
    assert Curvature.of(eigenvalues).relative_condition == 3
    assert eigenvalues.tolist() == [3, 1, 2]


def test_segment_joins_its_ends(rng):
    start, end = rng.standard_normal((2, 4, 3))
    t = [0, 0.25, 1, 1.5]
    path = segment(start, end, t)
    assert path.shape == (4, 4, 3)
    for share, W in zip(t, path, strict=True):
        np.testing.assert_allclose(W, start + share * (end - start), atol=1e-14)
    np.testing.assert_array_equal(path[[0, 2]], [start, end])
    assert segment([[1, 2]], [[3, 4]], [0.5]).tolist() == [[[2, 3]]]


@pytest.mark.parametrize("kind", [0, 0.2, "frobenius"])
def test_network_loss_of_stacks(make_target, rng, kind):
    # Of layers, one loss for each member; and of targets.
    loss = make_loss(kind, make_target(SPECTRUM))
    layers = [rng.standard_normal((7, above, below)) for below, above in pairwise([3, 2, 4])]
    found = network_loss(loss, layers)
    assert found.shape == (7,)
    np.testing.assert_allclose(found, [loss.value(b @ a) for a, b in zip(*layers, strict=True)], rtol=1e-12)
    assert network_loss(loss, [layer[2] for layer in layers]) == pytest.approx(found[2], rel=1e-12)
    targets = make_loss(kind, np.stack([make_target(SPECTRUM, seed) for seed in range(7)]))
    found = network_loss(targets, layers)
    np.testing.assert_allclose(found, [targets.take(i).value(layers[1][i] @ layers[0][i]) for i in range(7)])


def test_path_between_critical_points_starts_and_ends_at_their_losses(make_target):
    # In the space of matrices and in that of the layers.
    loss = BuresWasserstein(make_target(SPECTRUM), 0.1)
    for one, other in combinations([(0, 1), (1, 2), (0,)], 2):
        ends = value(loss, one), value(loss, other)
        matrices = segment(factor(loss, one, 2), factor(loss, other, 2), [0, 1])
        np.testing.assert_allclose(loss.value(matrices), ends, rtol=1e-12)
        layers = zip(network(loss, one, 3, 2).layers, network(loss, other, 3, 2).layers, strict=True)
        np.testing.assert_allclose(network_loss(loss, [segment(a, b, [0, 1]) for a, b in layers]), ends, rtol=1e-12)


# --- Bad input --------------------------------------------------------------------------------------------------

LOSS = Frobenius(np.diag(SPECTRUM))
STACK = Frobenius(np.stack([np.diag(SPECTRUM)] * 3))
LAYERS = [np.ones((2, 3)), np.ones((4, 2))]
ONE = r"^loss must have one target, not a stack of shape \(3,\)$"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hessian(STACK, np.ones((4, 2))), r"^a Hessian is of one target and one W, not of stacks \(3,\) and"),
        (lambda: hessian(LOSS, np.ones((5, 4, 2))), r"^a Hessian is of one .*, not of stacks \(\) and \(5,\)$"),
        (lambda: hessian(LOSS, np.ones((3, 2))), r"must have 4 rows"),
        (lambda: hessian(LOSS, np.full((4, 2), np.inf)), r"^W must be finite"),
        (lambda: network_hessian(STACK, LAYERS), ONE),
        (lambda: network_hessian_product(STACK, LAYERS, LAYERS), ONE),
        (lambda: extreme_eigenvalues(STACK, LAYERS), ONE),
        (lambda: directional_derivatives(STACK, LAYERS, LAYERS), ONE),
        (lambda: numerical_derivatives(STACK, LAYERS, LAYERS), ONE),
        (
            lambda: blow_up_constant(LOSS, np.eye(3)[:, :1], np.eye(3)[:, 1:2]),
            r"^loss must be Bures-Wasserstein with eps",
        ),
        (
            lambda: blow_up_constant(BuresWasserstein(np.diag([2.0, 1, 0])), np.eye(3)[:, :2], np.eye(3)[:, 2:]),
            r"^rank 3 exceeds the rank 2 of the target: without smoothing its critical points have no Hessian$",
        ),
        (lambda: network_hessian(LOSS, []), r"^layers must hold at least one matrix$"),
        (lambda: network_hessian(LOSS, LAYERS[::-1]), r"^layers must chain: layer 2 has 3 columns"),
        (lambda: network_hessian(LOSS, [np.ones((5, 2, 3)), LAYERS[1]]), r"^layer 1 must be a matrix, not of shape"),
        (lambda: network_hessian(LOSS, [LAYERS[0], np.ones((1, 4, 2))]), r"^layer 2 must be a matrix, not of shape"),
        (lambda: network_hessian_product(LOSS, LAYERS, LAYERS[:1]), r"^directions must have the shapes of the layers"),
        (lambda: directional_derivatives(LOSS, LAYERS, [LAYERS[0], np.ones((4, 1))]), r"\[\(2, 3\), \(4, 1\)\]$"),
        (lambda: numerical_derivatives(LOSS, LAYERS, [LAYERS[0], np.ones(2)]), r"^direction 2 must be .* 2 axes"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
